"""Compression: the largest hundredth of each update, or eight bits a number, or one.

    python examples/article/compression.py

The article's two ways to send less, and a third: after a random rotation one bit a number and one
scale are enough for an unbiased mean. Bytes are those of the packed form. Ends with:

    times fewer bytes up: top_k 78.6, quantize 4.0, eden 31.8; accuracy at most 0.07 lower
"""

import os

import torch
from torch import nn

import folkmoot as fm

NUM_ROUNDS = 2 if "FOLKMOOT_QUICK" in os.environ else 30
CODECS = {
    "none": None,
    "top_k": fm.codecs.top_k(0.01),
    "quantize": fm.codecs.quantize(8),
    "eden": fm.codecs.eden(1),
}

clients, test = fm.data.load("mnist_writers")
test = {name: leaf[::4] for name, leaf in test.items()}


def train(codec):
    """Train once, updates travelling by a codec."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    work = fm.local.sgd(fm.classifier(model), lr=0.2)
    plan = {"rounds": NUM_ROUNDS, "cohort": 20, "client_tests": False, "progress": False}
    return fm.run(fm.fedavg(work), clients, test=test, compress=codec, **plan)


results = {name: train(codec) for name, codec in CODECS.items()}
accuracies = {name: result.metrics["test_accuracy"] for name, result in results.items()}
whole = results["none"].traffic.upload_bytes
fewer = {name: whole / results[name].traffic.upload_bytes for name in CODECS if name != "none"}
for name, accuracy in accuracies.items():
    sent = results[name].traffic.upload_bytes / 1e6
    print(f"{name:10}{sent:8.2f} MB up   accuracy {accuracy:.3f}")
lost = accuracies["none"] - min(accuracies.values())
print(
    f"times fewer bytes up: {', '.join(f'{name} {times:.1f}' for name, times in fewer.items())}; "
    f"accuracy at most {lost:.2f} lower"
)
