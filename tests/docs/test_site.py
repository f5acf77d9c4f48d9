"""The site shows the repository's pages: links that hold there lead to pages of the site."""

import importlib.util
import re
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("site_pages", ROOT / "tools" / "site.py")
site = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(site)

PATHS = [
    ("docs/index.md", "index.md"),
    ("docs/howto/own-model.md", "howto/own-model.md"),
    ("README.md", "source/README.md"),
    ("examples/first_program.py", "source/examples/first_program.py.md"),
    ("examples", "source/examples/README.md"),
]


@pytest.mark.parametrize(("path", "page"), PATHS, ids=[path for path, _ in PATHS])
def test_every_file_of_the_repository_has_a_page(path, page):
    assert site.site_path(path) == page


def test_links_out_of_the_documentation_lead_to_the_source_of_the_site():
    text = "[one](../../examples/speakers.py), [two](../data.md#partitions), [three](https://a.b)"

    found = site.moved(text, "howto/own-data.md")

    assert found == (
        "[one](../source/examples/speakers.py.md), [two](../data.md#partitions), "
        "[three](https://a.b)"
    )


def test_links_of_what_lies_outside_lead_back_into_the_documentation():
    found = site.moved(
        "[all](docs/algorithms.md), [demo](docs/pictures/demo.png)", "source/README.md"
    )

    assert found == "[all](../algorithms.md), [demo](../pictures/demo.png)"


def test_the_reference_has_every_public_name_once():
    pages = site.reference()

    described = [home for text in pages.values() for home in re.findall(r"^::: (\S+)$", text, re.M)]
    groups = site.groups()
    rooms = groups.pop("Rooms")
    faces = {home for names in groups.values() for home in names.values()}
    assert len(described) == len(set(described))
    assert faces <= set(described)
    assert {f"reference/{room}.md" for room in rooms} <= set(pages)
    assert "folkmoot.algorithms.fedavg.fedavg" in described
    assert "folkmoot.train.run.run" in described


def test_pages_of_programs_and_notebooks_show_their_text():
    program = site.shown("examples/own_algorithm.py")
    notebook = site.shown("examples/first_steps.ipynb")

    assert program.startswith("# examples/own_algorithm.py\n\n````python\n")
    assert "def averaged(work, keep=0.9):" in program
    assert "```python\n" in notebook and "fm.run(" in notebook
