"""The page's chapter on privacy runs in small, with a row for each thing that it compares."""

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


def test_the_audit_stays_below_what_is_stated(results):
    audit = results.privacy_audit

    text = audit.section(audit.QUICK)

    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| epsilon ")]
    assert rows
    assert all(float(row[2]) <= float(row[1]) for row in rows)


@pytest.mark.slow
def test_whole_people_have_a_row_for_each_clip_and_budget(results, tmp_path):
    from chapters import privacy

    text = results.privacy_clients.section(privacy.QUICK, tmp_path)

    assert all(f"| {way.name} |" in text for way in results.privacy_clients.WAYS)
    assert all(f"| {federation} | 8 |" in text for federation in privacy.FEDERATIONS)
    assert (tmp_path / "results-privacy-epsilon.png").stat().st_size > 10_000


@pytest.mark.slow
def test_single_examples_have_a_row_for_each_budget(results):
    examples = results.privacy_examples

    text = examples.section(examples.DIGITS, "3.4", examples.QUICK)

    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    spent = [float(row[0].strip("| ")) for row in rows if row[0].strip("| ")[0].isdigit()]
    assert spent == pytest.approx(examples.DIGITS.epsilons, rel=0.01)
