"""One seed, one model: the same bits from every exact engine, whatever else draws numbers."""

import copy
import functools
import hashlib
import os
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError
from folkmoot.engines import parallel, sequential

run = fm.run  # Here, because its first import brings rich, which draws from Python's generator.


def clients_of(sizes, shape=(6,), classes=3, tokens=0):
    """Build clients of these sizes, each with its own test, from a generator of their own."""
    drawn = np.random.default_rng(3)
    train, tests = [], []
    for size in sizes:
        rows = size + 3
        x = (
            drawn.standard_normal((rows, *shape))
            if not tokens
            else drawn.integers(tokens, size=(rows, *shape))
        )
        x, y = torch.as_tensor(x), torch.from_numpy(drawn.integers(classes, size=rows))
        x = x.float() if not tokens else x
        train.append({"x": x[:size], "y": y[:size]})
        tests.append({"x": x[size:], "y": y[size:]})
    return fm.data.from_datasets(train, tests)


class Functional(nn.Module):
    """Dropout as a function, without a layer that could be found."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.last(F.dropout(F.relu(self.first(x)), 0.5, self.training))


class Restless(Functional):
    """Dropout that was never told of evaluation, a common slip."""

    def forward(self, x):
        return self.last(F.dropout(F.relu(self.first(x)), 0.5))


class Moody(Functional):
    """Dropout only in batches of five rows: the first pass, of a client with four, shows none."""

    def forward(self, x):
        hidden = F.relu(self.first(x))
        return self.last(F.dropout(hidden, 0.5, self.training) if len(x) >= 5 else hidden)


class Noisy(Functional):
    """Noise of the model's own, which no layer and no function of dropout tells of."""

    def forward(self, x):
        return self.last(F.relu(self.first(x)) + 0.1 * torch.randn(len(x), 12))


class Recurrent(nn.Module):
    """An LSTM with dropout between its layers, drawn inside the kernel."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 6, num_layers=2, dropout=0.4, batch_first=True)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.lstm(x)[0][:, -1])


class Tied(nn.Module):
    """One matrix as embedding and as last layer, around a frozen middle."""

    def __init__(self):
        super().__init__()
        self.embedding, self.middle = nn.Embedding(5, 4), nn.Linear(4, 4)
        self.last = nn.Linear(4, 5, bias=False)
        self.last.weight = self.embedding.weight
        self.middle.requires_grad_(False)

    def forward(self, x):
        return self.last(torch.tanh(self.middle(self.embedding(x).mean(1))))


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout2d(0.2),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def averaged(
    model, sizes=(4, 11, 7, 2, 9, 5, 13), aggregator=None, batch_size=5, transform=None, **data
):
    """Build the usual program around a model."""
    torch.manual_seed(1)
    work = fm.local.sgd(
        fm.classifier(model()), lr=0.1, epochs=2, batch_size=batch_size, momentum=0.5
    )
    work = transform(work) if transform else work
    return fm.fedavg(work, aggregator=aggregator), clients_of(sizes, **data)


def remembering(work):
    """Let each client keep where its last update led, and lean that way."""

    def own(sent):
        return {
            "drift": trees.zeros_like(sent["params"]),
            "times": torch.zeros((), dtype=torch.int64),
        }

    def correct(gradient, params, sent, own):
        return trees.axpy(0.3, own["drift"], gradient)

    def finish(sent, carry, seen):
        update, own = work.finish(sent, carry, seen)
        return update, {"drift": trees.clone(update.value["params"]), "times": own["times"] + 1}

    return work._replace(own=own, correct=correct, finish=finish)


def twice(algorithm):
    """Ask twice in a round: everyone's mean step alone, then the usual work from there."""
    work = algorithm.works[0]
    first = work._replace(name="first", plan=work.plan._replace(epochs=None, steps=1))

    def round(state):
        sent = {key: state[key] for key in ("params", "buffers", "counts", "round")}
        step = yield fm.Task(sent, first, fm.aggregators.uniform_mean())
        moved = {**sent, "params": trees.add(sent["params"], step.value["params"])}
        delta = yield fm.Task(moved, work, fm.aggregators.weighted_mean())
        params = trees.add(moved["params"], delta.value["params"])
        return {**state, "params": params, "round": state["round"] + 1}

    return algorithm._replace(round=round, works=(first, work))


def two_exchanges():
    algorithm, clients = averaged(mlp)
    return twice(algorithm), clients


IMAGES = {
    "shape": (1, 6, 6),
    "sizes": (9, 5, 13, 6, 2),
    "batch_size": 4,
}  # 9, 5 and 13 leave a row over
CLIPPED = fm.aggregators.weighted_mean(fm.codecs.clip(0.5))
PROGRAMS = {
    "dropout and shuffling": (lambda: averaged(mlp), {}),
    "batch statistics and ragged clients": (lambda: averaged(cnn, **IMAGES), {}),
    "bf16": (lambda: averaged(cnn, **IMAGES), {"precision": "bf16"}),
    "dropout as a function": (lambda: averaged(Functional), {}),
    "dropout in evaluation": (lambda: averaged(Restless), {}),
    "frozen and tied": (lambda: averaged(Tied, shape=(3,), tokens=5, classes=5), {}),
    "codec": (lambda: averaged(mlp, aggregator=CLIPPED), {}),
    "client state": (lambda: averaged(mlp, transform=remembering), {}),
    "two exchanges": (two_exchanges, {}),
}
MOODY = (lambda: averaged(Moody), {})
OPAQUE = {
    "dropout inside an LSTM": (lambda: averaged(Recurrent, shape=(4, 2)), {}),
    "noise of the model's own": (lambda: averaged(Noisy), {}),
}
ALL = {**PROGRAMS, **OPAQUE, "dropout of some batches": MOODY}
ENGINES = {
    "2 workers": {"workers": 2},
    "3 workers": {"workers": 3},
    "threads": {"engine": parallel(3, threads=True)},
}


def generators():
    """Return where the three global generators stand."""
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), random.getstate()


def outcome(program, callbacks=(), **where):
    """Run a program: its model's sha256 and all metrics; global generators must stay put."""
    (build, options) = program
    algorithm, clients = build()
    test = {"x": clients[0].train["x"].clone(), "y": clients[0].train["y"].clone()}
    before = generators()

    try:
        result = run(
            algorithm, clients, rounds=2, cohort=min(5, len(clients)), test=test, seed=7,
            progress=False, callbacks=callbacks, **options, **where,
        )  # fmt: skip
    finally:
        assert callbacks or generators() == before
    digest = hashlib.sha256()
    for name, leaf in result.model.state_dict().items():
        digest.update(
            name.encode() + leaf.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest(), repr([metrics_of(row) for row in result.history])


def metrics_of(row):
    return {key: value for key, value in row.items() if not key.endswith("_s")}


@functools.cache
def reference(name):
    return outcome(ALL[name], engine=sequential())


@pytest.mark.parametrize("where", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_engine_gives_the_bits_of_the_reference(name, where):
    assert outcome(PROGRAMS[name], **where) == reference(name)


def test_one_worker_gives_the_bits_of_the_reference():
    assert outcome(PROGRAMS["codec"], workers=1) == reference("codec")


@pytest.mark.parametrize("workers", [1, 3])
def test_dropout_of_some_batches_is_found_when_it_first_falls(workers):
    # The first pass is the first client's, whose four rows are too few to show it.
    assert outcome(MOODY, workers=workers) == reference("dropout of some batches")


def test_threads_give_the_bits_of_dropout_of_some_batches_or_refuse_it():
    try:
        found = outcome(MOODY, **ENGINES["threads"])
    except SettingsError as refusal:
        assert "threads mix such numbers" in str(refusal)
    else:
        assert found == reference("dropout of some batches")


def seeding_digest(**where):
    """Run clients whose loader seeds the process's one generator for itself."""

    def load(client):
        torch.manual_seed(client)
        return {"x": torch.randn(6, 6), "y": torch.arange(6) % 3}

    algorithm, _ = averaged(mlp)
    clients = fm.data.from_function(range(5), load)
    model = run(algorithm, clients, rounds=2, progress=False, **where).model
    return [leaf.tolist() for leaf in model.state_dict().values()]


def test_a_loader_that_seeds_the_one_generator_changes_no_bits():
    assert seeding_digest(workers=2) == seeding_digest(engine=sequential())


def test_a_loader_that_seeds_the_one_generator_is_refused_in_threads():
    with pytest.raises(SettingsError, match=r"loaders draw from a torch\.Generator of their own"):
        seeding_digest(engine=parallel(2, threads=True))


@pytest.mark.parametrize("name", OPAQUE)
def test_randomness_that_cannot_be_reached_gives_the_same_bits_in_processes(name):
    assert outcome(OPAQUE[name], workers=2) == reference(name)
    assert outcome(OPAQUE[name], workers=3) == reference(name)


@pytest.mark.parametrize("name", OPAQUE)
def test_randomness_that_cannot_be_reached_is_refused_in_threads(name):
    with pytest.raises(SettingsError, match=r"dropout inside a kernel .* use engine=fm"):
        outcome(OPAQUE[name], engine=parallel(2, threads=True))


def test_the_programs_of_this_file_differ():
    assert len({reference(name) for name in ALL}) == len(ALL)


@pytest.mark.parametrize("where", [{"engine": sequential()}, {"workers": 2}], ids=["one", "two"])
def test_unrelated_seeds_and_draws_change_nothing(where):
    def draw(event):
        torch.rand(event.round + 1), np.random.rand(), random.random()

    for seed in (0, 1):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)

        assert outcome(PROGRAMS["dropout as a function"], callbacks=[draw], **where) == reference(
            "dropout as a function"
        )
        assert outcome(OPAQUE["dropout inside an LSTM"], callbacks=[draw], **where) == reference(
            "dropout inside an LSTM"
        )


def test_another_seed_gives_another_model():
    algorithm, clients = averaged(mlp)
    options = {"rounds": 1, "cohort": 5, "progress": False, "engine": sequential()}

    one, other = (run(algorithm, clients, seed=seed, **options).model for seed in (7, 8))

    assert not torch.equal(one[0].weight, other[0].weight)


def test_the_users_model_stays_as_it_was():
    torch.manual_seed(1)
    model = cnn().eval()
    before = copy.deepcopy(model.state_dict())
    clients = clients_of(IMAGES["sizes"], IMAGES["shape"])
    work = fm.local.sgd(fm.classifier(model), lr=0.1, batch_size=4)

    run(fm.fedavg(work), clients, rounds=1, progress=False, workers=2)

    assert not model.training
    assert all(torch.equal(leaf, before[name]) for name, leaf in model.state_dict().items())


def test_a_cohort_whose_size_changes_gives_the_same_bits_from_the_same_workers(monkeypatch):
    forks, fork = [], os.fork
    monkeypatch.setattr(os, "fork", lambda: forks.append(1) or fork())
    digests = []
    for where in ({"engine": sequential()}, {"workers": 2}):
        algorithm, clients = averaged(mlp)
        rule = fm.sampling.poisson(3)

        result = run(algorithm, clients, rounds=6, sampling=rule, seed=7, progress=False, **where)

        assert len({row["asked"] for row in result.history}) > 2
        digests.append([leaf.tolist() for leaf in result.model.state_dict().values()])

    assert digests[0] == digests[1]
    # Two workers for training that is measured, and two more once evaluation is known, and once
    # training that is not.
    assert len(forks) <= 6
