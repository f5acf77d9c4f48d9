"""The small convolutional networks of the personal models."""

import torch
from torch import nn


class OfPeople(nn.Module):
    """Two convolutions over time, normalised by batch, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(6, 16, 5, stride=2), nn.BatchNorm1d(16), nn.ReLU(),
            nn.Conv1d(16, 32, 5, stride=2), nn.BatchNorm1d(32), nn.ReLU(),
            nn.AdaptiveAvgPool1d(4), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(128, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (rows, 6) logits of (rows, 6, 128)."""
        return self.head(self.body(x))


class OfSpeakers(nn.Module):
    """Two convolutions over a log-mel picture, normalised by batch, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.AdaptiveAvgPool2d((5, 3)), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(240, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (rows, 10) logits of (rows, 1, 48, 32)."""
        return self.head(self.body(x))
