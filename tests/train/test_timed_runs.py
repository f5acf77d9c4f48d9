"""Runs on a fleet: deadlines, quorums and partial work, against closed forms of tiny models."""

import math

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import ClientError, QuorumError, SettingsError
from folkmoot.engines.traces import intervals

GOALS = [-1.0, 2.0, 5.0, -4.0]


class Point(nn.Module):
    def __init__(self, w=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([w], dtype=torch.float64))

    def forward(self, x):
        return x * self.w


def point_work(lr=0.1, **plan):
    """Local steps towards each client's goal: the gradient is w - goal."""
    pulled = fm.objective(Point(), lambda out, goal: (out - goal).square().sum(1) / 2)
    return fm.local.sgd(pulled, lr=lr, **({"batch_size": 1, "shuffle": False} | plan))


def point_clients(sizes=(4, 4, 4, 4)):
    one = torch.ones(1, 1, dtype=torch.float64)
    return [
        {"x": one.repeat(size, 1), "y": (one * goal).repeat(size, 1)}
        for size, goal in zip(sizes, GOALS, strict=True)
    ]


def fleet_of(*speeds, trace=None, **more):
    devices = {at: fm.Device(examples_per_s=speed, **more) for at, speed in enumerate(speeds)}
    return fm.Fleet(trace, devices=devices)


def run_points(algorithm=None, clients=None, **options):
    given = {"rounds": 1, "fleet": fleet_of(8.0, 4.0, 2.0, 1.0), "workers": 1} | options
    return fm.run(
        algorithm or fm.fedavg(point_work()),
        clients or point_clients(),
        **({"monitor": False, "progress": False} | given),
    )


def test_a_round_below_its_quorum_leaves_model_and_optimizer_as_they_were():
    # In the second round devices 1 to 3 have gone.
    trace = intervals(
        [("0", [(0, 99.0)], math.inf), *((f"{c}", [(0, 4.5)], 40) for c in (1, 2, 3))]
    )
    fleet = fleet_of(8.0, 4.0, 2.0, 1.0, trace=trace)

    result = run_points(
        fm.fedavg(point_work(), server=fm.optimizers.adam(0.1)),
        rounds=3,
        fleet=fleet,
        quorum=2,
        pace_s=20.0,
    )
    first = run_points(
        fm.fedavg(point_work(), server=fm.optimizers.adam(0.1)), fleet=fleet, quorum=2
    )

    skipped = [row["skipped"] for row in result.history]
    assert skipped[0] is None and skipped[2] is None
    assert skipped[1] == (
        "Round 2 had 1 answers of 1 devices when it closed at 20 s, and its quorum is 2."
    )
    # One step of Adam more, with the moments of one step: as if round 2 had not been.
    again = run_points(
        fm.fedavg(point_work(), server=fm.optimizers.adam(0.1)),
        rounds=2,
        fleet=fleet,
        quorum=2,
        pace_s=40.0,
    )
    assert result.model.w.item() == again.model.w.item() != first.model.w.item()


def test_an_answer_that_cannot_be_used_does_not_make_a_quorum():
    def load(client):
        if client == 1:
            raise ClientError("its disk is full")
        return point_clients()[client]

    clients = fm.data.from_function(range(4), load)

    with pytest.raises(QuorumError, match=r"3 usable answers of 4 clients, and its quorum is 4; "):
        run_points(clients=clients, quorum=4)
    assert run_points(clients=clients, quorum=3).history[0]["skipped"] is None


def test_three_rounds_below_quorum_end_the_run_with_the_reason():
    with pytest.raises(QuorumError, match=r"3 rounds in a row had no result\. Round 3 had 2 answe"):
        run_points(rounds=9, quorum=3, deadline_s=1.5)


def test_a_deadline_leaves_out_by_name_and_averages_the_others():
    result = run_points(deadline_s=1.5)

    assert result.history[0]["left_out"] == [
        [2, "it was not done at the deadline of 2 s"],
        [3, "it was not done at the deadline of 2 s"],
    ]
    # Four steps of 0.1 from 0 cover 1 - 0.9 ** 4 of the way to the mean of the goals -1 and 2.
    assert result.model.w.item() == pytest.approx((1 - 0.9**4) * 0.5, rel=1e-12)


def test_partial_work_counts_for_the_examples_worked_through():
    # Batches of one: 4, 4, 2 and 1 of 4 examples are done within a second.
    result = run_points(deadline_s=1.0, partial=True)

    done = [4, 4, 2, 1]
    moved = [(1 - 0.9**steps) * goal for steps, goal in zip(done, GOALS, strict=True)]
    wanted = sum(steps * move for steps, move in zip(done, moved, strict=True)) / sum(done)
    assert result.history[0]["left_out"] == []
    assert result.model.w.item() == pytest.approx(wanted, rel=1e-12)


def test_a_short_last_batch_is_no_reason_to_do_more_than_there_is_time_for():
    # Batches of 3, 3 and 1 of 7 examples: 5.9 s are enough for 3 of them at one a second, not for
    # two steps of 6.
    work = fm.fedavg(point_work(batch_size=3))
    fleet = fleet_of(100.0, 100.0, 100.0, 1.0)

    result = run_points(
        work, point_clients((7, 7, 7, 7)), deadline_s=5.9, partial=True, fleet=fleet
    )

    moved = [(1 - 0.9**3) * goal * 7 for goal in GOALS[:3]] + [(1 - 0.9) * GOALS[3] * 3]
    assert result.model.w.item() == pytest.approx(sum(moved) / 24, rel=1e-12)


def test_fednova_divides_by_the_steps_that_were_done():
    result = run_points(
        fm.fednova(point_work(), aggregator=fm.aggregators.uniform_mean()),
        deadline_s=1.0,
        partial=True,
    )

    # Wang et al.: mean of delta_i / tau_i, times the mean of tau_i.
    done = [4, 4, 2, 1]
    mean = sum((1 - 0.9**t) * goal / t for t, goal in zip(done, GOALS, strict=True)) / 4
    assert result.model.w.item() == pytest.approx(mean * sum(done) / 4, rel=1e-6)


def test_fedprox_averages_what_was_done():
    result = run_points(
        fm.fedprox(point_work(), mu=2.0, aggregator=fm.aggregators.uniform_mean()),
        deadline_s=1.0,
        partial=True,
    )

    def moved(steps, goal):
        w = 0.0
        for _ in range(steps):
            w -= 0.1 * ((w - goal) + 2.0 * w)
        return w

    done = [4, 4, 2, 1]
    wanted = sum(moved(t, goal) for t, goal in zip(done, GOALS, strict=True)) / 4
    assert result.model.w.item() == pytest.approx(wanted, rel=1e-12)


def test_who_has_no_time_for_a_step_is_left_out_by_name():
    result = run_points(deadline_s=0.5, partial=True)

    assert result.history[0]["left_out"] == [
        [3, "it has no time for a single step before the deadline"]
    ]


def test_partial_work_of_several_training_exchanges_is_refused():
    with pytest.raises(SettingsError, match=r"mime\(\) trains in several exchanges"):
        run_points(fm.mime(point_work()), deadline_s=1.0, partial=True)


def test_the_operations_of_a_model_are_counted_where_devices_say_flops():
    """A linear layer of 4 by 3: 2 * 12 forward, twice that backward in the weights' part; and at
    least 6 a parameter."""
    fleet = fm.Fleet(devices=fm.Device(flops=900.0))
    work = fm.local.sgd(fm.classifier(nn.Linear(4, 3)), lr=0.1, batch_size=None)
    held = {"x": torch.randn(10, 4), "y": torch.arange(10) % 3}

    result = fm.run(fm.fedavg(work), [held] * 2, rounds=1, fleet=fleet, progress=False, workers=1)

    # 15 parameters: 90 operations an example, 10 examples at 900 a second.
    assert result.history[0]["round_s"] == 1.0


def test_clients_of_one_row_or_that_cannot_load_do_not_stop_the_count():
    """One row has no statistics, so the first client cannot show what a gradient takes."""

    def load(client):
        if client == 2:
            raise ClientError("its disk is full")
        rows = 8 if client else 1
        return {"x": torch.randn(rows, 4), "y": torch.arange(rows) % 2}

    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    work = fm.local.sgd(fm.classifier(module), lr=0.1, batch_size=4)
    clients = fm.data.from_function(range(4), load)
    fleet = fm.Fleet(devices=fm.Device(flops=1e6))

    result = fm.run(fm.fedavg(work), clients, rounds=1, fleet=fleet, progress=False, workers=1)

    assert {left.client for left in result.left_out} == {0, 2}


def test_a_fleet_without_memory_for_the_model_is_refused():
    with pytest.raises(SettingsError, match="which no device of this fleet has"):
        run_points(fleet=fleet_of(1.0, 1.0, 1.0, 1.0, memory_bytes=8.0))


def test_a_saved_run_keeps_its_clock_and_its_spans(tmp_path):
    result = run_points(rounds=3, deadline_s=1.5, save=tmp_path)

    stored = fm.load_result(tmp_path)

    assert [row["virtual_s"] for row in stored.history] == [1.5, 3.0, 4.5]
    assert stored.history[0]["spans"] == [
        [0, 0.0, 0.0, 0.5, 0.5, None],
        [1, 0.0, 0.0, 1.0, 1.0, None],
        [2, 0.0, 0.0, 2.0, 2.0, "it was not done at the deadline of 2 s"],
        [3, 0.0, 0.0, 4.0, 4.0, "it was not done at the deadline of 2 s"],
    ]
    assert repr(stored.history[-1]["spans"]) == repr(result.history[-1]["spans"])
    assert "spans" not in stored.history[1]
