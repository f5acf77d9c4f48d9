"""What an example promises to print last: the last line of its docstring, numbers or not."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
ARTICLE = sorted(EXAMPLES.glob("article/*.py"))
APPLICATIONS = sorted(EXAMPLES.glob("*/__main__.py"))
NUMBER = re.compile(r"(?<![\w-])\d+(?:\.\d+)?")


def text_of(path):
    return path.read_text("utf-8")


def promised(path):
    """The last line of an example's docstring: what it prints last."""
    return ast.get_docstring(ast.parse(text_of(path))).rstrip().splitlines()[-1].strip()


def run(program, folder, **environment):
    """Run a program as a user does; returns (exit code, lines of stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, program],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    return done.returncode, tidy(done.stdout), done.stderr


def name_of(path):
    """What an example is called: an application by its folder."""
    return path.parent.name if path.stem == "__main__" else path.stem


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
