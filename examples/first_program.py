"""The first program: 539 people who write digits train one model, and keep their digits.

    python examples/first_program.py

Draws run.png and prints a table of the run. Its first line of numbers is the accuracy, final and
best, on the 10,000 digits of MNIST's test set, by people who took no part:

    accuracy 0.9687 0.9697
"""
# ruff: noqa: E501, I001
# fmt: off

import folkmoot as fm
from torch import nn

clients, test = fm.data.load("mnist_writers")                     # a client is a writer
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
work = fm.local.sgd(fm.classifier(model), lr=0.2, epochs=1, batch_size=10)

result = fm.run(fm.fedavg(work), clients, rounds=200, cohort=50, test=test, seed=0)
print(result)                                                     # a table; result.model is an ordinary module
result.plot("run.png")
