"""What an example promises to print last: the last line of its docstring, numbers or not."""

import ast
import re
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
ARTICLE = sorted(EXAMPLES.glob("article/*.py"))
NUMBER = re.compile(r"(?<![\w-])\d+(?:\.\d+)?")


def text_of(path):
    return path.read_text("utf-8")


def promised(path):
    """The last line of an example's docstring: what it prints last."""
    return ast.get_docstring(ast.parse(text_of(path))).rstrip().splitlines()[-1].strip()


def tidy(printed):
    """The lines of what was printed, with single blanks."""
    return [" ".join(line.split()) for line in printed.rstrip().splitlines()]


def form(line):
    """A line with a gap for each number."""
    return NUMBER.sub("0", line)


def told(path, lines):
    """Of what an example printed, the line that its docstring promises: the last one.

    The first program prints a table, which goes on below that line.
    """
    if path.stem == "first_program":
        lines = [line for line in lines if form(line) == form(promised(path))]
    return lines[-1] if lines else ""
