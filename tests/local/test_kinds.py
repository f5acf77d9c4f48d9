"""A classifier's classes are 0 to k - 1; whatever else a label says is refused, never left out."""

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.algorithm import Batch

ENGINES = {
    "sequential": fm.engines.sequential(),
    "processes": fm.engines.parallel(2, threads=False),
    "threads": fm.engines.parallel(2, threads=True),
    "vectorized": fm.engines.vectorized(),
}


def rows(examples, seed, label=1, at=0):
    drawn = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % 2
    labels[at] = label
    return {"x": torch.randn(examples, 4, generator=drawn), "y": labels}


def fedavg(outputs, **options):
    torch.manual_seed(0)
    work = fm.local.sgd(fm.classifier(nn.Linear(4, outputs)), lr=0.1, batch_size=4, **options)
    return fm.fedavg(work)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_every_engine_refuses_a_negative_label_by_client_and_leaf(engine, outputs):
    clients = [rows(size, size) for size in (5, 7, 9)] + [rows(6, 0, label=-100, at=3)]

    with pytest.raises(IndexError, match=r"^Target -100 is out of bounds") as caught:
        fm.run(fedavg(outputs), clients, rounds=1, engine=engine, progress=False)

    where, why = caught.value.__notes__
    assert where.startswith("In client 3, round 1, stage step ")
    assert why.startswith("Leaf y holds labels from -100 to 1, which do not fit")


@pytest.mark.parametrize("outputs", [1, 3])
def test_evaluation_refuses_a_negative_label(outputs):
    clients, test = [rows(5, 1)], rows(6, 2, label=-100, at=4)

    with pytest.raises(IndexError, match=r"^Target -100 is out of bounds"):
        fm.run(fedavg(outputs), clients, rounds=1, test=test, progress=False)


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_check_before_a_run_refuses_a_negative_label(outputs):
    clients = [rows(4, 1, label=-100)]

    report = fm.check(fedavg(outputs), clients, rounds=1)

    assert not report.ok
    assert "Client 0: leaf 'y' holds the label -100" in str(report.problems).replace("\\", "")


def test_a_map_of_labels_refuses_a_negative_one_too():
    objective = fm.classifier(nn.Conv2d(1, 3, 1))
    labels = torch.zeros(2, 4, 4, dtype=torch.int64)
    labels[1, 2, 2] = -100
    batch = Batch({"x": torch.ones(2, 1, 4, 4), "y": labels}, None, torch.tensor(0), 0)

    with pytest.raises(IndexError, match="Target -100 is out of bounds"):
        objective.grad(*objective.init().values(), batch)


def test_a_label_may_be_the_chances_of_all_classes():
    objective = fm.classifier(nn.Linear(2, 2, bias=False), [])
    params = {"weight": torch.zeros(2, 2)}
    data = {"x": torch.tensor([[1.0, 0.0]]), "y": torch.tensor([[0.25, 0.75]])}

    gradient, _ = objective.grad(params, {}, {}, Batch(data, None, torch.tensor(0), 0))

    # (softmax - chances) x: (0.5 - 0.25, 0.5 - 0.75) in the first column.
    assert gradient["weight"].tolist() == [[0.25, 0.0], [-0.25, 0.0]]


def test_a_language_model_leaves_out_the_places_that_have_no_token():
    model = nn.Sequential(nn.Embedding(3, 3), nn.Linear(3, 3))
    objective = fm.language_model(model)
    line = torch.tensor([[0, 1, 2]])
    start = objective.init()

    def gradient(data):
        return objective.grad(*start.values(), Batch(data, None, torch.tensor(0), 0))[0]

    padded = gradient({"x": line, "y": torch.tensor([[1, 2, -100]])})
    short = gradient({"x": line[:, :2], "y": torch.tensor([[1, 2]])})

    assert all(torch.allclose(padded[name], short[name]) for name in short)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_compiled_step_refuses_a_negative_label(outputs):
    clients = [rows(8, 1), rows(8, 2, label=-100, at=5)]
    engine = fm.engines.compiled(workers=1, unrolled=1)

    with pytest.raises((IndexError, RuntimeError), match="out of bounds") as caught:
        fm.run(fedavg(outputs), clients, rounds=1, engine=engine, progress=False)

    assert caught.value.__notes__[0].startswith("In client 1, round 1, stage step ")
