"""One row moves a clipped sum by at most the clip, whatever a model does to a batch."""

import pytest
import torch
from torch import nn, tensor
from torch.nn import functional as F

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.local.per_example import clipped_sum
from folkmoot.local.ways import Rows

ROWS = 60


class Mixing(nn.Module):
    """What rows look up, mixed by a function of all of them, and a dense layer called twice."""

    def __init__(self, mix, entries=50):
        super().__init__()
        self.table, self.mix = nn.Embedding(entries, 4), mix
        self.twice, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        seen = self.mix(self.table(x))
        seen = torch.tanh(self.twice(torch.tanh(self.twice(seen))))
        return self.head(seen.flatten(1, -2).sum(1) if seen.dim() > 2 else seen)


def attended(seen):
    scores = torch.einsum("i...d,j...d->ij", seen, seen)
    return torch.einsum("ij,j...d->i...d", scores.softmax(1), seen)


MIXES = {
    "centred": lambda seen: seen - seen.mean(0, keepdim=True),
    "centred by no gradient": lambda seen: seen - seen.mean(0, keepdim=True).detach(),
    "attention": attended,
    "softmax": lambda seen: seen.softmax(0),
    "turned round": lambda seen: seen.flip(0),
    "where one is large": lambda seen: torch.where(seen.amax() > 1e3, seen - seen.mean(0), seen),
    "where there are many": lambda seen: seen - seen.mean(0) if len(seen) > 9 else seen,
}


def rows_of(objective, data):
    model = objective.init()
    return Rows(model["params"], model["buffers"], model["counts"], data, tensor(1), 0)


def summed(objective, data, ways):
    return clipped_sum(objective, rows_of(objective, data), 1.0, ways)[0]


def moved_by_the_last(objective, data):
    left = trees.map(lambda leaf: leaf[:-1], data)
    ways = {}
    whole = summed(objective, data, ways)
    return (whole - summed(objective, left, ways)).norm().item(), ways


def ids(shape):
    """Rows of small numbers, and a last one of 49."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(0, 49, (ROWS, *shape), generator=draw)
    x[-1] = 49
    return x, torch.randint(0, 2, (ROWS,), generator=draw)


def alike(x):
    """The same whichever way they are read."""
    return torch.cat([x, x.flip(-1)], -1)


@pytest.mark.parametrize("kind", ["alone", "one by one", "palindromes", "a blank first"])
@pytest.mark.parametrize("mix", MIXES)
def test_a_row_that_a_model_mixes_with_others_moves_the_sum_by_its_own_clip(mix, kind):
    torch.manual_seed(0)
    model = Mixing(MIXES[mix])
    with torch.no_grad():
        model.table.weight[49] = 3000.0
    x, y = ids({"alone": (), "palindromes": (2,), "a blank first": (3,)}.get(kind, (1,)))
    if kind == "palindromes":
        x = alike(x)
    if kind == "a blank first":
        x[0] = 0

    moved, _ = moved_by_the_last(fm.classifier(model), {"x": x, "y": y})

    # Of other rows' own arithmetic 1e-7 a row stays, which is not the model's.
    assert moved <= 1 + 1e-5


@pytest.mark.parametrize("first", [0.0, 1e5])
def test_a_first_row_that_tells_nothing_lets_no_row_move_others(first):
    class Centring(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 2, bias=False)

        def forward(self, x):
            return self.head(x - x.mean(0))

    torch.manual_seed(0)
    x, y = torch.randn(ROWS, 6), torch.randint(0, 2, (ROWS,))
    x[0], x[-1] = first, 3e4

    moved, _ = moved_by_the_last(fm.classifier(Centring()), {"x": x, "y": y})

    assert moved <= 1 + 1e-5


def test_a_loss_that_compares_rows_is_a_loss_of_each_row():
    def contrast(outputs, targets):
        return F.cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)), reduction="none")

    torch.manual_seed(0)
    objective = fm.objective(
        nn.Linear(4, 2), lambda outputs, targets: contrast(outputs, targets) + outputs.sum(1)
    )
    x = torch.randn(ROWS, 4)
    x[-1] *= 1e3

    moved, ways = moved_by_the_last(objective, {"x": x, "y": torch.zeros(ROWS)})

    assert moved <= 1 + 1e-5
    assert ways == {"way": "closed"}


def test_rows_without_a_gradient_teach_no_way_and_the_next_ones_do():
    class Gated(nn.Module):
        """Nothing comes of the number 0."""

        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(5, 3), nn.Linear(3, 1, bias=False)

        def forward(self, x):
            return self.head(self.table(x)) * (x > 0)[:, None]

    objective, ways = fm.regressor(Gated()), {}
    y = torch.ones(3, 1)

    nothing = summed(objective, {"x": tensor([0, 0, 0]), "y": y * 0}, ways)
    assert nothing.norm() == 0
    assert not ways

    some = summed(objective, {"x": tensor([1, 0, 2]), "y": y}, ways)
    assert some.norm() > 0
    assert ways == {"way": "closed"}


class Placed(nn.Module):
    """A table of positions, which no row has a part in, and one that only some rows look at."""

    def __init__(self):
        super().__init__()
        self.table, self.places, self.head = nn.Embedding(9, 4), nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        seen = torch.tanh(self.table(x) + self.places(torch.arange(x.shape[1])))
        return self.head(seen.mean(1))


class Patches(nn.Module):
    """Layers that are given the parts of rows as if they were rows."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(8, 3)

    def forward(self, x):
        parts = x.reshape(-1, 2, 3) if isinstance(self.layer, nn.Conv1d) else x.reshape(-1, 6)
        return self.head(torch.tanh(self.layer(parts)).reshape(len(x), 8))


@pytest.mark.parametrize(
    ("build", "draw", "way"),
    [
        (Placed, lambda: torch.randint(0, 9, (6, 5)), "closed"),
        (lambda: Patches(nn.Linear(6, 4)), lambda: torch.randn(6, 12), "closed"),
        (lambda: Patches(nn.Conv1d(2, 4, 3)), lambda: torch.randn(6, 12), "mapped"),
    ],
    ids=["positions", "dense on parts", "convolution of parts"],
)
def test_layers_that_see_something_else_than_rows_give_the_gradients_of_a_plain_loop(
    build, draw, way
):
    torch.manual_seed(0)
    model, x, y = build(), draw(), torch.randint(0, 3, (6,))
    expected = torch.zeros(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    for row in range(6):
        loss = F.cross_entropy(model(x[row : row + 1]), y[row : row + 1])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        expected += torch.cat([g.reshape(-1) for g in gradients]).double()
    objective, ways = fm.classifier(model), {}

    total, _ = clipped_sum(objective, rows_of(objective, {"x": x, "y": y}), 1e6, ways)

    assert ways == {"way": way}
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-6)


def test_a_small_parameter_that_is_used_behind_its_layer_is_found_out():
    class Behind(nn.Module):
        """One bias of a thousandth of the gradient, used once more without its layer."""

        def __init__(self):
            super().__init__()
            self.large, self.small = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return 1e3 * self.large(x) + self.small(x) + 7 * self.small.bias

    torch.manual_seed(0)
    objective, ways = fm.regressor(Behind()), {}
    summed(objective, {"x": torch.randn(4, 4), "y": torch.randn(4, 3)}, ways)

    assert ways == {"way": "mapped"}
