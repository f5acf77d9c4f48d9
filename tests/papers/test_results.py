"""The page of results: its sections run in small, and a chapter made anew leaves the others."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def results():
    """The script that makes the page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import results

        yield results


def test_personal_models_of_speakers_have_a_row_for_each_algorithm(results, tmp_path):
    personal = results.personal

    text = personal.section(personal.FSDD, personal.QUICK, tmp_path)

    assert all(f"| {entry.name} |" in text for entry in personal.ENTRIES)
    assert (tmp_path / "results-fsdd.png").stat().st_size > 10_000


@pytest.mark.slow
def test_personal_models_of_people_have_a_row_for_each_algorithm(results, tmp_path):
    personal = results.personal

    text = personal.section(personal.HAPT, personal.QUICK, tmp_path)

    assert all(f"| {entry.name} |" in text for entry in personal.ENTRIES)
    assert (tmp_path / "results-hapt.png").stat().st_size > 10_000


@pytest.mark.slow
def test_label_skew_has_a_row_for_each_algorithm(results, tmp_path):
    drift = results.drift

    text = drift.section(drift.QUICK, tmp_path)

    assert all(f"| {entry.name} |" in text for entry in drift.ENTRIES)
    assert (tmp_path / "results-drift.png").stat().st_size > 10_000


def test_a_chapter_made_anew_leaves_the_others_as_they_are(results):
    page = "# Results\n\nHead.\n\n## 1. One\n\nOld.\n\n## 2. Two\n\nOld too.\n"

    found = results.with_chapters(page, {"2": "## 2. Two\n\nNew.\n"})

    assert found == "## 1. One\n\nOld.\n\n## 2. Two\n\nNew."


def test_paragraphs_are_filled_and_tables_are_not(results):
    long = "word " * 30
    row = f"| {'cell ' * 30} |"

    found = results.wrapped(f"## Head\n\n{long}\n\n{row}\n")

    assert found.splitlines()[-1] == row
    assert max(len(line) for line in found.splitlines()[:-1]) <= 100


def test_a_chapter_that_is_not_there_is_refused_with_those_that_are(results):
    with pytest.raises(SystemExit, match=r"no chapter '7'. There are 1, 2"):
        results.main(["7"])
