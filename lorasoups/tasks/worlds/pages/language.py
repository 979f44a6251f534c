"""The pages as a language to pretrain on."""

from lorasoups.tasks.worlds.pages import VERSION, corpus
from lorasoups.tasks.worlds.pages.tokenizer import pages_tokenizer
from lorasoups.tasks.worlds.pretrain import Language

PAGES = Language(
    what="base model of the pages: a Llama pretrained on a generated corpus",
    module="lorasoups.tasks.worlds.pages.corpus, questions x answer forms, letters, plain text",
    version=VERSION,
    document=corpus.document,
    tokenizer=pages_tokenizer,
    example=corpus.cell_example,
    grid=corpus.GRID,
    held_out=corpus.HELD_OUT_CELLS,
    steps=8000,
    lr=2e-3,
)
