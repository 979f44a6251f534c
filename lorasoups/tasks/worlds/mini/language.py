"""The mini world as a language to pretrain on."""

from lorasoups.tasks.worlds.mini import VERSION, corpus
from lorasoups.tasks.worlds.mini.tokenizer import mini_tokenizer
from lorasoups.tasks.worlds.pretrain import Language

MINI = Language(
    what="base model of the mini world: a Llama pretrained on a generated corpus",
    module="lorasoups.tasks.worlds.mini.corpus, a grid of contents x output forms, plus plain text",
    version=VERSION,
    document=corpus.document,
    tokenizer=mini_tokenizer,
    example=corpus.cell_example,
    grid=corpus.GRID,
    held_out=corpus.HELD_OUT_CELLS,
    steps=6000,
    lr=2e-3,
)
