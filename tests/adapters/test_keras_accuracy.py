"""A Keras model becomes as good as the equal PyTorch model, over several seeds."""

import os

import numpy as np
import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot import adapters

keras = pytest.importorskip("keras")

SEEDS = range(3)
NUM_ROUNDS = 60


def model_fn():
    relu = keras.layers.Dense(128, "relu")
    model = keras.Sequential(
        [keras.Input((1, 28, 28)), keras.layers.Flatten(), relu, keras.layers.Dense(10)]
    )
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    return model


def pytorch():
    """The same layers, with first weights of their own, drawn as Keras draws them."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    for layer in (model[1], model[3]):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


@pytest.mark.nightly
def test_a_keras_model_reads_digits_as_well_as_the_equal_model_in_pytorch():
    clients, test = fm.data.load("mnist_writers")
    found = {"keras": [], "pytorch": []}

    for seed in SEEDS:
        keras.utils.set_random_seed(seed)
        torch.manual_seed(seed)
        objectives = (adapters.keras(model_fn), fm.classifier(pytorch()))
        for name, objective in zip(found, objectives, strict=True):
            work = fm.local.sgd(objective, lr=0.2, batch_size=10)
            result = fm.run(
                fm.fedavg(work),
                clients,
                rounds=NUM_ROUNDS,
                cohort=30,
                test=test,
                seed=seed,
                evaluate_every=NUM_ROUNDS,
                workers=min(2, os.cpu_count() or 1),
                progress=False,
            )
            found[name].append(result.metrics["test_accuracy"])

    means = {name: float(np.mean(values)) for name, values in found.items()}
    assert means["pytorch"] > 0.9
    assert abs(means["keras"] - means["pytorch"]) <= 0.005
