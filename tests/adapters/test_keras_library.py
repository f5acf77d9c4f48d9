"""Keras is optional, runs on PyTorch, and builds what can be trained: else a sentence says so."""

import ast
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot import adapters

keras = pytest.importorskip("keras")
layers = keras.layers

ADAPTERS = Path(fm.__file__).parent / "adapters"
AT_THE_TOP = {*sys.stdlib_module_names, "folkmoot", "numpy", "torch"}


@pytest.mark.parametrize("file", sorted(ADAPTERS.glob("*.py")), ids=lambda file: file.name)
def test_no_adapter_imports_its_library_before_it_is_used(file):
    nodes = ast.parse(file.read_text("utf-8")).body
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]

    assert {name.partition(".")[0] for name in names} <= AT_THE_TOP


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)

    with pytest.raises(fm.SettingsError, match=r"pip install 'folkmoot\[keras\]'"):
        adapters.keras(lambda: None)


def test_another_back_end_is_refused_before_keras_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "jax")

    with pytest.raises(fm.SettingsError, match=r"KERAS_BACKEND is 'jax'.*before anything imports"):
        adapters.keras(lambda: None)


def test_another_back_end_is_refused_after_keras_is_imported(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")

    with pytest.raises(fm.SettingsError, match=r"runs on tensorflow here.*KERAS_BACKEND=torch"):
        adapters.keras(lambda: None)


def small(**compiled):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    if compiled:
        model.compile(**compiled)
    return model


def wrapping():
    wrapper = layers.TorchModuleWrapper(nn.Linear(4, 4), name="theirs")
    return keras.Sequential([keras.Input((4,)), wrapper, layers.Dense(2)])


KEPT = []


def kept():
    if not KEPT:
        KEPT.append(small(loss="mse"))
    return KEPT[0]


@pytest.mark.parametrize(
    ("model_fn", "reason"),
    [
        (lambda: nn.Linear(4, 2), "must return a Keras model, but returned a Linear"),
        (lambda: keras.Sequential([layers.Dense(2)]), "no weights yet.*keras.Input"),
        (small, "has no loss.*or compile it"),
        (wrapping, "'theirs' of the Keras model wraps a PyTorch module"),
        (kept, "the same model twice"),
        (keras.Sequential, "needs a function that builds a Keras model"),
        (lambda: small(loss="mse", metrics=["mse", "mse"]), "Two metrics have one name"),
    ],
    ids=["a module", "unbuilt", "no loss", "foreign", "kept", "a class", "twice"],
)
def test_models_that_cannot_be_trained_are_refused(model_fn, reason):
    with pytest.raises(fm.SettingsError, match=reason):
        adapters.keras(model_fn)


def test_rows_of_another_shape_are_refused_by_their_shapes():
    model = adapters.keras(lambda: small(loss="mse")).model

    with pytest.raises(fm.SettingsError, match=r"takes rows of shape \(4,\).*rows of \(2, 2\)"):
        model(torch.zeros(3, 2, 2))
