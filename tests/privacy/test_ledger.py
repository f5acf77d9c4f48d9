"""The ledger: what was released is never forgotten, and what would overspend is never granted."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest

from folkmoot.core.errors import BudgetError, CheckpointError, RoundError, SettingsError
from folkmoot.privacy import ledger as module
from folkmoot.privacy.accountants import epsilon
from folkmoot.privacy.closed_form import gaussian_epsilon
from folkmoot.privacy.events import (
    FixedSizeGaussian,
    Gaussian,
    LocalGaussian,
    PoissonGaussian,
    Pure,
)
from folkmoot.privacy.ledger import Ledger

# T of them have the epsilon of one Gaussian(2 / sqrt(T)), in closed form.
EVENT, OTHER = Gaussian(2.0), Gaussian(3.0)
DELTA = 1e-5


def spent(*charges):
    return epsilon(charges, DELTA)


@pytest.fixture
def counted(monkeypatch):
    """How often epsilon is computed."""
    calls = []

    def counting(charges, delta):
        calls.append(list(charges))
        return epsilon(calls[-1], delta)

    monkeypatch.setattr(module, "epsilon_of", counting)
    return calls


# Counting


def test_charges_are_added_up_by_event():
    ledger = Ledger(delta=DELTA)
    for round in range(3):
        ledger.charge(EVENT, key=("run", round, 0))
    ledger.charge(OTHER, key=("run", 0, 1), times=5)

    assert ledger.charges == [(EVENT, 3), (OTHER, 5)]
    assert ledger.spent == spent((EVENT, 3), (OTHER, 5))
    assert ledger.epsilon(1e-3) < ledger.spent
    assert (ledger.remaining, ledger.adjacency) == (math.inf, "add-or-remove-one")


def test_an_empty_ledger_has_spent_nothing():
    ledger = Ledger(epsilon=1.0, delta=DELTA)

    assert (ledger.charges, ledger.spent, ledger.remaining) == ([], 0.0, 1.0)
    assert ledger.adjacency is None


def test_the_same_release_is_paid_for_once():
    ledger = Ledger(delta=DELTA)

    for _ in range(3):
        ledger.charge(EVENT, key=("run", 1, 0))

    assert ledger.charges == [(EVENT, 1)]


def test_a_release_that_changes_what_it_is_is_refused():
    ledger = Ledger(delta=DELTA)
    ledger.charge(EVENT, key=("run", 1, 0))

    with pytest.raises(SettingsError, match="one release is one event"):
        ledger.charge(OTHER, key=("run", 1, 0))
    with pytest.raises(SettingsError, match="one release is one event"):
        ledger.charge(EVENT, key=("run", 1, 0), times=2)
    assert ledger.charges == [(EVENT, 1)]


@pytest.mark.parametrize("times", [0, -1, 1.5, True])
def test_what_did_not_happen_a_whole_number_of_times_is_refused(times):
    with pytest.raises(SettingsError, match="times must be a whole number of at least 1"):
        Ledger(delta=DELTA).charge(EVENT, key=(1,), times=times)


def test_events_of_two_adjacencies_need_two_ledgers():
    ledger = Ledger(delta=DELTA)
    ledger.charge(EVENT, key=(1,))

    with pytest.raises(SettingsError, match=r"no common epsilon\. Keep a ledger for each"):
        ledger.charge(FixedSizeGaussian(1.0, 10, 100), key=(2,))
    with pytest.raises(SettingsError, match="no common epsilon"):
        ledger.reserve([(FixedSizeGaussian(1.0, 10, 100), 3)])
    assert ledger.charges == [(EVENT, 1)]


def test_a_release_without_noise_spends_everything():
    ledger = Ledger(epsilon=100.0, delta=DELTA)

    with pytest.raises(BudgetError, match="to inf at delta 1e-05"):
        ledger.charge(Gaussian(0.0), key=(1,))
    assert ledger.charges == []


# Refusing


def test_a_charge_that_would_overspend_is_refused_and_not_written(tmp_path):
    path = tmp_path / "ledger.jsonl"
    budget = spent((EVENT, 3)) * 1.0001
    with Ledger(path, epsilon=budget, delta=DELTA) as ledger:
        for round in range(3):
            ledger.charge(EVENT, key=(round,))
        before = path.read_bytes()

        with pytest.raises(BudgetError, match=r"epsilon of each client to .* Nothing was released"):
            ledger.charge(EVENT, key=(3,))

        assert path.read_bytes() == before
        assert 0 < ledger.remaining < 0.01
        ledger.charge(EVENT, key=(2,))  # What is paid for stays so.


def test_a_budget_error_ends_a_run_as_a_round_without_an_answer():
    assert issubclass(BudgetError, RoundError)
    assert BudgetError.exit_code == 4


def test_a_budget_may_be_spent_to_its_last_bit():
    ledger = Ledger(epsilon=spent((EVENT, 3)), delta=DELTA)

    ledger.charge(EVENT, key=(1,), times=3)

    assert ledger.remaining == 0


def test_a_reservation_that_does_not_fit_is_refused():
    ledger = Ledger(epsilon=spent((EVENT, 3)), delta=DELTA)
    ledger.charge(EVENT, key=(1,))

    with pytest.raises(BudgetError):
        ledger.reserve([(EVENT, 3)])
    ledger.reserve([(EVENT, 2)])
    assert ledger.charges == [(EVENT, 1)]


def test_charges_inside_a_reservation_compute_nothing(counted):
    ledger = Ledger(epsilon=spent((EVENT, 100)), delta=DELTA)

    ledger.reserve([(EVENT, 100)])
    for round in range(100):
        ledger.charge(EVENT, key=(round,))

    assert len(counted) == 1
    with pytest.raises(BudgetError):
        ledger.charge(EVENT, key=(100,))


def test_far_from_the_budget_the_quick_bound_is_enough(counted):
    ledger = Ledger(epsilon=100.0, delta=DELTA)

    ledger.charge(PoissonGaussian(1.0, 0.01), key=(1,))

    assert counted == []


def test_a_reservation_does_not_hide_charges_from_outside_of_it():
    ledger = Ledger(epsilon=spent((EVENT, 10)), delta=DELTA)
    ledger.reserve([(EVENT, 10)])

    ledger.charge(OTHER, key=("other",))  # Fits what is spent, but not beside all ten.
    for round in range(9):
        ledger.charge(EVENT, key=(round,))

    with pytest.raises(BudgetError):
        ledger.charge(EVENT, key=(9,))
    assert ledger.spent <= ledger.budget


def test_two_reservations_that_fit_together_are_both_kept(counted):
    ledger = Ledger(epsilon=spent((EVENT, 10), (OTHER, 10)), delta=DELTA)
    ledger.reserve([(EVENT, 10)])

    ledger.charge(OTHER, key=("other", 0), times=10)
    computed = len(counted)
    for round in range(10):
        ledger.charge(EVENT, key=(round,))

    assert len(counted) == computed


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0, "delta": DELTA}, "epsilon must be a finite number above 0"),
        ({"epsilon": -1, "delta": DELTA}, "epsilon must be"),
        ({"epsilon": 1.0}, "epsilon is 1 and delta missing"),
        ({"epsilon": 1.0, "delta": 1}, "delta must be at least 0 and below 1, but is 1"),
        ({"delta": math.nan}, "delta must be"),
        ({"delta": "1e-5"}, "delta must be at least 0 and below 1, but is '1e-5'"),
        ({"epsilon": True, "delta": DELTA}, "epsilon must be a finite number above 0, but is True"),
        ({"path": 5}, "path must be that of a file, but is 5"),
        ({"unit": "silo"}, 'unit must be "client" or "example"'),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        Ledger(**settings)


def test_pure_events_have_a_budget_at_delta_0():
    ledger = Ledger(epsilon=1.0, delta=0)

    ledger.charge(Pure(0.4), key=(1,), times=2)

    assert ledger.spent == pytest.approx(0.8)
    with pytest.raises(BudgetError, match=r"to 1\.2 at delta 0"):
        ledger.charge(Pure(0.4), key=(2,))
    with pytest.raises(SettingsError, match="delta must be above 0"):
        ledger.charge(EVENT, key=(3,))


def test_without_a_delta_epsilon_must_be_asked_for_at_one():
    ledger = Ledger()
    ledger.charge(EVENT, key=(1,))

    with pytest.raises(SettingsError, match="no delta of its own"):
        _ = ledger.spent
    assert ledger.epsilon(DELTA) == spent((EVENT, 1))


@pytest.mark.parametrize("charge", [("Gaussian", 1), (2.0, 1)], ids=str)
def test_what_is_no_event_is_not_charged(charge):
    ledger = Ledger(delta=DELTA)

    with pytest.raises(SettingsError, match=r"a list of \(event, times\)"):
        ledger.charge(charge[0], key=(1,))
    with pytest.raises(SettingsError, match=r"a list of \(event, times\)"):
        ledger.reserve([charge])
    assert ledger.charges == []


def test_noise_at_the_clients_is_kept_out_of_a_ledger_of_sums():
    ledger = Ledger(delta=DELTA)
    ledger.charge(EVENT, key=(1,))

    with pytest.raises(SettingsError, match="no common epsilon"):
        ledger.charge(LocalGaussian(4.0), key=(2,))


# What it says of itself


def test_a_ledger_prints_where_it_is_and_what_is_spent(tmp_path):
    path = tmp_path / "people.jsonl"
    with Ledger(path, unit="example", epsilon=9.0, delta=DELTA) as ledger:
        empty = repr(ledger)
        ledger.charge(EVENT, key=(1,), times=4)

        assert empty == (
            f"Ledger({str(path)!r}, each example, a budget of epsilon 9, 0 spent at delta 1e-05, "
            "nothing charged)"
        )
        # Four releases with a noise of 2 are one with a noise of 1.
        one = gaussian_epsilon(1.0, DELTA)
        assert f", {one:.4g} spent at delta 1e-05, add-or-remove-one)" in repr(ledger)


def test_a_ledger_prints_also_where_epsilon_is_not_known():
    without, pure = Ledger(), Ledger(delta=0)
    without.charge(EVENT, key=(1,))
    pure.charge(EVENT, key=(1,))

    assert repr(without) == (
        "Ledger(in memory, each client, no budget, spent at no delta of its own, add-or-remove-one)"
    )
    assert "spent at delta 0 is not known (delta must be above 0" in repr(pure)


# The file


def test_a_file_keeps_unit_budget_and_charges(tmp_path):
    path = tmp_path / "data" / "ledger.jsonl"
    with Ledger(path, unit="example", epsilon=50.0, delta=DELTA) as ledger:
        ledger.charge(EVENT, key=("a", 1), times=4)
        ledger.charge(OTHER, key=("a", 2))

    with Ledger(path, unit="example") as again:
        again.charge(EVENT, key=("a", 1), times=4)

        assert again.charges == [(EVENT, 4), (OTHER, 1)]
        assert (again.budget, again.delta, again.spent) == (50.0, DELTA, ledger.spent)
    rows = [json.loads(line)["record"] for line in path.read_text().splitlines()]
    assert rows[0] == {"ledger": 1, "unit": "example", "epsilon": 50.0, "delta": DELTA}
    assert rows[1] == {"key": ["a", 1], "times": 4, "event": "Gaussian", "noise_multiplier": 2.0}
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("later", "fits"),
    [
        ({"epsilon": 2.0, "delta": DELTA}, True),
        ({"epsilon": 1.0, "delta": DELTA}, True),
        ({"epsilon": 2.0, "delta": DELTA / 10}, True),
        ({"delta": DELTA / 10}, True),
        ({"epsilon": 2.1, "delta": DELTA}, False),
        ({"epsilon": 1.0, "delta": 10 * DELTA}, False),
        ({"delta": 10 * DELTA}, False),
    ],
)
def test_a_budget_may_become_stricter_and_never_looser(tmp_path, later, fits):
    path = tmp_path / "ledger.jsonl"
    Ledger(path, epsilon=2.0, delta=DELTA).close()

    if fits:
        with Ledger(path, **later) as ledger:
            assert (ledger.budget, ledger.delta) == (later.get("epsilon", 2.0), later["delta"])
    else:
        with pytest.raises(SettingsError, match="epsilon 2 at delta 1e-05, which cannot be raised"):
            Ledger(path, **later)
    Ledger(path).close()  # Either way the file is free again.


def test_a_file_of_another_unit_or_kind_is_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    Ledger(path).close()

    with pytest.raises(SettingsError, match=r'each client\. Open it with unit="client"'):
        Ledger(path, unit="example")
    path.write_text('{"name": "not a ledger"}\n')
    with pytest.raises(CheckpointError, match=r"Line 1 of .* is damaged"):
        Ledger(path)


def test_an_edited_charge_is_found(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, delta=DELTA) as ledger:
        ledger.charge(EVENT, key=(1,), times=7)
        ledger.charge(EVENT, key=(2,))
    path.write_text(path.read_text().replace('"times": 7', '"times": 1'))

    with pytest.raises(CheckpointError, match=r"Line 2 of .* was edited.*from a copy"):
        Ledger(path)


def test_a_ledger_is_open_once(tmp_path):
    path = tmp_path / "ledger.jsonl"
    opens = f"from folkmoot.privacy.ledger import Ledger; Ledger({str(path)!r})"

    with Ledger(path):
        other = subprocess.run([sys.executable, "-c", opens], capture_output=True, text=True)

    assert "is open elsewhere" in other.stderr and other.returncode == 1


def test_a_file_cut_at_any_byte_opens_with_its_whole_charges(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # Hundreds of them take seconds.
    whole, path = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    with Ledger(whole, epsilon=90.0, delta=DELTA) as ledger:
        ledger.charge(EVENT, key=(1,))
    data = whole.read_bytes()

    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        with Ledger(path, epsilon=90.0, delta=DELTA) as cut:
            charges = cut.charges
            cut.charge(OTHER, key=("after",))
        with Ledger(path) as again:
            assert again.charges == [*charges, (OTHER, 1)]
        assert sum(n for _, n in charges) == max(0, data[:length].count(b"\n") - 1)


CHARGING = """
import sys
from folkmoot.privacy.events import Gaussian
from folkmoot.privacy.ledger import Ledger

ledger = Ledger(sys.argv[1], delta=1e-5)
first = sum(times for _, times in ledger.charges)
for number in range(first, first + 1_000_000):
    ledger.charge(Gaussian(2.0), key=("run", number))
    sys.stdout.write(f"{number}\\n")  # The release: after its charge was granted.
    sys.stdout.flush()
"""


def test_what_was_granted_survives_a_kill_at_any_instant(tmp_path):
    path, log = tmp_path / "ledger.jsonl", tmp_path / "released"
    granted = 0

    for kill in range(4):
        with log.open("ab") as out:
            process = subprocess.Popen([sys.executable, "-c", CHARGING, path], stdout=out)
            before = time.monotonic()
            while log.stat().st_size == 0 or log.read_bytes().count(b"\n") < granted + 3 + kill:
                assert process.poll() is None and time.monotonic() < before + 60
            process.send_signal(signal.SIGKILL)
            process.wait()
        released = [int(line) for line in log.read_text().split("\n")[:-1]]
        with Ledger(path) as ledger:
            granted = sum(times for _, times in ledger.charges)

        # Each release was charged before; one charge more may not have come to its release.
        assert granted >= max(released) + 1
        assert granted - len(released) <= kill + 1
