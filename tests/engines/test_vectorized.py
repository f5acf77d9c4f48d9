"""Mistakes under the vectorized engine are the clients' own; what cannot be mapped is named."""

import functools
import warnings

import pytest
import torch
from torch import nn

import folkmoot as fm


def rows(client, features=4, dtype=torch.float32):
    drawn = torch.Generator().manual_seed(client)
    x = torch.randn(3 + client, features, generator=drawn, dtype=dtype)
    return {"x": x, "y": torch.arange(len(x)) % 2}


def fedavg(build=lambda: nn.Linear(4, 3), **options):
    torch.manual_seed(0)
    options = {"lr": 0.1, "batch_size": 4} | options
    return fm.fedavg(fm.local.sgd(fm.classifier(build()), **options))


def run(algorithm, clients, **options):
    options = {"engine": fm.engines.vectorized(), "rounds": 1} | options
    return fm.run(algorithm, clients, progress=False, **options)


def clients_with(client, data):
    return {**{other: rows(other) for other in range(6)}, client: data}


def too_high():
    return {**rows(3), "y": torch.full((6,), 7)}


def without_target():
    return {"x": rows(3)["x"]}


MISTAKES = {
    "a label too high": (too_high(), IndexError, "Target 7 is out of bounds", "step 1"),
    "other features": (rows(3, features=5), RuntimeError, "cannot be multiplied", "step 1"),
    "a missing leaf": (without_target(), KeyError, "y", "step 1"),
    "another dtype": (rows(3, dtype=torch.float64), RuntimeError, "same dtype", "step 1"),
}


@pytest.mark.parametrize("choice", [{}, {"engine": None, "exact": False}], ids=["named", "chosen"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_comes_with_client_round_and_stage(mistake, choice):
    data, kind, text, stage = MISTAKES[mistake]

    with pytest.raises(kind, match=text) as caught:
        run(fedavg(), clients_with(3, data), **choice)

    assert caught.value.__notes__[0] == f"In client 3, round 1, stage {stage}."


@pytest.mark.parametrize("choice", [{}, {"engine": None, "exact": False}], ids=["named", "chosen"])
def test_a_loader_that_fails_is_named(choice):
    def load(client):
        if client == 3:
            raise OSError("the disk is gone")
        return rows(client)

    with pytest.raises(OSError, match="the disk is gone") as caught:
        run(fedavg(), fm.data.from_function(range(6), load), **choice)

    assert caught.value.__notes__[0] == "In client 3, round 1, stage load."


class ByValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(x) if x.sum() > 0 else self.out(-x)


class Words(nn.Module):
    def __init__(self, words):
        super().__init__()
        self.words, self.out = words, nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.words((x > 0).long()).reshape(len(x), -1)[:, :4])


def spectral():
    return nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))


UNFIT = {
    "an if on a tensor": (ByValues, "it decides by the values of tensors"),
    "a layer without a rule": (spectral, "RuntimeError: Batching rule not implemented"),
    "sparse gradients": (lambda: Words(nn.Embedding(2, 4, sparse=True)), "cannot be stacked"),
    "a largest norm": (lambda: Words(nn.Embedding(2, 4, max_norm=0.5)), "writes into its weights"),
    "a largest norm of bags": (
        lambda: Words(nn.EmbeddingBag(2, 4, max_norm=0.5)), "writes into its weights",
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", UNFIT)
def test_a_model_that_cannot_be_mapped_is_refused_in_one_sentence_and_a_cure(model):
    build, cause = UNFIT[model]

    with pytest.raises(fm.SettingsError, match=cause) as caught:
        run(fedavg(build), clients_with(0, rows(0)))

    text = str(caught.value)
    assert text.startswith("The model of work 'train' cannot be vectorized")
    assert text.endswith("Use fm.engines.parallel().")
    assert len(text) < 300


@pytest.mark.parametrize("model", UNFIT)
def test_where_nobody_named_an_engine_a_model_that_cannot_be_mapped_runs_in_parallel(model):
    build, _ = UNFIT[model]
    clients = clients_with(0, rows(0))

    exact = run(fedavg(build), clients, engine=None)
    chosen = run(fedavg(build), clients, engine=None, exact=False)

    assert chosen.settings["engine"].startswith("parallel")
    for name, leaf in exact.state["params"].items():
        assert torch.equal(leaf, chosen.state["params"][name])


class Pooled(nn.Module):
    """Takes rows of any length."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(1, 3)

    def forward(self, x):
        return self.out(x.mean(dim=1, keepdim=True))


def test_clients_of_other_shapes_are_named_or_run_in_parallel():
    clients = clients_with(3, rows(3, features=5))

    with pytest.raises(fm.SettingsError, match="client 3 holds leaves of other names, shapes"):
        run(fedavg(Pooled), clients)
    exact = run(fedavg(Pooled), clients, engine=None)
    chosen = run(fedavg(Pooled), clients, engine=None, exact=False)

    for name, leaf in exact.state["params"].items():
        assert torch.equal(leaf, chosen.state["params"][name])


def test_an_operation_without_a_rule_runs_in_parallel_without_a_warning():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            line = x[:, None]
            return self.attention(line, line, line, need_weights=False)[0][:, 0]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run(fedavg(Attention), clients_with(0, rows(0)), engine=None, exact=False)

    assert result.settings["engine"].startswith("parallel")


def wide():
    return nn.Sequential(nn.Linear(4, 2_500), nn.Linear(2_500, 4), ByValues())


@pytest.mark.parametrize("first", [rows(5), rows(0)], ids=["at once", "only later"])
def test_a_step_that_cannot_be_compiled_is_refused_in_one_sentence_and_a_cure(first):
    algorithm = fedavg(wide, lr=1e-4, batch_size=3, epochs=3, last="drop")

    with pytest.raises(fm.SettingsError, match=r"cannot be compiled: it decides by") as caught:
        run(algorithm, [first, rows(5)], engine=fm.engines.compiled(1))

    assert str(caught.value).endswith("Use fm.engines.parallel().")


@pytest.mark.parametrize("first", [rows(5), rows(0)], ids=["at once", "only later"])
def test_where_nobody_named_an_engine_a_step_that_cannot_be_compiled_runs_in_parallel(first):
    algorithm = fedavg(wide, lr=1e-4, batch_size=3, epochs=3, last="drop")
    options = {"engine": None, "rounds": 250, "workers": 1, "stop": lambda history: "enough"}
    clients = [first, rows(5)]

    began_as = []

    exact = run(algorithm, clients, **options)
    chosen = run(
        algorithm,
        clients,
        exact=False,
        callbacks=[lambda event: began_as.append(event.row.get("engine", ""))],
        **options,
    )

    assert began_as[0].startswith("compiled")
    assert chosen.settings["engine"] == exact.settings["engine"]
    for name, leaf in exact.state["params"].items():
        assert torch.equal(leaf, chosen.state["params"][name])


def test_more_shapes_than_torch_keeps_of_one_program_are_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    clients = [rows(client) for client in range(9)]
    algorithm = fedavg(batch_size=None)

    result = run(algorithm, clients, engine=fm.engines.compiled(1, unrolled=1))

    assert result.left_out == []


def test_a_step_that_measures_is_mapped_before_anything_was_evaluated():
    work = fedavg().works[0]

    result = run(fm.qfedavg(work, q=1.0), [rows(client) for client in range(3)])

    assert result.settings["engine"] == "vectorized"
