"""Buffered runs against an event simulation of their own, and what they refuse."""

import heapq
import itertools

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.engine import Cohort
from folkmoot.core.errors import ClientError, SettingsError
from folkmoot.train.checkpoint import load_checkpoint
from folkmoot.train.gathering import Part
from folkmoot.train.link import Link

FLEET = {0: 1.0, 1: 0.7, 2: 0.31, 3: 0.23}
"""Examples a second: times of which no two sums are equal in the rounds that are looked at."""
GOALS = [-1.0, 2.0, 5.0, -4.0]


class Point(nn.Module):
    def __init__(self, w=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([w], dtype=torch.float64))

    def forward(self, x):
        return x * self.w


def work_of(lr=0.1, steps=1, **more):
    """Local steps towards each client's goal: the gradient is w - goal."""
    pulled = fm.objective(Point(), lambda out, goal: (out - goal).square().sum(1) / 2)
    return fm.local.sgd(pulled, lr=lr, steps=steps, epochs=None, batch_size=None, **more)


def clients_of(goals=GOALS, rows=1):
    one = torch.ones(rows, 1, dtype=torch.float64)
    return [{"x": one, "y": one * goal} for goal in goals]


def fleet_of(speeds=FLEET, **more):
    return fm.Fleet(devices={c: fm.Device(examples_per_s=s, **more) for c, s in speeds.items()})


def run(algorithm=None, clients=None, **options):
    given = {
        "rounds": 12,
        "cohort": 4,
        "buffer": 2,
        "fleet": fleet_of(),
        "workers": 1,
        "monitor": False,
        "progress": False,
    } | options
    built = algorithm or fm.fedavg(work_of(), aggregator=fm.aggregators.uniform_mean())
    return fm.run(built, clients or clients_of(), **given)


def fedbuff(rounds, buffer, weight, *, speeds=FLEET, lr=0.1, server_lr=1.0, at_most=100):
    """FedBuff's algorithm 1 with all clients at work, by events: one step each towards its goal.

    Who has answered into a buffer is asked again once that is full.
    """
    x, version, order = 0.0, 0, itertools.count()
    work, waiting, rows = [], [], []
    for client in speeds:
        heapq.heappush(work, (1 / speeds[client], next(order), client, 0, x))
    while version < rounds:
        total, stales = 0.0, []
        while len(stales) < buffer:
            now, _, client, base, got = heapq.heappop(work)
            stale = version - base
            if stale > at_most:
                heapq.heappush(work, (now + 1 / speeds[client], next(order), client, version, x))
                continue
            stales.append(stale)
            waiting.append(client)
            total += weight(stale) * -lr * (got - GOALS[client])
        x, version = x + server_lr * total / buffer, version + 1
        rows.append((now, sorted(stales), x))
        for client in waiting:
            heapq.heappush(work, (now + 1 / speeds[client], next(order), client, version, x))
        waiting = []
    return rows


@pytest.mark.parametrize("buffer", [1, 2, 3])
@pytest.mark.parametrize(
    ("rule", "weight"),
    [
        (None, lambda s: (1 + s) ** -0.5),
        (fm.staleness.polynomial(0), lambda s: 1.0),
        (lambda s: 1 / (1 + 2 * s), lambda s: 1 / (1 + 2 * s)),
        (fm.staleness.hinge(2.0, 1), lambda s: 1.0 if s <= 1 else 1 / (2 * (s - 1) + 1)),
    ],
    ids=["default", "all alike", "a function", "hinge"],
)
def test_a_run_is_fedbuff_event_for_event(buffer, rule, weight):
    result = run(buffer=buffer, staleness=rule)

    wanted = fedbuff(12, buffer, weight)
    found = [
        (row["virtual_s"], [s for s, times in row["staleness"] for _ in range(times)])
        for row in result.history
    ]
    assert [time for time, _ in found] == pytest.approx([time for time, _, _ in wanted], rel=1e-12)
    assert [stale for _, stale in found] == [stale for _, stale, _ in wanted]
    assert result.model.w.item() == pytest.approx(wanted[-1][2], rel=1e-12)


def test_staleness_beyond_the_bound_is_left_out_by_name():
    speeds = {0: 1.0, 1: 0.7, 2: 0.031, 3: 0.23}
    rule = fm.staleness.polynomial(0.5, at_most=5)

    result = run(fleet=fleet_of(speeds), staleness=rule, rounds=40)

    wanted = fedbuff(40, 2, rule.weight, speeds=speeds, at_most=5)
    assert {left.client for left in result.left_out} == {2}
    assert all("rounds old, and at most 5 count" in left.reason for left in result.left_out)
    assert result.model.w.item() == pytest.approx(wanted[-1][2], rel=1e-12)


def test_a_weighted_mean_divides_by_examples_as_if_all_counted_whole():
    # 1, 2, 3 and 4 examples, by devices as much faster: the same events.
    clients = [part for n, part in zip(range(1, 5), clients_of(), strict=True)]
    for n, part in enumerate(clients, 1):
        part.update({name: leaf.repeat(n, 1) for name, leaf in part.items()})
    speeds = {client: speed * (client + 1) for client, speed in FLEET.items()}

    result = run(fm.fedavg(work_of()), clients, fleet=fleet_of(speeds), rounds=3, buffer=2)

    # 1 / 0.7 s is the second answer: clients 0 and 1, both fresh, of 1 and 2 examples. Then 0 again
    # after 2.43 s, and 1 after 2.86 s; then 2 after 3.23 s, of the first model, and 0 after 3.86 s.
    x = 0.1 * (1 * -1 + 2 * 2) / 3
    x += 0.1 * (1 * (-1 - x) + 2 * (2 - x)) / 3
    x += 0.1 * (3**-0.5 * 3 * (5 - 0) + 1 * (-1 - x)) / 4
    assert [row["staleness"] for row in result.history] == [[[0, 2]], [[0, 2]], [[0, 1], [2, 1]]]
    assert result.model.w.item() == pytest.approx(x, rel=1e-12)


def test_a_device_that_is_lost_and_asked_again_in_one_round_counts_once():
    result = run(fleet=fleet_of(dropout=0.5), cohort=2, buffer=3, rounds=30)

    assert [row["answered"] for row in result.history] == [3] * 30
    twice = [
        row
        for row in result.history
        if len(row["left_out"]) > len({client for client, _ in row["left_out"]})
    ]
    assert twice and all("dropped out at" in left.reason for left in result.left_out)
    asked = sum(asked for asked, _ in result.participation.values())
    assert asked == sum(row["asked"] for row in result.history)
    assert sum(heard for _, heard in result.participation.values()) == 90


def test_only_models_that_can_still_count_are_kept(tmp_path):
    # Devices 2 and 3 stay at work with the first model, which is soon too old.
    speeds = {0: 1.0, 1: 0.7, 2: 1e-4, 3: 1e-4}
    rule = fm.staleness.polynomial(at_most=3)

    run(fleet=fleet_of(speeds), staleness=rule, rounds=30, buffer=1, checkpoint=tmp_path)

    kept = load_checkpoint(tmp_path / "checkpoints").snapshot.bases
    # The broadcast of round 30, of a model that had seen 29, and those that may still count.
    assert "29" in kept and min(map(int, kept)) >= 30 - 3


def test_scaffold_finds_the_optimum_although_fast_clients_answer_more_often():
    """Controls of clients, and their mean at the server, must stay what they are of each other."""
    even = fm.staleness.polynomial(0)
    work = work_of(steps=5)

    plain = run(fm.fedavg(work), rounds=400, cohort=3, staleness=even)
    controlled = run(fm.scaffold(work), rounds=400, cohort=3, staleness=even)

    optimum = sum(GOALS) / len(GOALS)
    assert controlled.model.w.item() == pytest.approx(optimum, abs=1e-6)
    assert abs(plain.model.w.item() - optimum) > 0.05


@pytest.mark.parametrize(
    "build",
    [
        fm.scaffold,
        lambda work: fm.feddyn(work, alpha=0.1),
        lambda work: fm.ef21(work, fm.codecs.top_k(0.5)),
    ],
    ids=["scaffold", "feddyn", "ef21"],
)
def test_what_server_and_clients_both_remember_is_not_discounted(build):
    with pytest.raises(SettingsError, match=r"missing for good\. Let all count whole: staleness="):
        run(build(work_of()))


@pytest.mark.parametrize(
    "algorithm",
    [
        fm.ditto(work_of(), lam=0.1),
        fm.fedavg(
            fm.local.feedback(work_of(), fm.codecs.quantize(8)), server=fm.optimizers.adam(0.1)
        ),
        fm.fednova(work_of()),
    ],
    ids=["a model of their own", "a residual", "no memory"],
)
def test_what_clients_remember_for_themselves_may_be_discounted(algorithm):
    assert run(algorithm, rounds=3).rounds == 3


REFUSED = {
    "several exchanges": ({"algorithm": fm.mime(work_of())}, r"mime\(\) asks 2 times a round"),
    "a secure sum": ({"secure": True}, "A secure sum fixes its cohort"),
    "a sampling": ({"sampling": fm.sampling.uniform(2), "cohort": None}, "Leave sampling= out"),
    "no cohort": ({"cohort": None}, "pass cohort=, such as 20"),
    "over_select": ({"over_select": 1.5}, "Leave over_select= or buffer= out"),
    "quorum": ({"quorum": 2}, "Leave quorum= or buffer= out"),
    "partial": ({"partial": True, "deadline_s": 5.0}, "Leave partial= or buffer= out"),
    "more than there are": ({"buffer": 5}, "only 4 devices can train it"),
    "more at once than there are": ({"cohort": 5}, "at most 4"),
    "a rotation that all share": (
        {
            "algorithm": fm.fedavg(
                work_of(), aggregator=fm.aggregators.uniform_mean(fm.codecs.rotate())
            )
        },
        r"A stage of uniform_mean\(\) changes from round to round",
    ),
    "a clip that adapts": (
        {
            "algorithm": fm.fedavg(
                work_of(), aggregator=fm.aggregators.uniform_mean(fm.codecs.adaptive_clip())
            )
        },
        r"Use a stage that stays, such as fm\.codecs\.clip",
    ),
    "whole numbers": (
        {
            "algorithm": fm.fedavg(
                work_of(),
                aggregator=fm.aggregators.uniform_mean(
                    fm.codecs.clip(1.0), fm.codecs.to_field(bits=16)
                ),
            )
        },
        "adds whole numbers, which a stale answer's weight would break",
    ),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_buffers_cannot_hold_is_refused_before_anyone_is_asked(options, said):
    rounds = []

    with pytest.raises(SettingsError, match=said):
        run(**options, callbacks=[rounds.append])

    assert rounds == []


LINKS = {
    "clip": {
        "algorithm": fm.fedavg(
            work_of(), aggregator=fm.aggregators.uniform_mean(fm.codecs.clip(100.0))
        )
    },
    "a sum of single updates": {
        "algorithm": fm.fedavg(work_of(), aggregator=fm.aggregators.uniform_mean())
    },
    "quantize": {"compress": fm.codecs.quantize(16)},
    "broadcasts": {"compress_down": fm.codecs.quantize(16)},
}


@pytest.mark.parametrize("options", LINKS.values(), ids=LINKS)
def test_stages_that_lose_little_change_little(options):
    result = run(**options)

    wanted = fedbuff(12, 2, lambda s: (1 + s) ** -0.5)[-1][2]
    assert result.model.w.item() == pytest.approx(wanted, rel=1e-3)


def test_a_client_that_cannot_load_its_data_is_left_out_by_name_and_the_run_goes_on():
    def load(client):
        if client == 1:
            raise ClientError("its disk is full")
        return clients_of()[client]

    result = run(clients=fm.data.from_function(range(4), load), rounds=6)

    assert {(left.client, left.reason) for left in result.left_out} == {(1, "its disk is full")}
    assert result.rounds == 6


def test_a_sum_needs_no_room_for_those_who_do_not_answer():
    """Stages of whole numbers have room for so many; who is lost must not use it up."""
    present = Cohort(5, (0, 1, 2), 9, 2.0, absent={1: "it dropped out"})
    late = Cohort(3, (4, 5), 9, 2.0, absent={4: "it dropped out"})

    assert Link(late=(Part(late, 2, 0.5),)).answers(present) == 3
