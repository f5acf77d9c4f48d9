"""Case R22: a last batch of one row, in a model whose layers need two."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn, tensor

import folkmoot as fm
from folkmoot.engines import parallel, sequential

CASE = yaml.safe_load((Path(__file__).parent / "R22.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED = CASE["input"], CASE["expected"]


def client(rows, *shape):
    draw = torch.Generator().manual_seed(rows)
    return {"x": torch.randn(rows, *(shape or (1,)), generator=draw), "y": tensor([[1.0]] * rows)}


def noting(work, seen):
    """Note what each client's update was counted by: (steps, weight)."""
    done = []

    def step(self, sent, carry, batch):
        done.append(batch)
        return work.step(self, sent, carry, batch)

    def finish(sent, carry, found):
        update, own = work.finish(sent, carry, found)
        if done:  # An engine also asks for an update of no step, to learn its form.
            seen.append((int(found.steps), int(update.weight)))
            assert len(done) == found.steps
            done.clear()
        return update, own

    return work._replace(step=step, finish=finish)


def normed():
    return nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))


def work_of(model, **plan):
    given = {"batch_size": INPUT["batch_size"], "epochs": INPUT["epochs"], **plan}
    return fm.local.sgd(fm.regressor(model), lr=0.01, **given)


def test_a_last_row_joins_the_batch_before_and_a_single_row_is_skipped_with_a_reason(one_round):
    seen = []
    clients = {size: client(size) for size in INPUT["client_sizes"]}

    snapshot, report = one_round(fm.fedavg(noting(work_of(normed()), seen)), clients)

    # Ids ascend, and client 1 does not train.
    trained = dict(zip([33, 64], seen, strict=True))
    steps = [trained.get(size, (0, 0))[0] for size in INPUT["client_sizes"]]
    weights = [trained.get(size, (0, 0))[1] for size in INPUT["client_sizes"]]
    assert steps == EXPECTED["steps"]
    assert weights == EXPECTED["aggregation_weights"]
    assert report.answered == 2
    [left] = report.left_out
    assert (left.client, left.round) == (1, 1)
    assert "a batch of one row has no batch statistics" in left.reason
    assert snapshot.state["counts"]["1.num_batches_tracked"].item() == 2  # (33 * 1 + 64 * 2) / 97


@pytest.mark.parametrize(
    "engine",
    [sequential(), parallel(2), parallel(2, threads=True)],
    ids=["sequential", "processes", "threads"],
)
def test_a_run_goes_on_and_names_who_was_left_out(engine):
    clients = [client(size) for size in INPUT["client_sizes"]]

    result = fm.run(fm.fedavg(work_of(normed())), clients, rounds=2, engine=engine, progress=False)

    assert [(left.client, left.round) for left in result.left_out] == [(1, 1), (1, 2)]
    assert [row["answered"] for row in result.history] == [2, 2]


LAYERS = {
    "BatchNorm1d": (nn.BatchNorm1d(2), ()),
    "BatchNorm2d": (nn.BatchNorm2d(2), (1, 1)),
    "BatchNorm3d": (nn.BatchNorm3d(2), (1, 1, 1)),
    "SyncBatchNorm": (nn.SyncBatchNorm(2), (1, 1)),
    "BatchNorm without statistics": (nn.BatchNorm1d(2, track_running_stats=False), ()),
}


class Around(nn.Module):
    """Two channels of a picture, a layer deep inside, and a number at the end."""

    def __init__(self, layer, shape):
        super().__init__()
        self.inside = nn.ModuleDict({"more": nn.Sequential(nn.Sequential(layer))})
        self.shape = shape
        self.out = nn.LazyLinear(1)

    def forward(self, x):
        return self.out(self.inside["more"](x.reshape(len(x), 2, *self.shape)).flatten(1))


def around(layer, shape):
    model = Around(layer, shape)
    model(torch.zeros(2, 2 * torch.Size(shape).numel()))
    return model


@pytest.mark.parametrize("rows", [5, 9])
@pytest.mark.parametrize("name", LAYERS)
def test_no_layer_of_batch_statistics_sees_a_batch_of_one(name, rows, one_round):
    layer, shape = LAYERS[name]
    seen = []
    work = noting(work_of(around(layer, shape), batch_size=4), seen)

    _, report = one_round(fm.fedavg(work), {0: client(rows, 2), 1: client(1, 2)})

    assert seen == [(rows // 4, rows)]
    assert [left.client for left in report.left_out] == [1]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.InstanceNorm1d(2, affine=True), (3,)),
        (nn.InstanceNorm2d(2, track_running_stats=True), (2, 2)),
        (nn.GroupNorm(1, 2), ()),
        (nn.LayerNorm(2), ()),
        (nn.LocalResponseNorm(2), (2,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_that_look_at_one_row_at_a_time_train_on_one(layer, shape, one_round):
    seen = []
    work = noting(work_of(around(layer, shape), batch_size=4), seen)
    size = 2 * torch.Size(shape).numel()

    _, report = one_round(fm.fedavg(work), {0: client(5, size), 1: client(1, size)})

    assert report.left_out == []
    assert seen == [(2, 5), (1, 1)]


@pytest.mark.parametrize(
    ("plan", "rows", "steps", "weight"),
    [
        ({"batch_size": 32, "epochs": 3}, 33, 3, 33),
        ({"batch_size": 32, "last": "drop"}, 33, 1, 33),
        ({"batch_size": 32, "last": "drop"}, 34, 1, 32),
        ({"batch_size": 32, "last": "join"}, 34, 1, 34),
        ({"batch_size": 32}, 34, 2, 34),
        ({"batch_size": 2}, 3, 1, 3),
        ({"batch_size": None}, 2, 1, 2),
        ({"batch_size": 32, "epochs": None, "steps": 5}, 33, 5, 33),
        ({"batch_size": 32, "epochs": None, "steps": 1}, 65, 1, 32),
    ],
    ids=str,
)
def test_weights_match_the_work_under_every_plan(plan, rows, steps, weight, one_round):
    seen = []

    one_round(fm.fedavg(noting(work_of(normed(), **plan), seen)), {0: client(rows)})

    assert seen == [(steps, weight)]


def test_batches_of_one_row_are_left_out_by_reason(one_round):
    _, report = one_round(fm.fedavg(work_of(normed(), batch_size=1)), {0: client(8)})

    assert "a batch of one row has no batch statistics" in report.skipped


def test_a_client_of_one_row_is_still_judged():
    one = client(1)
    clients = fm.data.from_datasets([client(8), client(8)], [one, one])

    result = fm.run(fm.fedavg(work_of(normed())), clients, rounds=1, progress=False, workers=1)

    assert [found.examples for found in result.clients.values()] == [1, 1]
