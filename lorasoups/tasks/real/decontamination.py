"""Do training rows hold what the test asks? Shared n-grams of words, and equal questions.

Words are lower-cased and lose their punctuation, as is usual (Brown et al. 2020, arXiv 2005.14165,
appendix C; there n = 13, here 8, which finds more). Everything that is trained on counts, question
and answer; of the test the question alone. Each comparison is made twice: with numbers as they
stand, and with every number (in digits or words) put as ``#``, because GSM-Hard is GSM8K with other
numbers.

Formulas of a test set ("how many words contain the letter") are no contamination, so items are
also counted without n-grams that stand in more than 1 % (at least 5) of the test items.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from lorasoups.errors import SoupError

N = 8
EXAMPLES = 5
COMMON, COMMON_AT_LEAST = 0.01, 5
NEAR = 0.5
_WORD = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+")
_APOSTROPHE = re.compile("['\u2019]")
_NUMBER_WORDS = frozenset(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand million billion".split()
)

Gram = tuple[str, ...]


def words(text: str, mask_numbers: bool = False) -> list[str]:
    """The words of a text: lower case, no punctuation, ``1,000`` as ``1000``.

    With ``mask_numbers`` a run of numbers, in digits or in words, is one ``#``.
    """
    found = _WORD.findall(_APOSTROPHE.sub("", text.lower()))
    if not mask_numbers:
        return [word.replace(",", "") for word in found]
    masked: list[str] = []
    for word in found:
        number = word[0].isdigit() or word in _NUMBER_WORDS
        if not number:
            masked.append(word)
        elif masked[-1:] != ["#"]:
            masked.append("#")
    return masked


def report(
    train: Mapping[str, Sequence[dict]],
    test: Mapping[str, Sequence[dict]],
    n: int = N,
    examples: int = EXAMPLES,
) -> dict:
    """Compare every training set with every test set.

    Args:
        train: name -> items ``{question, answer, id}`` that are trained on.
        test: name -> items ``{question, id}``; where an item has ``compare`` (its content without
            its form) or ``source_question`` (without the request for a program) that is compared.
        n: words of an n-gram.
        examples: how many of the items with most in common are named.

    Returns:
        Plain values: ``{n, pairs}``, a pair being ``{train, test, train_rows, test_items,
        too_short, as_it_is, numbers_masked}``. ``too_short``: test items of fewer than n words,
        which have no n-gram (they are compared as whole questions all the same). The last two are
        each ``{items, share, specific, near, formulas, same_question, examples}``: ``items``, test
        items with any shared n-gram, and their ``share``; ``specific``, the same without the
        test's formulas, whose number is ``formulas``; ``near``, items of whose specific n-grams at
        least half are shared; ``same_question``, items whose whole question is that of a training
        row; ``examples``, ``{id, train_id, share}`` of the items with the largest share of
        specific n-grams in common, each with the row that has most of them.

    Raises:
        SoupError: n below 1, or a set without items.
    """
    if n < 1:
        raise SoupError(f"n-grams of {n} words: decontamination; give at least 1")
    for name, items in [*train.items(), *test.items()]:
        if not items:
            raise SoupError(f"no items to compare: {name}; leave it out")
    pairs: dict[tuple[str, str], dict] = {
        (train_name, test_name): {
            "train": train_name,
            "test": test_name,
            "train_rows": len(trained),
            "test_items": len(tested),
            "too_short": sum(len(words(_asked(item))) < n for item in tested),
        }
        for test_name, tested in test.items()
        for train_name, trained in train.items()
    }
    for kind, mask in (("as_it_is", False), ("numbers_masked", True)):
        rows = {name: [_Row(item, mask) for item in items] for name, items in train.items()}
        for (train_name, test_name), pair in pairs.items():
            pair[kind] = _compare(rows[train_name], test[test_name], n, mask, examples)
    return {"n": n, "pairs": list(pairs.values())}


class _Row:
    """A training row in words: taken apart once, however many tests it is compared with."""

    def __init__(self, item: Mapping, mask_numbers: bool):
        self.id = item["id"]
        self.question = words(item["question"], mask_numbers)
        self.answer = words(item["answer"], mask_numbers)


def _compare(
    trained: Sequence[_Row], tested: Sequence[dict], n: int, mask_numbers: bool, examples: int
) -> dict:
    asked = [words(_asked(item), mask_numbers) for item in tested]
    own = [set(_grams(tokens, n)) for tokens in asked]
    items_with: dict[Gram, list[int]] = defaultdict(list)
    for i, grams in enumerate(own):
        for gram in grams:
            items_with[gram].append(i)
    limit = max(COMMON_AT_LEAST, COMMON * len(tested))
    formulas = {gram for gram, items in items_with.items() if len(items) > limit}
    seen: set[Gram] = set()
    rows_with: list[Counter[int]] = [Counter() for _ in tested]
    for j, row in enumerate(trained):
        shared = items_with.keys() & {*_grams(row.question, n), *_grams(row.answer, n)}
        seen |= shared
        for gram in shared - formulas:
            for i in items_with[gram]:
                rows_with[i][j] += 1
    questions = {tuple(row.question) for row in trained}
    shares = [len((g & seen) - formulas) / max(1, len(g - formulas)) for g in own]
    found = sum(not g.isdisjoint(seen) for g in own)
    highest = sorted((i for i, s in enumerate(shares) if s), key=lambda i: (-shares[i], i))
    return {
        "items": found,
        "share": found / len(tested),
        "specific": len(highest),
        "near": sum(share >= NEAR for share in shares),
        "formulas": len(formulas),
        "same_question": sum(tuple(tokens) in questions for tokens in asked),
        "examples": [
            {
                "id": tested[i]["id"],
                "train_id": trained[rows_with[i].most_common(1)[0][0]].id,
                "share": round(shares[i], 4),
            }
            for i in highest[:examples]
        ],
    }


def table(found: Mapping) -> str:
    """A report as lines of text: per pair the items with a shared n-gram, plain and masked."""
    head = ("training", "rows", "test", "items", "shared", "specific", "near", "same", "#shared",
            "#specific", "#near", "#same")  # fmt: skip
    lines = [head]
    for pair in found["pairs"]:
        counts = []
        for kind in ("as_it_is", "numbers_masked"):
            own = pair[kind]
            share = f"{own['items']} ({100 * own['share']:.1f} %)"
            counts += [share, *(str(own[name]) for name in ("specific", "near", "same_question"))]
        sizes = pair["train"], str(pair["train_rows"]), pair["test"], str(pair["test_items"])
        lines.append((*sizes, *counts))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(f"{cell:{'<' if k in (0, 2) else '>'}{widths[k]}}" for k, cell in enumerate(line))
        for line in lines
    ]
    note = (
        f"shared: test items with any {found['n']} words in a row that a training row has; "
        "specific: without the test's own formulas; near: at least half of an item's; "
        "same: the whole question; #: numbers masked"
    )
    return "\n".join([*(line.rstrip() for line in text), note])


def _asked(item: Mapping) -> str:
    """The content of a test item: without the form around it, or the request for a program."""
    return item.get("compare") or item.get("source_question") or item["question"]


def _grams(tokens: list[str], n: int) -> Iterator[Gram]:
    return zip(*(tokens[k:] for k in range(n)), strict=False)
