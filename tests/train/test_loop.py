"""One round: the generator asks, the engine answers, and a round that fails changes nothing."""

import math

import pytest
import torch
from torch import tensor

import folkmoot as fm
from folkmoot.aggregators import total, uniform_mean, weighted_mean
from folkmoot.codecs import clip
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import EACH, State
from folkmoot.core.codec import Layout
from folkmoot.core.engine import LeftOut, Setting
from folkmoot.core.errors import DivergenceError, QuorumError, SettingsError
from folkmoot.engines import sequential
from folkmoot.train.loop import first_snapshot, run_round


def algorithm_of(work, round, **more):
    """An algorithm whose state is the model and what else is given."""
    return fm.Algorithm("made", lambda: {**work.objective.init(), **more}, round, (work,))


def moved(state, mean):
    return {**state, "params": trees.add(state["params"], mean.value["params"])}


def weight_of(snapshot):
    return snapshot.state["params"]["w"].item()


def weighing(work, weight):
    """Let every client say another weight."""

    def finish(sent, carry, seen):
        update, own = work.finish(sent, carry, seen)
        return update._replace(weight=weight), own

    return work._replace(finish=finish)


def test_the_state_is_what_the_generator_returns(line, pull, one_round):
    work = fm.local.sgd(line(1.0), lr=0.5)

    def round(state):
        mean = yield fm.Task(state, work, weighted_mean())
        return {**moved(state, mean), "seen": tensor([mean.count, mean.population])}

    clients = {0: pull(2.0), 1: pull(4.0, rows=3), 2: pull(100.0)}
    snapshot, report = one_round(algorithm_of(work, round), clients, asked=[0, 1])

    # Deltas -1 (one row) and -2 (three rows): -7 / 4; two of three clients were asked.
    assert weight_of(snapshot) == 1 - 1.75
    assert snapshot.state["seen"].tolist() == [2, 3]
    assert snapshot.round == report.round == 1
    assert (report.asked, report.answered, report.left_out, report.skipped) == (2, 2, [], None)


def test_two_exchanges_of_one_round_are_two_yields(line, pull, one_round):
    work = fm.local.sgd(line(0.0), lr=1.0)

    def round(state):
        first = yield fm.Task(state, work, uniform_mean())
        middle = moved(state, first)
        second = yield fm.Task(middle, work, total())
        return {**moved(middle, second), "first": first.value["params"]["w"]}

    snapshot, report = one_round(algorithm_of(work, round), {0: pull(1.0), 1: pull(3.0)})

    # The mean of -1 and -3, then their sum.
    assert snapshot.state["first"].item() == -2.0
    assert weight_of(snapshot) == -6.0
    # Two clients, two exchanges: one float32 and the weight up, one float32 down the first time,
    # and as much the second time.
    assert report.upload_bytes == 2 * 2 * (4 + 8)
    assert report.download_bytes == 2 * 2 * 4
    assert report.answered == 2


def test_a_round_without_any_exchange_is_a_round(line, pull, one_round):
    work = fm.local.sgd(line(1.0), lr=1.0)

    def round(state):
        return {**state, "done": tensor(1)}
        yield

    snapshot, report = one_round(algorithm_of(work, round), {0: pull(1.0)})

    assert snapshot.state["done"].item() == 1
    assert (report.answered, report.upload_bytes, report.skipped) == (0, 0, None)


def test_a_round_of_weights_zero_is_skipped_and_the_model_stays(line, pull, one_round):
    work = weighing(fm.local.sgd(line(1.0), lr=1.0), 0.0)
    begun = first_snapshot(fm.fedavg(work))

    snapshot, report = one_round(fm.fedavg(work), {0: pull(1.0), 1: pull(2.0)}, begun)

    assert "weights of all 2 clients that answered add up to 0" in report.skipped
    assert (report.asked, report.answered) == (2, 0)
    assert snapshot == begun._replace(round=1)
    assert weight_of(snapshot) == 1.0


def test_a_round_that_fails_in_its_second_exchange_changes_nothing(line, pull, one_round):
    work = fm.local.sgd(line(1.0), lr=1.0)
    empty = weighing(work, 0.0)
    closed = []

    def round(state):
        try:
            first = yield fm.Task(state, work, weighted_mean(counting()))
            yield fm.Task(moved(state, first), empty, weighted_mean())
        finally:
            closed.append(True)
        return {}

    algorithm = algorithm_of(work, round)
    begun = first_snapshot(algorithm)

    snapshot, report = one_round(algorithm, {0: pull(1.0)}, begun)

    assert report.skipped
    assert closed == [True]
    assert snapshot == begun._replace(round=1)
    assert (snapshot.codecs, weight_of(snapshot)) == ({}, 1.0)


def test_a_cohort_of_nobody_is_skipped(line):
    algorithm = fm.fedavg(fm.local.sgd(line(1.0), lr=1.0))
    begun, engine = first_snapshot(algorithm), sequential()(Setting({0: None}, 0))

    snapshot, report = run_round(algorithm, begun, engine, fm.Cohort(1, (), 1, 0.5), 0)

    assert report.skipped == "Round 1 asked 0 clients and none answered."
    assert snapshot == begun._replace(round=1)


def test_three_skipped_rounds_in_a_row_end_a_run(line, pull):
    work = weighing(fm.local.sgd(line(1.0), lr=1.0), 0.0)

    with pytest.raises(QuorumError, match=r"3 rounds in a row had no result.*add up to 0"):
        fm.run(fm.fedavg(work), [pull(1.0)], rounds=5, progress=False, workers=1)


def test_training_that_diverges_everywhere_is_told_with_client_round_and_leaf(
    line, pull, one_round
):
    algorithm = fm.fedavg(fm.local.sgd(line(), lr=1e30))

    with pytest.raises(
        DivergenceError, match=r"round 1: .* 2 clients .* client 3: leaf params/w holds 1 of 1"
    ):
        one_round(algorithm, {3: pull(1e30), 5: pull(-1e30)})


def test_finite_updates_whose_sum_overflows_are_told_as_divergence(line, pull, one_round):
    algorithm = fm.fedavg(fm.local.sgd(line(), lr=0.5))

    # A delta of 1e38 is finite in float32, whose largest number is 3.4e38; ten of them are not.
    with pytest.raises(
        DivergenceError, match=r"round 1: of the new model, leaf params/w .* updates were finite"
    ):
        one_round(algorithm, {0: pull(2e38, rows=10), 1: pull(2e38, rows=10)})


def test_clients_who_could_not_train_do_not_hide_that_the_others_diverged(line, pull, one_round):
    work = fm.local.sgd(line(), lr=1.0, batch_size=2, last="drop")

    with pytest.raises(DivergenceError, match=r"each of the 1 .*client 1: leaf params/w"):
        one_round(fm.fedavg(work), {0: pull(1.0), 1: pull(math.inf, rows=2)})


def test_one_client_that_diverges_is_left_out_with_its_weight_and_named(line, pull, one_round):
    algorithm = fm.fedavg(fm.local.sgd(line(), lr=1.0))

    snapshot, report = one_round(
        algorithm, {"a": pull(2.0), "b": pull(math.inf, rows=50), "c": pull(4.0)}
    )

    assert weight_of(snapshot) == -3.0
    assert report.answered == 2
    assert report.left_out == [
        LeftOut("b", 1, "leaf params/w holds 1 of 1 numbers that are NaN or infinite")
    ]


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_no_weight_leaves_a_client_out(weight, line, pull, one_round):
    work = fm.local.sgd(line(), lr=1.0)

    def finish(sent, carry, seen):
        update, own = work.finish(sent, carry, seen)
        return update._replace(weight=weight if seen.examples == 3 else 1.0), own

    odd = work._replace(finish=finish)
    snapshot, report = one_round(fm.fedavg(odd), {0: pull(2.0), 1: pull(9.0, rows=3)})

    assert weight_of(snapshot) == -2.0
    [left] = report.left_out
    assert (left.client, left.round) == (1, 1)
    assert f"its weight is {weight}" in left.reason


def test_an_update_of_other_leaves_is_left_out_by_leaf(line, pull, one_round):
    work = fm.local.sgd(line(), lr=1.0)

    def finish(sent, carry, seen):
        update, own = work.finish(sent, carry, seen)
        if seen.examples == 3:
            update.value["params"] = {"v": update.value["params"]["w"]}
        return update, own

    snapshot, report = one_round(
        fm.fedavg(work._replace(finish=finish)), {0: pull(2.0), 1: pull(9.0, rows=3)}
    )

    assert weight_of(snapshot) == -2.0
    assert [left.client for left in report.left_out] == [1]
    assert "leaf params/w is missing; leaf params/v is not expected" in report.left_out[0].reason


def test_an_update_whose_leaves_stand_in_another_order_counts_by_name(one_round):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.v = (torch.nn.Parameter(torch.zeros(1)) for _ in "uv")

        def forward(self, x):
            return x[:, 0] * self.u + x[:, 1] * self.v

    work = fm.local.sgd(fm.objective(Two(), lambda out, _: out, target=None), lr=1.0)

    def finish(sent, carry, seen):
        update, own = work.finish(sent, carry, seen)
        if seen.examples == 3:
            update.value["params"] = dict(reversed(update.value["params"].items()))
        return update, own

    turned = work._replace(finish=finish)
    rows = tensor([[-1.0, -10.0]])
    for aggregator in (weighted_mean(), weighted_mean(clip(100.0))):
        algorithm = fm.fedavg(turned, aggregator=aggregator)
        snapshot, _ = one_round(algorithm, {0: {"x": rows}, 1: {"x": rows.repeat(3, 1)}})
        params = snapshot.state["params"]
        assert params["u"].item() == pytest.approx(1.0, rel=1e-6)
        assert params["v"].item() == pytest.approx(10.0, rel=1e-6)


def test_an_error_of_client_code_comes_out_as_it_is_with_client_round_and_stage(line, one_round):
    algorithm = fm.fedavg(fm.local.sgd(line(), lr=1.0))

    with pytest.raises(TypeError, match="'z'") as caught:
        one_round(algorithm, {0: {"x": torch.ones(2, 1)}, 7: {"z": torch.ones(2, 1)}})

    assert "In client 7, round 1, stage step 1." in caught.value.__notes__


@pytest.mark.parametrize("yielded", [None, {"params": {}}, "task"], ids=str)
def test_a_round_that_yields_no_task_is_refused(yielded, line, pull, one_round):
    work = fm.local.sgd(line(), lr=1.0)

    def round(state):
        yield yielded

    with pytest.raises(SettingsError, match=r"'made' yielded a .* must yield Task"):
        one_round(algorithm_of(work, round), {0: pull(1.0)})


def test_a_round_that_is_no_generator_is_refused(line, pull, one_round):
    work = fm.local.sgd(line(), lr=1.0)

    with pytest.raises(SettingsError, match=r"'made' returned a dict.*must be a generator"):
        one_round(algorithm_of(work, lambda state: state), {0: pull(1.0)})


@pytest.mark.parametrize("part", ["params", "buffers", "counts"])
def test_a_state_without_a_part_of_the_model_is_refused(part, line):
    work = fm.local.sgd(line(), lr=1.0)
    state = {name: leaf for name, leaf in work.objective.init().items() if name != part}

    with pytest.raises(SettingsError, match=f"'made' has no '{part}'"):
        first_snapshot(fm.Algorithm("made", lambda: state, None, (work,)))


# Rules that see each update


def median():
    """A user's rule: the middle of all values, and how many there were."""

    def init(example, clients):
        return State({}, fm.Bounds(), Layout.of(example.value), example.counts)

    def decode(state, updates, key):
        leaves = [trees.leaves(update.value) for update in updates]
        middle = [torch.stack(each).median(dim=0).values for each in zip(*leaves, strict=True)]
        return trees.like(updates[0].value, middle), updates[0].counts, state

    return fm.Aggregator("median", init, lambda state, update, key: update, decode, EACH)


def test_a_rule_may_see_each_update(line, pull, one_round):
    algorithm = fm.fedavg(fm.local.sgd(line(), lr=1.0), aggregator=median())

    snapshot, report = one_round(
        algorithm, {0: pull(1.0), 1: pull(1000.0), 2: pull(3.0), 3: pull(math.nan)}
    )

    assert weight_of(snapshot) == -3.0
    assert (report.asked, report.answered) == (4, 3)
    assert [(left.client, left.round) for left in report.left_out] == [(3, 1)]
    assert report.upload_bytes == 3 * (4 + 8)


def test_a_rule_that_sees_each_is_given_updates_of_their_own_memory(line, pull, one_round):
    seen = []

    def decode(state, updates, key):
        seen.extend(update.value["params"]["w"].item() for update in updates)
        return updates[0].value, {}, state

    rule = median()._replace(decode=decode)

    one_round(
        fm.fedavg(fm.local.sgd(line(), lr=1.0), aggregator=rule),
        {client: pull(float(client)) for client in range(12)},
    )

    assert seen == [-float(client) for client in range(12)]


def test_integer_leaves_of_single_updates_are_of_their_own_memory_too(one_round):
    seen = []

    def decode(state, updates, key):
        seen.extend(int(update.counts["0.num_batches_tracked"]) for update in updates)
        return updates[0].value, updates[0].counts, state

    model = torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Linear(1, 1))
    work = fm.local.sgd(fm.regressor(model), lr=0.1, batch_size=2)
    clients = {
        rows: {"x": torch.arange(float(rows))[:, None], "y": torch.zeros(rows)}
        for rows in (2, 4, 8)
    }

    one_round(fm.fedavg(work, aggregator=median()._replace(decode=decode)), clients)

    assert seen == [1, 2, 4]


def test_a_rule_that_sees_each_skips_a_round_of_nobody(line, pull, one_round):
    work = fm.local.sgd(line(1.0), lr=1.0, batch_size=2, last="drop")

    snapshot, report = one_round(fm.fedavg(work, aggregator=median()), {0: pull(1.0)})

    assert "client 0: it has 1 examples, fewer than the batch size 2" in report.skipped
    assert weight_of(snapshot) == 1.0


def test_a_rule_that_sees_each_is_refused_where_clients_keep_a_state(line, pull, one_round):
    work = fm.local.sgd(line(), lr=1.0)._replace(own=lambda sent: {"n": tensor(0)})

    with pytest.raises(SettingsError, match=r"median\(\) would lose"):
        one_round(fm.fedavg(work, aggregator=median()), {0: pull(1.0)})


def test_a_user_s_median_runs_through_the_front_door_in_several_streams(line, pull):
    work = fm.local.sgd(line(), lr=1.0)
    clients = [pull(number) for number in (1.0, 50.0, 2.0, -7.0, 3.0)]

    results = [
        fm.run(
            fm.fedavg(work, aggregator=median()), clients, rounds=2, workers=workers, progress=False
        )
        for workers in (1, 2)
    ]

    assert [result.model.w.item() for result in results] == [-4.0, -4.0]


# What is kept between rounds


def counting():
    """A codec whose state is the number of decodings."""

    def init(bounds, layout):
        return {"n": tensor(0.0)}, bounds

    def encode(state, vector, key):
        return vector + state["n"]

    def decode(state, added, key):
        return added, {"n": state["n"] + 1}

    return clip(1.0)._replace(name="counting", init=init, encode=encode, decode=decode)


def test_a_codec_s_state_goes_from_round_to_round(line, pull, one_round):
    algorithm = fm.fedavg(fm.local.sgd(line(), lr=1.0), aggregator=weighted_mean(counting()))

    snapshot, found = None, []
    for _ in range(3):
        snapshot, _ = one_round(algorithm, {0: pull(0.0)}, snapshot)
        found.append(weight_of(snapshot))

    # The n-th round adds the n - 1 decodings before it.
    assert found == [0.0, 1.0, 3.0]


def test_each_exchange_has_a_codec_state_of_its_own(line, pull, one_round):
    work = fm.local.sgd(line(), lr=1.0)

    def round(state):
        first = yield fm.Task(state, work, weighted_mean(counting()))
        second = yield fm.Task(state, work, weighted_mean(counting()))
        found = [part.value["params"]["w"].item() for part in (first, second)]
        return {**state, "found": tensor(found)}

    algorithm, snapshot = algorithm_of(work, round), None
    for expected in (0.0, 1.0, 2.0):
        snapshot, _ = one_round(algorithm, {0: pull(0.0)}, snapshot)
        assert snapshot.state["found"].tolist() == [expected, expected]


def test_keys_of_encoding_differ_by_client_and_round_those_of_decoding_by_exchange_too(
    line, pull, one_round
):
    encoded, decoded = [], []

    def encode(state, vector, key):
        encoded.append(key)
        return vector

    def decode(state, added, key):
        decoded.append(key)
        return added, state

    noisy = weighted_mean(clip(1.0)._replace(encode=encode, decode=decode))
    work = fm.local.sgd(line(), lr=1.0)

    def round(state):
        yield fm.Task(state, work, noisy)
        yield fm.Task(state, work, noisy)
        return state

    algorithm, snapshot = algorithm_of(work, round), None
    for _ in range(2):
        snapshot, _ = one_round(algorithm, {0: pull(0.0), 1: pull(0.0)}, snapshot)

    # Key 0 encodes the example from which the engine learns the form of a sum.
    of_clients = [key for key in encoded if key]
    assert len(of_clients) == 2 * 2 * 2
    assert len(set(of_clients)) >= 2 * 2
    assert len(set(decoded)) == 2 * 2


def test_a_client_s_own_state_comes_back_to_that_client_only(line, pull, one_round):
    plain = fm.local.sgd(line(), lr=1.0)

    def start(sent, own, key):
        return {**plain.start(sent, own, key), "own": own}

    def finish(sent, carry, seen):
        update, own = plain.finish(sent, carry, seen)
        return update, {"rounds": own["rounds"] + 1, "rows": own["rows"] + seen.examples}

    work = plain._replace(
        start=start, finish=finish, own=lambda sent: {"rounds": tensor(0), "rows": tensor(0)}
    )
    algorithm, clients = fm.fedavg(work), {0: pull(1.0), 1: pull(1.0, rows=5), 2: pull(1.0)}

    snapshot = None
    for asked in ([0, 1], [1], [1, 2]):
        snapshot, _ = one_round(algorithm, clients, snapshot, asked=asked)

    found = {
        client: (own["rounds"].item(), own["rows"].item()) for client, own in snapshot.own.items()
    }
    assert found == {0: (1, 1), 1: (3, 15), 2: (1, 1)}


def test_a_round_writes_neither_into_the_state_before_it_nor_into_what_clients_keep(
    line, pull, one_round
):
    algorithm = fm.fedavg(
        fm.local.sgd(line(2.0), lr=1.0, momentum=0.5, steps=3),
        server=fm.optimizers.adam(0.1),
    )
    first, _ = one_round(algorithm, {0: pull(1.0)})
    before = trees.clone(first.state)

    second, _ = one_round(algorithm, {0: pull(-4.0)}, first)
    again, _ = one_round(algorithm, {0: pull(-4.0)}, first)

    assert all(map(torch.equal, trees.leaves(first.state), trees.leaves(before)))
    assert all(map(torch.equal, trees.leaves(second.state), trees.leaves(again.state)))
    assert not torch.equal(second.state["params"]["w"], first.state["params"]["w"])
