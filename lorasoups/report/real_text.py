"""Results of a real model as sentences, test by test, and their block in the README.

``python -m lorasoups.report.real_text`` writes what profile ``small`` has on hard math into ``README.md``.
"""

from lorasoups.errors import SoupError
from lorasoups.files import write_text_atomic
from lorasoups.paths import Folders
from lorasoups.report.tables import interval, markdown, tasks
from lorasoups.results import items, reading, stats
from lorasoups.results.file import load_results
from lorasoups.results.reading import Results, estimate, label, percent

BEGIN, END = "<!-- real results:", "<!-- end of real results -->"
SIGNIFICANT = 0.05


def tests(results: Results) -> list[str]:
    """The tests that need all skills: the target and what was asked of the main methods besides."""
    own = {reading.test_of(results, skill) for skill in reading.skills(results)}
    return [task for task, by in results["items"].items() if task not in own and "cat" in by]


def compared(results: Results, task: str) -> dict[str, tuple[stats.Paired, float]]:
    """CAT minus every other method on a test: the comparison, and its p after Holm's correction.

    Raises:
        SoupError: no verdicts of CAT on this test.
    """
    found = items.against_all(results, task)
    adjusted = stats.holm([pair.p for pair in found.values()])
    return {m: (pair, p) for (m, pair), p in zip(found.items(), adjusted, strict=True)}


def says(results: Results, task: str) -> str:
    """CAT on one test: how much it solves, what it is told apart from (after Holm's correction)."""
    own, known = estimate(results, "cat", task), compared(results, task)
    sure = {m: pair for m, (pair, p) in known.items() if p < SIGNIFICANT}
    above = [m for m, pair in sure.items() if pair.diff > 0]
    below = [m for m, pair in sure.items() if pair.diff < 0]
    rest = [m for m in known if m not in sure]
    kinds = (("above", above), ("below", below), ("not told apart from", rest))
    told = "; ".join(
        f"{kind} {', '.join(_against(m, known[m][0], results) for m in members)}"
        for kind, members in kinds
        if members
    )
    head = f"CAT solves {percent(own.mean)} % {interval(own.lo, own.hi)} of {own.n} problems"
    return f"**{task}**, {reading.seeds_text(results)}: {head}. In points it is {told}."


def gains(results: Results, task: str) -> str:
    """Super-linearity on one test: CAT's gain over the base against those of its two skills.

    Raises:
        SoupError: not two skills, or a method without verdicts.
    """
    skills = reading.skills(results)
    if len(skills) != 2:
        raise SoupError(f"{len(skills)} skills: super-linearity is asked of two; leave it out")
    tables = [items.matrix(results, task, name) for name in ("base", *skills, "cat")]
    found = stats.superlinearity(*tables)
    word = "more than" if found.lo > 0 else "less than" if found.hi < 0 else "not told apart from"
    return (
        f"On {task} CAT gains {100 * found.gain_soup:+.1f} points over the base, its skills alone "
        f"{100 * found.sum_of_gains:+.1f} together: {word} their sum "
        f"({100 * found.diff:+.1f} {interval(found.lo, found.hi, '+')})."
    )


def legible(results: Results) -> str:
    """On which tests the effect can be read: CAT above the base and above every single skill."""
    single = ("base", *reading.skills(results))
    yes, no = [], []
    for task in tests(results):
        known = compared(results, task)
        told = all(known[m][0].diff > 0 and known[m][1] < SIGNIFICANT for m in single)
        (yes if told else no).append(task)
    parts = [
        "The soup is above the base and every single skill on " + ", ".join(yes) if yes else "",
        ("not shown on " if yes else "That the soup is above its skills is not shown on ")
        + ", ".join(no)
        if no
        else "",
    ]
    return "; ".join(filter(None, parts)) + "."


def into_readme(text: str, results: Results) -> str:
    """The README's text with the block of a real model between its marks.

    Raises:
        SoupError: a mark is missing.
    """
    before, first, rest = text.partition(BEGIN)
    mark, _, rest = rest.partition("\n")
    _, last, after = rest.partition(END)
    if not first or not last:
        raise SoupError(f"no place for a real model: README.md; it needs {BEGIN} ... --> and {END}")
    sentences = [f"- {says(results, task)} {gains(results, task)}" for task in tests(results)]
    config = results["config"]
    note = (
        f"{config['base']}, {results['provenance']['device']}. {config['note'] or 'Whole profile'}."
    )
    block = (note, markdown(tasks(results)), "\n".join(sentences), legible(results))
    return f"{before}{BEGIN}{mark}\n" + "\n\n".join(block) + f"\n{END}{after}"


def _against(method: str, pair: stats.Paired, results: Results) -> str:
    return f"{label(method, results)} ({100 * pair.diff:+.1f})"


def main() -> None:
    """Write the block."""
    readme = Folders().project / "README.md"
    text = readme.read_text(encoding="utf-8")
    write_text_atomic(readme, into_readme(text, load_results("small")))


if __name__ == "__main__":
    main()
