"""Do training rows hold what the test asks? Shared n-grams of words, and equal questions.

As in Brown et al. 2020 (arXiv 2005.14165, appendix C, with n = 13; n = 8 finds more). Questions and
answers of training rows count, of test items the questions alone. Every comparison is made twice:
as it is, and with numbers as ``#``, because GSM-Hard is GSM8K with other numbers. Formulas of a
test ("how many words contain the letter") are no contamination, so items are also counted without
n-grams that are in more than 1 % (at least 5) of the test items.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

N = 8  # words of an n-gram
COMMON, COMMON_AT_LEAST = 0.01, 5
NEAR = 0.5
_WORD = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+")
_NUMBER_WORDS = frozenset(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand million billion".split()
)

Sets = Mapping[str, Sequence[dict]]
Row = tuple[list[str], list[str]]  # words of the question, words of the answer


def words(text: str, mask_numbers: bool = False) -> list[str]:
    """The words of a text: lower case, no punctuation, ``1,000`` as ``1000``.

    With ``mask_numbers`` a run of numbers, in digits or in words, is one ``#``.
    """
    plain = _WORD.findall(re.sub("['\u2019]", "", text.lower()))
    if not mask_numbers:
        return [word.replace(",", "") for word in plain]
    masked: list[str] = []
    for word in plain:
        if not (word[0].isdigit() or word in _NUMBER_WORDS):
            masked.append(word)
        elif masked[-1:] != ["#"]:
            masked.append("#")
    return masked


def report(train: Sets, test: Sets) -> dict:
    """Compare every training set with every test set; none is empty.

    ``train`` is name -> items ``{question, answer}``, ``test`` name -> items ``{question}``; an
    item's ``compare`` (its content without its form) or ``source_question`` (without the request
    for a program) replaces the question.

    Returns ``{n, pairs}``. A pair has ``train``, ``test`` (names), ``train_rows``, ``test_items``,
    ``too_short`` (test items of fewer than `N` words) and two counts, ``as_it_is`` and
    ``numbers_masked``: ``items`` (test items with a shared n-gram), ``share`` (of all),
    ``specific`` (items that share more than the test's ``formulas``), ``near`` (items that share at
    least half of their specific n-grams), ``formulas`` and ``same_question`` (items whose whole
    question is a training row's).
    """
    pairs = []
    for (test_name, tested), (train_name, trained) in product(test.items(), train.items()):
        too_short = sum(len(words(_asked(item))) < N for item in tested)
        pair = {"train": train_name, "test": test_name, "train_rows": len(trained),
                "test_items": len(tested), "too_short": too_short}  # fmt: skip
        for kind, mask in (("as_it_is", False), ("numbers_masked", True)):
            rows = [(words(i["question"], mask), words(i["answer"], mask)) for i in trained]
            pair[kind] = _compare(rows, [words(_asked(item), mask) for item in tested])
        pairs.append(pair)
    return {"n": N, "pairs": pairs}


def _compare(trained: list[Row], tested: list[list[str]]) -> dict:
    grams_of = [set(_grams(tokens)) for tokens in tested]
    items_with = Counter(gram for grams in grams_of for gram in grams)
    limit = max(COMMON_AT_LEAST, COMMON * len(tested))
    formulas = {gram for gram, items in items_with.items() if items > limit}
    seen: set[tuple] = set()
    for question, answer in trained:
        seen |= items_with.keys() & {*_grams(question), *_grams(answer)}
    questions = {tuple(question) for question, _ in trained}
    shares = [len((g & seen) - formulas) / max(1, len(g - formulas)) for g in grams_of]
    shared_items = sum(not grams.isdisjoint(seen) for grams in grams_of)
    return {
        "items": shared_items, "share": shared_items / len(tested), "formulas": len(formulas),
        "specific": sum(share > 0 for share in shares),
        "near": sum(share >= NEAR for share in shares),
        "same_question": sum(tuple(tokens) in questions for tokens in tested),
    }  # fmt: skip


def _asked(item: Mapping) -> str:
    """The content of a test item: without the form around it, or the request for a program."""
    return item.get("compare") or item.get("source_question") or item["question"]


def _grams(tokens: list[str]) -> Iterator[tuple]:
    return zip(*(tokens[k:] for k in range(N)), strict=False)
