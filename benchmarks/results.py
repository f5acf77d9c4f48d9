"""Make docs/results.md: published figures beside ours, and algorithms beside each other.

    python benchmarks/results.py             # the whole page, about 40 minutes on 2 cores
    python benchmarks/results.py 2           # chapter 2 alone; the others stay as they are
    python benchmarks/results.py --print     # shows what it has made instead of writing it

A chapter is a function that runs its experiments and returns its page. Every figure comes out of
seeds that nobody has chosen: the first ones, or those of the publication.
"""

import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from chapters import (
    communication,
    drift,
    fleets,
    heart_disease,
    personal,
    privacy_audit,
    privacy_clients,
    privacy_examples,
    secure,
    tcga_brca,
)

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
HEAD = """# Results

Published figures beside ours, by the protocol of the publication, algorithms beside each other, and
what privacy costs. `make results` makes this page: every number below comes out of
`python benchmarks/results.py`. Where an algorithm loses, it says so.
"""


def algorithms() -> str:
    """Return chapter 2."""
    sections = (drift.section, tcga_brca.section, personal.hapt, personal.fsdd)
    return "\n".join(["## 2. Algorithms\n", *map(_timed, sections)])


def privacy() -> str:
    """Return chapter 3."""
    sections = (
        privacy_clients.section,
        privacy_examples.hospitals,
        privacy_examples.holders,
        privacy_audit.section,
    )
    head = """## 3. Differential privacy

What a budget costs in accuracy, on shipped data. Noise is solved by `fm.privacy`; runs are seeded
by `simulation=True`, so that this page comes out again, and protect nobody. The figures of Flower
and Opacus at the same budgets are in [benchmarks/README.md](../benchmarks/README.md).
"""
    return "\n".join([head, *map(_timed, sections)])


def costs() -> str:
    """Return chapter 5."""
    head = """## 5. Communication and time

Bytes and virtual seconds to an accuracy. Nothing of a recipe is tuned: all rates are those of the
uncompressed, synchronous run.
"""
    sections = (communication.section, communication.characters, fleets.section)
    return "\n".join([head, *map(_timed, sections)])


CHAPTERS: dict[str, Callable[[], str]] = {
    "1": heart_disease.chapter,
    "2": algorithms,
    "3": privacy,
    "4": secure.section,
    "5": costs,
}


def _timed(make: Callable[[], str]) -> str:
    begun = time.monotonic()
    text = make()
    title = text.splitlines()[0].lstrip("# ")
    print(f"{title}: {(time.monotonic() - begun) / 60:.1f} minutes", file=sys.stderr)
    return text


def wrapped(text: str) -> str:
    """Fill paragraphs to lines of 100; headings, tables and pictures stay as they are."""
    blocks = text.strip().split("\n\n")
    return "\n\n".join(
        block
        if block.startswith(("#", "|", "!["))
        else textwrap.fill(
            " ".join(block.split()), 100, break_on_hyphens=False, break_long_words=False
        )
        for block in blocks
    )


def with_chapters(page: str, made: dict[str, str]) -> str:
    """Return the page with some chapters made anew, in their order."""
    old = {part[:1]: f"## {part}" for part in page.split("\n## ")[1:]}
    return "\n\n".join(wrapped(part) for _, part in sorted((old | made).items()))


def main(arguments: Sequence[str]) -> None:
    """Write the page, or show it."""
    numbers = [argument for argument in arguments if argument != "--print"]
    unknown = [number for number in numbers if number not in CHAPTERS]
    if unknown:
        sys.exit(f"There is no chapter {unknown[0]!r}. There are {', '.join(CHAPTERS)}.")
    for number in numbers or CHAPTERS:
        made = _timed(CHAPTERS[number])
        if "--print" in arguments:
            print(wrapped(made), end="\n\n")
            continue
        # Each chapter is written when it is there: they take minutes.
        page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        text = f"{wrapped(HEAD)}\n\n{with_chapters(page, {number: made})}\n"
        PAGE.write_text(text, encoding="utf-8")
        print(f"Wrote chapter {number} of {PAGE}.")


if __name__ == "__main__":
    main(sys.argv[1:])
