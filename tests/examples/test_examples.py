"""Examples run, end as their docstrings promise, and are short.

An example's docstring ends with the line that it prints last; numbers may differ where the example
is cut short. As they stand they run by night, and then the numbers must be those promised, too.
"""

import re

import pytest
from promises import (
    APPLICATIONS,
    ARTICLE,
    EXAMPLES,
    NUMBER,
    PROGRAMS,
    form,
    name_of,
    promised,
    run,
    text_of,
    told,
)


def quick(path, folder):
    """The example itself; the first program, which knows of no quick form, with fewer rounds."""
    if path.stem != "first_program":
        return path
    copy = folder / path.name
    copy.write_text(text_of(path).replace("rounds=200", "rounds=2"), "utf-8")
    return copy


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_an_example_ends_as_it_promises(path, tmp_path):
    code, lines, errors = run(quick(path, tmp_path), tmp_path, FOLKMOOT_QUICK="1")

    assert code == 0, errors
    assert form(told(path, lines)) == form(promised(path))


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", [*PROGRAMS, *ARTICLE, *APPLICATIONS], ids=name_of)
def test_an_example_prints_the_numbers_that_it_promises(path, tmp_path):
    code, lines, errors = run(path, tmp_path)

    assert code == 0, errors
    line = told(path, lines)
    assert form(line) == form(promised(path))
    found, numbers = (list(map(float, NUMBER.findall(text))) for text in (line, promised(path)))
    assert found == pytest.approx(numbers, rel=0.05, abs=0.02)


@pytest.mark.parametrize("path", [*PROGRAMS, *ARTICLE], ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_to_run_it(path):
    lines = text_of(path).splitlines()

    assert len(lines) <= 60
    assert f"    python examples/{path.relative_to(EXAMPLES).as_posix()}" in lines


@pytest.mark.parametrize("path", APPLICATIONS, ids=name_of)
def test_an_application_is_told_briefly_in_files_of_one_topic(path):
    lengths = {one.name: len(text_of(one).splitlines()) for one in path.parent.glob("*.*")}

    assert lengths.pop("README.md") <= 50
    assert max(lengths.values()) <= 110


def test_digits_with_a_module_of_ones_own_take_fifteen_lines():
    body = text_of(EXAMPLES / "digits_own_module.py").split('"""', 2)[2]

    assert len([line for line in body.splitlines() if line.strip()]) <= 15


def test_the_list_of_examples_is_complete():
    listed = set(re.findall(r"\]\(([\w.]+)\)", text_of(EXAMPLES / "README.md")))

    assert listed == {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
