"""`folkmoot audit`: the lower bound of an app's epsilon, beside the stated one."""

import json

import pytest
import torch

from folkmoot.codecs import noise
from folkmoot.privacy.accountants import gaussian_epsilon


@pytest.fixture
def private(toy):
    """Make the app of five clients a private one."""
    text = toy.read_text().replace("cohort=cohort,", "cohort=cohort, privacy=budget,")
    toy.write_text(text + "\n\nbudget = fm.DP(noise_multiplier=2.0, delta=1e-4)\n")
    return toy


def test_audit_prints_both_epsilons_and_keeps_nothing(folkmoot, private, here):
    ended = folkmoot("audit toy.py --canaries 20")

    assert ended.exit_code == 0, ended.stderr
    assert "Audit of fedavg: the promise is not refuted." in ended.stdout
    assert "epsilon, stated" in ended.stdout
    assert "epsilon, at least" in ended.stdout
    assert {path.name for path in here.iterdir()} == {"toy.py"}


def test_audit_writes_its_facts_for_machines(folkmoot, private):
    ended = folkmoot("audit toy.py --canaries 20 --rounds 1 --set cohort=none --json")

    [told] = [json.loads(line) for line in ended.stdout.splitlines()]
    assert told["event"] == "audit"
    assert (told["canaries"], told["rounds"], told["clients"]) == (20, 1, 5)
    # One round in which everyone takes part: the exact curve of normal noise.
    assert told["epsilon_stated"] == pytest.approx(gaussian_epsilon(1 / 2.0, 1e-4), rel=0.02)
    assert told["epsilon_lower"] <= told["epsilon_stated"]
    assert told["holds"] is True


def test_an_app_without_privacy_promises_nothing(folkmoot, toy):
    ended = folkmoot("audit toy.py --json --set cohort=none")

    [told] = [json.loads(line) for line in ended.stdout.splitlines()]
    assert told["epsilon_stated"] is None
    assert told["epsilon_lower"] > 1


def test_a_broken_promise_ends_with_code_2(folkmoot, private, monkeypatch):
    # Noise of twenty times the norm is stated, and none is drawn.
    private.write_text(private.read_text().replace("multiplier=2.0", "multiplier=20.0"))
    monkeypatch.setattr(noise, "integers", lambda size, *rest: torch.zeros(size, dtype=torch.int64))

    ended = folkmoot("audit toy.py --rounds 1 --set cohort=none")

    assert ended.exit_code == 2
    assert "the promise is broken" in ended.stdout


def test_an_app_that_runs_nothing_cannot_be_audited(folkmoot, here):
    (here / "app.py").write_text("def app(): return 1")

    ended = folkmoot("audit app.py")

    assert ended.exit_code == 3
    assert "came to its end without calling fm.run(...)" in ended.stderr


def test_too_many_canaries_are_refused_with_the_room_that_there_is(folkmoot, private):
    ended = folkmoot("audit toy.py --canaries 28")

    # The model has 8 * 3 + 3 numbers.
    assert ended.exit_code == 2
    assert "a whole number from 2 to 27, but is 28" in ended.stderr
