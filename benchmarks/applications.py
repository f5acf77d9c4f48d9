"""Make docs/applications.md: four applications, federated beside local-only and pooled training.

    python benchmarks/applications.py            # the whole page, at most 30 minutes on 2 cores
    python benchmarks/applications.py voice      # one of them; the others stay as they are

Each application is a program of its own, `python examples/NAME`; with --docs it prints Markdown and
draws into docs/pictures. This page is what they print.
"""

import ast
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "applications.md"
NAMES = ("keyboard", "voice", "hospitals", "sensors")
HEAD = """# Applications

Four that every introduction names, on real data, each one command. Every table has training on
pooled data, which nobody could do, and each client alone, which everybody could, with 95 %
intervals over seeds, and what was spent in privacy and megabytes. `make applications` makes this
page; what did not work stands in the page of each.
"""


def section(name: str) -> str:
    """Run an application and return its part of the page."""
    folder = ROOT / "examples" / name
    begun = time.monotonic()
    printed = subprocess.run(
        [sys.executable, folder, "--docs"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    minutes = (time.monotonic() - begun) / 60
    print(f"{name}: {minutes:.1f} minutes", file=sys.stderr)
    pictures = "\n\n".join(
        f"![{path.stem}: each seed, the mean, its 95 % interval](pictures/{path.name})"
        for path in sorted((ROOT / "docs" / "pictures").glob(f"{name}*.png"))
    )
    docstring = ast.get_docstring(ast.parse((folder / "__main__.py").read_text("utf-8"))) or ""
    return "\n\n".join(
        (
            f"## {name.capitalize()}",
            docstring.splitlines()[0],
            f"`python examples/{name}`: [data card, and what did not work]"
            f"(../examples/{name}/README.md).",
            printed.strip(),
            pictures,
        )
    )


def with_sections(page: str, made: dict[str, str]) -> str:
    """Return the page with some sections made anew, in their order."""
    parts = [f"## {part}".strip() for part in page.split("\n## ")[1:]]
    old = {part.split()[1].lower(): part for part in parts}
    found = old | made
    return "\n\n".join([HEAD.strip(), *(found[name] for name in NAMES if name in found)]) + "\n"


def main(names: Sequence[str]) -> None:
    """Write the page."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        sys.exit(f"There is no application {unknown[0]!r}. There are {', '.join(NAMES)}.")
    for name in names or NAMES:
        made = section(name)
        # Each is written when it is there: they take minutes.
        page = PAGE.read_text("utf-8") if PAGE.exists() else ""
        PAGE.write_text(with_sections(page, {name: made}), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
