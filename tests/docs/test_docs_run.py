"""What is written for readers is true: blocks run, outputs are those printed, links lead somewhere.

All python blocks of a page run in one namespace, in order; `no-run` after "python" leaves one out.
A comment `# -> text` in a page is a line that its blocks print, in order. Runs are cut to two
rounds, so that the first program can stand in the README as a user would write it.
"""

import re
from pathlib import Path

import pytest

import folkmoot as fm

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OUTPUT = re.compile(r"# -> (.*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
# Tables that a program writes, as long as they are.
WRITTEN = {DOCS / name for name in ("applications.md", "composition.md", "results.md")}
MOST_ROUNDS = 2


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page):
    """Every block of a page that runs: (lines above it, code)."""
    text = page.read_text("utf-8")
    for found in BLOCK.finditer(text):
        if "no-run" not in found[1]:
            yield text.count("\n", 0, found.start(2)), found[2]


# PEFT still calls what transformers has deprecated.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page))], ids=name_of)
def test_the_blocks_of_a_page_run_and_print_what_it_says(page, monkeypatch, tmp_path, capsys):
    run = fm.run

    def short(*given, rounds, **more):
        return run(*given, rounds=min(rounds, MOST_ROUNDS), **more)

    monkeypatch.setattr(fm, "run", short)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}

    for above, code in blocks(page):
        # Empty lines above, so that a traceback names the line of the page.
        exec(compile("\n" * above + code, name_of(page), "exec"), names)

    printed = iter(capsys.readouterr().out.splitlines())
    promised = [line for _, code in blocks(page) for line in OUTPUT.findall(code)]
    missing = [line for line in promised if line not in printed]
    assert not missing, f"{name_of(page)} promises {missing[0]!r}, which its blocks do not print."


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    targets = [page.parent / target for target in LINK.findall(page.read_text("utf-8"))]

    assert [str(target) for target in targets if not target.exists()] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if DOCS in page.parents and page not in WRITTEN], ids=name_of
)
def test_pages_fit_on_a_screen(page):
    most = 40 if page.parent.name == "sharp_edges" else 60

    assert len(page.read_text("utf-8").splitlines()) <= most


def test_the_readme_shows_the_first_program_as_it_is():
    _, first = next(blocks(ROOT / "README.md"))
    program = (ROOT / "examples" / "first_program.py").read_text("utf-8")

    assert program.partition("# fmt: off\n\n")[2] == first
    assert len([line for line in first.splitlines() if line.strip()]) <= 20


def test_each_of_the_four_promises_takes_one_line_more():
    _, (_, code), *_ = blocks(ROOT / "README.md")
    _, *lines = [line for line in code.splitlines() if line]

    assert [re.search(r"\*\*plan, (\w+)=", line)[1] for line in lines] == [
        "privacy",
        "secure",
        "personal",
        "compress",
    ]
