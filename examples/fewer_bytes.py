"""Fewer bytes up: one argument, four recipes, and what each costs in accuracy.

    python examples/fewer_bytes.py

Draws fewer_bytes.png. A memory of what was lost hardly helps here, where a writer comes back once
in 18 rounds; eden(1) needs none. Ends with:

    eden(1): 31.9 times fewer bytes up, accuracy 0.926 for 0.924
"""

import os

import torch
from torch import nn

import folkmoot as fm

NUM_ROUNDS = 1 if "FOLKMOOT_QUICK" in os.environ else 30
COHORT = 30
CODECS = {
    "quantize(8)": fm.codecs.quantize(8),
    "top_k(0.01)": fm.codecs.top_k(0.01),
    "eden(1)": fm.codecs.eden(1),
}
MEMORIES = {"feedback(top_k(0.01))": fm.codecs.top_k(0.01)}

clients, test = fm.data.load("mnist_writers")
test = {name: leaf[::2] for name, leaf in test.items()}


def train(name):
    """Train once, by a recipe's name."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    work = fm.local.sgd(fm.classifier(model), lr=0.2, batch_size=20)
    if name in MEMORIES:
        work = fm.local.feedback(work, MEMORIES[name])
    plan = {"rounds": NUM_ROUNDS, "cohort": COHORT, "compress": CODECS.get(name), "name": name}
    return fm.run(fm.fedavg(work), clients, test=test, client_tests=False, progress=False, **plan)


plain = train("uncompressed")
results = {name: train(name) for name in (*CODECS, *MEMORIES)}
plain.plot_efficiency("fewer_bytes.png", others=results)
for name, result in {"uncompressed": plain, **results}.items():
    sent, accuracy = result.traffic.upload_bytes, result.metrics["test_accuracy"]
    print(f"{name:24}{sent / 1e6:8.2f} MB up   accuracy {accuracy:.3f}")
sent, sent_by_eden = (run.traffic.upload_bytes for run in (plain, results["eden(1)"]))
before, after = (run.metrics["test_accuracy"] for run in (plain, results["eden(1)"]))
print(
    f"\neden(1): {sent / sent_by_eden:.1f} times fewer bytes up, "
    f"accuracy {after:.3f} for {before:.3f}"
)
