"""The workloads' models, with parameters drawn by numpy from one seed."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SEED = 2026


class Mlp(nn.Module):
    """784-128-10: 102 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(784, 128)
        self.out = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, 784) -> (rows, 10)."""
        return self.out(F.relu(self.hidden(x)))


class Cnn(nn.Module):
    """Two convolutions and two dense layers, as LEAF's for FEMNIST: 1.7 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 5, padding=2)
        self.second = nn.Conv2d(32, 64, 5, padding=2)
        self.hidden = nn.Linear(3_136, 512)
        self.out = nn.Linear(512, 62)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, 1, 28, 28) -> (rows, 62)."""
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.out(F.relu(self.hidden(x.flatten(1))))


class CharLstm(nn.Module):
    """LEAF's model for Shakespeare: two layers of 256, then the next character."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(80, 8)
        self.lstm = nn.LSTM(8, 256, 2, batch_first=True)
        self.out = nn.Linear(256, 80)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, length) -> (rows, 80)."""
        hidden, _ = self.lstm(self.embedding(x))
        return self.out(hidden[:, -1])


def linear() -> nn.Module:
    """10-2: a step of it costs what calling torch costs, and nothing more."""
    return nn.Linear(10, 2)


MODELS = {"mlp": Mlp, "cnn": Cnn, "lstm": CharLstm, "linear": linear}


def build(name: str) -> nn.Module:
    """Return a workload's model with its initial parameters: uniform within 1 / sqrt(inputs)."""
    model = MODELS[name]()
    draw = np.random.default_rng(_SEED)
    with torch.no_grad():
        for parameter in model.parameters():
            inputs = parameter[0].numel() if parameter.dim() > 1 else len(parameter)
            values = draw.uniform(-1, 1, parameter.shape) / np.sqrt(inputs)
            parameter.copy_(torch.from_numpy(values))
    return model


def flat(model: nn.Module) -> Tensor:
    """Return all parameters as one vector, (parameters,)."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
