"""The page's chapter on bytes and time runs in small, and counts what it says it counts."""

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


def cells(text, name):
    """The row of a table that begins with a name."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in row.split("|")[1:-1]]


@pytest.mark.slow
def test_digits_have_a_row_for_each_recipe_with_the_bits_of_its_width(results, tmp_path):
    communication = results.communication

    text = communication.section(communication.QUICK, tmp_path)

    # Beside the model only a few scales and losses travel.
    assert [float(cells(text, name)[1]) for name in ("uncompressed", "`bf16()`")] == [32, 16]
    assert (tmp_path / "results-bytes.png").stat().st_size > 10_000


def test_bytes_are_those_of_the_first_evaluation_that_has_the_target(results):
    communication = results.communication
    base = communication.Found([1, 2, 3], [0.9, 0.9, 0.9], [100, 200, 300], [9, 9, 9], 32, None)
    slow = base._replace(accuracy=[0.5, 0.88, 0.895], up=[10, 20, 30], down=[40, 50, 60])

    costs = communication._costs([slow], [base])

    # One point below 0.9 is 0.89, which the third evaluation is the first to have.
    assert (costs.up, costs.down, costs.rounds, costs.seeds) == (30, 60, 3, 1)
    assert costs.lost == pytest.approx([100 * ((0.5 + 0.88 + 0.895) / 3 - 0.9)])


def test_a_recipe_that_misses_the_target_with_one_seed_has_no_bytes(results):
    communication = results.communication
    base = communication.Found([1], [0.9], [100], [9], 32, None)

    costs = communication._costs([base, base._replace(accuracy=[0.8])], [base, base])

    assert (costs.up, costs.seeds) == (None, 1)


@pytest.mark.slow
def test_characters_have_a_row_for_each_recipe(results):
    communication = results.communication

    text = communication.characters(communication.QUICK)

    assert cells(text, "`eden(2)`")[1].startswith("2")


@pytest.mark.slow
def test_phones_have_a_row_for_each_way_and_two_pictures(results, tmp_path):
    fleets = results.fleets

    text = fleets.section(fleets.QUICK, tmp_path)

    assert all(float(cells(text, way.name)[2]) > 0 for way in fleets.WAYS)
    assert (tmp_path / "results-clock.png").stat().st_size > 10_000
    assert (tmp_path / "results-round.png").stat().st_size > 10_000
