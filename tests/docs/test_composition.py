"""The page of what composes is what the package answers."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_its_command_makes(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import composition

    assert composition.page() == (ROOT / "docs" / "composition.md").read_text("utf-8")
    sys.modules.pop("composition")
