"""The network of the keyboard, small enough for a phone: 0.4 MB."""

from torch import nn

from data import CHARACTERS


class Keyboard(nn.Module):
    """Logits of the next character at every place: (rows, length) -> (rows, length, 82)."""

    def __init__(self):
        super().__init__()
        self.signs = nn.Embedding(len(CHARACTERS), 16)
        self.memory = nn.LSTM(16, 128, batch_first=True)
        self.output = nn.Linear(128, len(CHARACTERS))

    def forward(self, x):
        return self.output(self.memory(self.signs(x))[0])

    def follow(self, x, state=None):
        """Return the logits, and what is remembered of the text, to go on from."""
        found, state = self.memory(self.signs(x), state)
        return self.output(found), state
