"""A module of your own, on scikit-learn's digits dealt to ten clients.

    python examples/digits_own_module.py

Fifteen lines of code. Ends with:

    accuracy after 5 rounds: 0.880
"""

from sklearn.datasets import load_digits
from torch import nn

import folkmoot as fm


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        return self.layers(x / 16)


x, y = load_digits(return_X_y=True)
train, test = (x[:1500], y[:1500]), (x[1500:], y[1500:])
clients = fm.data.partition.iid(train, 10).clients(train)
work = fm.local.sgd(fm.classifier(Net()), lr=0.1, epochs=5)
result = fm.run(fm.fedavg(work), clients, rounds=5, test=test)
print(f"accuracy after 5 rounds: {result.metrics['test_accuracy']:.3f}")
