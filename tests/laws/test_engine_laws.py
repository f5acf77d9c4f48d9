"""Laws of engines that are not exact: a round agrees with the sequential one within rounding.

The distance is the norm of the difference over the norm of the whole update, never leaf by leaf:
some leaves have a true gradient of zero.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import folkmoot as fm
from folkmoot.core import tree as trees

SIZES = (1, 7, 10, 11, 21, 31, 30, 2)
BOUNDS = {torch.float32: 1e-5, torch.float64: 1e-9}


def vectors(rows, generator, dtype):
    x = torch.randn(rows, 6, generator=generator, dtype=dtype)
    return {"x": x, "y": torch.randint(0, 3, (rows,), generator=generator)}


def images(rows, generator, dtype):
    x = torch.randn(rows, 1, 6, 6, generator=generator, dtype=dtype)
    return {"x": x, "y": torch.randint(0, 3, (rows,), generator=generator)}


def numbers(rows, generator, dtype):
    x = torch.randn(rows, 6, generator=generator, dtype=dtype)
    return {"x": x, "y": x[:, 0] * 2}


def words(rows, generator, dtype):
    x = torch.randint(0, 12, (rows, 5), generator=generator)
    return {"x": x, "y": torch.randint(0, 3, (rows,), generator=generator)}


def tokens(rows, generator, dtype):
    line = torch.randint(0, 12, (rows, 6), generator=generator)
    return {"x": line[:, :-1], "y": line[:, 1:]}


class TokenModel(nn.Module):
    """Tied weights: the embedding is also the last layer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 12, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x):
        return self.out(self.norm(self.embedding(x)))


class FunctionalDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.first.bias.requires_grad_(False)

    def forward(self, x):
        return self.last(F.dropout(F.relu(self.first(x)), 0.4, self.training))


class Centred(nn.Module):
    """Mixes the rows of a batch: padding would be seen."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        return self.out(x - x.mean(dim=0))


class RunningMean(nn.Module):
    """Keeps statistics of rows, in a layer that torch knows nothing of."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.detach().mean(dim=0))
        return self.out(x - self.mean)


class Words(nn.Module):
    """Scales a word's gradient by its frequency in the batch: padding would be counted."""

    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(12, 6, scale_grad_by_freq=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.embedding(x).mean(dim=1))


def mlp(outputs=3):
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, outputs))


def batch_norm():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def instance_norm():
    layers = nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(64, 3))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.Dropout2d(0.3),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


OBJECTIVES = {
    "classes": (lambda: fm.classifier(mlp()), vectors),
    "two classes in one output": (lambda: fm.regressor(mlp(1)), numbers),
    "batch statistics": (lambda: fm.classifier(batch_norm()), vectors),
    "rows that are mixed": (lambda: fm.classifier(Centred()), vectors),
    "a running mean": (lambda: fm.classifier(RunningMean()), vectors),
    "statistics of instances": (lambda: fm.classifier(instance_norm()), images),
    "gradients by frequency": (lambda: fm.classifier(Words()), words),
    "convolution and dropout of channels": (lambda: fm.classifier(cnn()), images),
    "functional dropout and a frozen leaf": (lambda: fm.classifier(FunctionalDropout()), vectors),
    "a loss that is a scalar": (lambda: fm.objective(mlp(), F.cross_entropy), vectors),
    "tokens and tied weights": (lambda: fm.language_model(TokenModel()), tokens),
}
ALGORITHMS = {
    "fedavg": fm.fedavg,
    "fedavg with adam on the server": lambda work: fm.fedavg(work, server=fm.optimizers.adam(0.01)),
    "fedavg, clipped": lambda work: fm.fedavg(
        work, aggregator=fm.aggregators.uniform_mean(fm.codecs.clip(0.05))
    ),
    "fedprox": lambda work: fm.fedprox(work, mu=0.5),
}
WORKS = {
    "sgd": {"lr": 0.05, "epochs": 2},
    "momentum, decay, clipping": {
        "lr": 0.05, "steps": 7, "momentum": 0.9, "weight_decay": 0.01, "clip_gradient": 0.5
    },
    "a schedule": {"lr": lambda round: 0.1 / round, "epochs": 1, "last": "join"},
}  # fmt: skip


OPTIMIZERS = {
    "adam": fm.optimizers.adam(0.01),
    "adam with bias correction": fm.optimizers.adam(0.01, bias_correction=True),
    "adamw": fm.optimizers.adamw(0.01),
    "adagrad": fm.optimizers.adagrad(0.05, beta_1=0.5),
    "yogi": fm.optimizers.yogi(0.01),
    "nesterov": fm.optimizers.sgd(0.05, momentum=0.9, nesterov=True),
}


def distance(engine, algorithm, objective, data, work, dtype, rounds=1):
    """Return how far an engine's model is from the reference's, over how far that one moved."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    clients = {place: data(rows, generator, dtype) for place, rows in enumerate(SIZES)}
    built = objective()
    built.model.to(dtype)
    local = fm.local.descent if "optimizer" in work else fm.local.sgd
    results = [
        fm.run(
            algorithm(local(built, batch_size=10, **work)),
            clients,
            rounds=rounds,
            engine=opener,
            progress=False,
        )
        for opener in (fm.engines.sequential(), engine)
    ]
    left, right = (result.state for result in results)
    assert [left_out[0] for left_out in results[0].left_out] == [
        left_out[0] for left_out in results[1].left_out
    ]
    assert all(torch.equal(left["counts"][name], right["counts"][name]) for name in left["counts"])
    model = {part: left[part] for part in ("params", "buffers")}
    other = {part: right[part] for part in ("params", "buffers")}
    start = {part: built.init()[part] for part in ("params", "buffers")}
    return float(trees.norm(trees.sub(model, other)) / trees.norm(trees.sub(model, start)))


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_vectorized_objectives_agree_with_the_reference(name, dtype):
    objective, data = OBJECTIVES[name]

    far = distance(fm.engines.vectorized(), fm.fedavg, objective, data, WORKS["sgd"], dtype)

    assert far <= BOUNDS[dtype]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("work", WORKS)
def test_vectorized_algorithms_agree_with_the_reference(algorithm, work):
    objective, data = OBJECTIVES["classes"]

    far = distance(
        fm.engines.vectorized(),
        ALGORITHMS[algorithm],
        objective,
        data,
        WORKS[work],
        torch.float64,
        rounds=2,
    )

    assert far <= BOUNDS[torch.float64]


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_vectorized_local_optimizers_agree_with_the_reference(name, dtype):
    objective, data = OBJECTIVES["classes"]
    work = {"optimizer": OPTIMIZERS[name], "epochs": 2}

    far = distance(fm.engines.vectorized(), fm.fedavg, objective, data, work, dtype, rounds=2)

    assert far <= BOUNDS[dtype]


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_the_size_of_a_chunk_changes_rounding_only(chunk):
    objective, data = OBJECTIVES["classes"]

    far = distance(
        fm.engines.vectorized(chunk), fm.fedavg, objective, data, WORKS["sgd"], torch.float64
    )

    assert far <= BOUNDS[torch.float64]


def test_a_recurrent_model_is_not_vectorized():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = nn.GRU(6, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.out(self.cell(x[:, None])[0][:, -1])

    generator = torch.Generator().manual_seed(1)
    clients = [vectors(5, generator, torch.float32)]
    algorithm = fm.fedavg(fm.local.sgd(fm.classifier(Recurrent()), lr=0.1))

    with pytest.raises(fm.SettingsError, match=r"recurrent layers.*fm.engines.parallel\(\)"):
        fm.run(algorithm, clients, rounds=1, engine=fm.engines.vectorized(), progress=False)


def test_a_client_whose_update_is_not_finite_is_left_out_of_a_chunk():
    generator = torch.Generator().manual_seed(1)
    clients = [vectors(5, generator, torch.float32) for _ in range(4)]
    clients[2]["x"] *= 1e30
    algorithm = fm.fedavg(fm.local.sgd(fm.classifier(mlp()), lr=10.0, epochs=3))

    result = fm.run(algorithm, clients, rounds=1, engine=fm.engines.vectorized(), progress=False)

    assert [left.client for left in result.left_out] == [2]
    assert "NaN or infinite" in result.left_out[0].reason


def test_compiled_steps_agree_with_the_reference_and_with_any_number_of_workers():
    objective, data = OBJECTIVES["classes"]
    opener = fm.engines.compiled(workers=2, unrolled=2)

    far = distance(opener, fm.fedavg, objective, data, {"lr": 0.05, "epochs": 2}, torch.float32)

    assert far <= BOUNDS[torch.float32]


def test_a_model_that_draws_is_not_compiled():
    generator = torch.Generator().manual_seed(1)
    clients = [vectors(25, generator, torch.float32)]
    algorithm = fm.fedavg(fm.local.sgd(fm.classifier(FunctionalDropout()), lr=0.1))

    with pytest.raises(fm.SettingsError, match="draws random numbers"):
        fm.run(algorithm, clients, rounds=1, engine=fm.engines.compiled(), progress=False)
