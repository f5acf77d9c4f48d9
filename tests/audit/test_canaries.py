"""An audit bounds what a run gives away, and no promise that is kept is refuted."""

import dataclasses
import functools
import math

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot import codecs
from folkmoot.audit.seating import Lot, free_ids, lot_of
from folkmoot.codecs import noise
from folkmoot.core.aggregator import EACH
from folkmoot.core.errors import SettingsError
from folkmoot.privacy.dp import DP, Banded, Tree

BUDGET = DP(noise_multiplier=3.0, delta=1e-4, clip=0.5, simulation=True)
ROUNDS, CANARIES = 3, 200


@pytest.fixture(scope="module")
def clients():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 30, generator=draw)
    y = (x[:, 0] > 0).long()
    return {
        client: (x[at : at + 12], y[at : at + 12]) for client, at in enumerate(range(0, 60, 12))
    }


@pytest.fixture(scope="module")
def work():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    return fm.local.sgd(fm.classifier(model), lr=0.1, batch_size=6)


def silence(monkeypatch):
    """State noise, and draw none."""
    monkeypatch.setattr(noise, "integers", lambda size, *rest: torch.zeros(size, dtype=torch.int64))


# Promises that are kept


ALGORITHMS = {
    "fedavg": fm.fedavg,
    "fedadam": lambda work: fm.fedadam(work, lr=0.01),
    "fednova": fm.fednova,
    "mime": fm.mime,
    "scaffold": fm.scaffold,
}


@pytest.mark.parametrize("build", ALGORITHMS.values(), ids=ALGORITHMS)
def test_a_private_run_is_not_refuted(build, clients, work):
    found = fm.audit.assert_private(
        build(work), clients, rounds=ROUNDS, privacy=BUDGET, canaries=CANARIES
    )

    assert found.epsilon_lower <= found.epsilon_stated < math.inf
    assert found.correct <= found.guesses <= CANARIES


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, {"cohort": 60}),
        ({}, {"sampling": fm.sampling.uniform(60)}),
        ({}, {"sampling": fm.sampling.poisson(60, at_most=70)}),
        ({}, {"personal": "3.*"}),
        ({"trust": "local"}, {}),
        ({"mechanism": Tree(restart=2)}, {}),
        ({"mechanism": Banded(bands=2)}, {}),
        ({"clip": codecs.adaptive_clip(0.2)}, {}),
        ({"clip": codecs.clip_by_layer(0.5)}, {}),
    ],
    ids=lambda part: "-".join(part) or "central",
)
def test_no_form_of_privacy_is_refuted(options, more, clients, work):
    budget = dataclasses.replace(BUDGET, **options)

    found = fm.audit.audit(
        fm.fedavg(work), clients, rounds=ROUNDS, privacy=budget, canaries=CANARIES, **more
    )

    assert found.holds, found


# Promises that are broken, and none


@pytest.mark.parametrize("mechanism", [None, Tree(restart=2), Banded(bands=2)])
def test_missing_noise_is_caught(mechanism, clients, work, monkeypatch):
    silence(monkeypatch)
    monkeypatch.setattr(codecs.correlated, "integers", noise.integers)
    budget = dataclasses.replace(BUDGET, noise_multiplier=10.0, mechanism=mechanism)

    with pytest.raises(AssertionError, match="the promise is broken"):
        fm.audit.assert_private(
            fm.fedavg(work), clients, rounds=2, privacy=budget, canaries=CANARIES
        )


def test_a_run_without_privacy_gives_itself_away(clients, work):
    found = fm.audit.audit(fm.fedavg(work), clients, rounds=1, canaries=CANARIES)

    assert found.epsilon_stated == math.inf
    assert found.epsilon_lower > 2.0
    assert "no privacy is promised" in str(found)


def mean_of_each():
    """A mean by a server that sees each update."""

    def decode(state, updates, key):
        total = functools.reduce(fm.tree.add, (update.value for update in updates))
        return fm.tree.scale(1 / len(updates), total), updates[0].counts, state

    return fm.aggregators.uniform_mean()._replace(name="each", decode=decode, sees=EACH)


def test_a_rule_that_looks_at_each_update_is_audited_as_well(clients, work):
    algorithm = fm.fedavg(work, aggregator=mean_of_each())

    found = fm.audit.audit(algorithm, clients, rounds=1, canaries=CANARIES)

    assert found.epsilon_lower > 2.0


# What is stated


def test_the_stated_epsilon_is_that_of_the_federation_with_its_canaries(clients, work):
    budget = dataclasses.replace(BUDGET, noise_multiplier=1.0)

    found = fm.audit.audit(
        fm.fedavg(work), clients, rounds=2, cohort=41, privacy=budget, canaries=CANARIES
    )

    event = fm.privacy.events.PoissonGaussian(1.0, 41 / 205)
    assert found.epsilon_stated == pytest.approx(
        fm.privacy.accountants.epsilon([(event, 2)], 1e-4), rel=1e-6
    )
    assert (found.clients, found.canaries, found.rounds, found.delta) == (5, 200, 2, 1e-4)


def test_the_same_seed_finds_the_same_with_any_number_of_workers(clients, work):
    def audited(seed, engine):
        return fm.audit.audit(
            fm.fedavg(work),
            clients,
            rounds=2,
            privacy=BUDGET,
            canaries=CANARIES,
            seed=seed,
            engine=engine,
        )

    one = audited(0, None)
    assert audited(0, fm.engines.parallel(2)) == one
    assert audited(1, None).correct != one.correct


def test_no_data_sets_ledger_is_charged(clients, work):
    ledger = fm.privacy.Ledger()
    budget = dataclasses.replace(BUDGET, simulation=False, ledger=ledger)

    fm.audit.audit(fm.fedavg(work), clients, rounds=1, privacy=budget, canaries=CANARIES)

    assert not list(ledger.charges)


def test_a_report_says_what_was_shown_beside_what_was_promised(clients, work):
    found = fm.audit.audit(fm.fedavg(work), clients, rounds=1, privacy=BUDGET, canaries=CANARIES)

    lines = [" ".join(line.split()) for line in str(found).splitlines()]
    assert lines[0] == "Audit of fedavg: the promise is not refuted."
    assert f"epsilon, stated {found.epsilon_stated:.3g} at delta 0.0001" in lines
    assert f"epsilon, at least {found.epsilon_lower:.3g} at 95% confidence" in lines
    assert f"guesses {found.correct} of {found.guesses} correct" in lines
    assert "canaries 200 clients, each in by a fair coin" in lines
    assert "run 1 round, 5 other clients" in lines
    assert found.facts()["holds"] is True


# Who may be where


def test_what_is_known_of_the_lot_follows_from_what_is_claimed_of_it():
    poisson, uniform = fm.sampling.poisson, fm.sampling.uniform

    def lot(options, sampling, cohort=None):
        return lot_of(dataclasses.replace(BUDGET, **options), sampling, cohort, 100)

    assert lot({}, None, 10) == Lot(0.1, False)
    assert lot({}, poisson(10, at_most=20)) == Lot(0.1, False, others_known=False)
    # Neighbours then differ in what one client says, so canaries that are out say the opposite.
    assert lot({}, uniform(10)) == Lot(0.1, True, others_known=False)
    assert lot({"trust": "local"}, None, 10) == Lot(None, True)
    assert lot({"mechanism": Tree(restart=2)}, None, 10) == Lot(None, False)
    assert lot({}, None) == Lot(None, False)
    assert lot_of(None, None, 10, 100) == Lot(None, False)


def test_canaries_stand_behind_all_clients():
    named = fm.data.as_clients({"b": clients_of_one(), "~z": clients_of_one()})
    numbered = fm.data.as_clients([clients_of_one()] * 3)

    assert free_ids(numbered, 2) == (3, 4)
    assert sorted([*named.ids, *free_ids(named, 2)])[:2] == ["b", "~z"]


def clients_of_one():
    return torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)


def test_named_clients_are_audited(clients, work):
    named = {f"site {client}": data for client, data in clients.items()}

    found = fm.audit.audit(fm.fedavg(work), named, rounds=1, privacy=BUDGET, canaries=50)

    assert found.holds


# What is refused


@pytest.mark.parametrize(
    ("canaries", "delta", "said"),
    [
        # 30 * 8 + 8, the norm's 2 * 8 and statistics of as many, and 8 * 2 + 2.
        (299, 1e-4, "from 2 to 298, but is 299"),
        (1, 1e-4, "from 2 to 298, but is 1"),
        (100, 1e-2, "which leaves room for 94"),
    ],
)
def test_more_canaries_than_there_is_room_for_are_refused(canaries, delta, said, clients, work):
    budget = dataclasses.replace(BUDGET, delta=delta)

    with pytest.raises(SettingsError, match=said):
        fm.audit.audit(fm.fedavg(work), clients, rounds=1, privacy=budget, canaries=canaries)


def test_a_promise_of_a_larger_federation_is_refused(clients, work):
    budget = dataclasses.replace(BUDGET, population=10_000, cohort=100)

    with pytest.raises(SettingsError, match="a larger federation, of 10000 clients"):
        fm.audit.audit(fm.fedavg(work), clients, rounds=1, privacy=budget)
