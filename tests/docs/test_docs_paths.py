"""Files that the pages name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
PATH = re.compile(r"`((?:folkmoot|tests|docs|examples|benchmarks|tools)/[\w./-]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page):
    text = page.read_text("utf-8")
    # Of a file yet to be written, `NAME.py`, the folder is there.
    named = [ROOT / re.sub(r"/[^/]*NAME.*", "", path) for path in PATH.findall(text)]

    missing = [path for path in named if not path.exists()]

    assert not missing
