"""The article's process trains its Keras model, and hands the weights back to Keras."""

import runpy
from pathlib import Path

import pytest

pytest.importorskip("keras")

PROGRAM = Path(__file__).parents[2] / "examples" / "article" / "process.py"


def test_the_process_learns_and_a_keras_model_with_its_weights_reads_as_well(monkeypatch):
    monkeypatch.setenv("FOLKMOOT_QUICK", "1")

    left = runpy.run_path(str(PROGRAM))

    first = left["process"].evaluate(left["process"].initialize(), left["test"])
    found = left["metrics"]["sparse_categorical_accuracy"]
    assert found > first["sparse_categorical_accuracy"] + 0.4
    assert left["metrics"]["loss"] < first["loss"]
    assert float(left["right"].float().mean()) == pytest.approx(found, abs=1e-3)
    assert left["state"].round == left["NUM_ROUNDS"]
