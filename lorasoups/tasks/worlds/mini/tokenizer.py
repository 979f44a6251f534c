"""The mini world's tokenizer: one token per word, per digit and per line break with its indent."""

import re
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
# a leading space belongs to the piece, so that decoding is plain concatenation and exact
PIECE = r"\n(?:    )*| ?[A-Za-z_]+| ?[0-9]| ?[^\sA-Za-z_0-9]"


def vocabulary(texts) -> list[str]:
    """All pieces of ``texts``, with and without a leading space, sorted; digits in both forms."""
    pieces = {f"{space}{digit}" for space in ("", " ") for digit in "0123456789"}
    for text in texts:
        pieces.update(re.findall(PIECE, text))
    return sorted(pieces)


def build(pieces: list[str]) -> PreTrainedTokenizerFast:
    """A stock ``tokenizers`` word-level tokenizer over ``pieces``.

    It begins every text with ``<s>``; unknown pieces become ``<unk>``; ``decode(encode(t)) == t``
    for every text made of known pieces.
    """
    vocab = {piece: i for i, piece in enumerate([*SPECIAL, *pieces])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocab["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def mini_tokenizer(documents: int = 20_000, seed: int = 0) -> PreTrainedTokenizerFast:
    """The tokenizer of the embedded base, from a sample of every kind of text in the world."""
    from lorasoups.tasks.worlds.mini.corpus import document
    from lorasoups.tasks.worlds.mini.tasks import example

    rng = Random(seed)
    texts = [text for _ in range(documents) for text in document(rng)]
    for task in ("math", "code", "hard_math", "hard_math_easy", "hard_math_unseen"):
        for _ in range(documents // 20):
            item = example(task, rng, "train")
            texts += [item["prompt"], item["answer"]]
    return build(vocabulary(texts))
