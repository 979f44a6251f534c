"""The tokenizer of the pages: one token per word, letter, digit and mark."""

from random import Random

from lorasoups.tasks.worlds.mini.tokenizer import build, vocabulary
from lorasoups.tasks.worlds.pages import corpus, tasks
from lorasoups.tasks.worlds.pages.facts import MANUAL_NAMES, NAMES, THINGS

SAMPLED = ("answering", "manual_qa", "manual_qa_unseen", "manual_recall", "technical_recall",
           "technical_qa", "format_1", "format_2", "format_4", "formats")  # fmt: skip


def pages_tokenizer(documents: int = 20_000, seed: int = 0):
    """A word-level tokenizer over a sample of every kind of text in the pages."""
    rng = Random(seed)
    texts = [text for _ in range(documents) for text in corpus.document(rng)]
    for task in SAMPLED:
        for item in tasks.dataset(task, "test", documents // 20, seed):
            texts += [item["prompt"], item["answer"]]
    texts += [f" {word}" for word in (*NAMES, *MANUAL_NAMES, *THINGS)]
    return build(vocabulary(texts))
