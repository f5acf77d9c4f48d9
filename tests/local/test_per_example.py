"""Per-example gradients: norms and clipped sums equal those of a plain loop, model by model."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, tensor
from torch.nn import functional as F

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.local import ghost, per_example
from folkmoot.local.per_example import GUARD, clipped_sum, scales
from folkmoot.local.ways import Rows

ROWS = 6


class Reused(nn.Module):
    """One layer, called twice."""

    def __init__(self):
        super().__init__()
        self.twice, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.twice(torch.tanh(self.twice(x)))))


class Behind(Reused):
    """A layer's weight, used behind its back."""

    def forward(self, x):
        return self.head(F.linear(torch.tanh(self.twice(x)), self.twice.weight))


class Scaled(nn.Module):
    """A parameter without dimensions."""

    def __init__(self):
        super().__init__()
        self.scale, self.head = nn.Parameter(tensor(1.3)), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x) * self.scale


class Mixing(nn.Module):
    """Rows that see each other, where there are several."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x - x.mean(0) if len(x) > 1 else x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Tokens(nn.Module):
    """A language model of an embedding, a norm and dense layers, tied or not."""

    def __init__(self, tied=False, **options):
        super().__init__()
        self.embed, self.norm = nn.Embedding(9, 6, **options), nn.LayerNorm(6)
        self.dense, self.head = nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(torch.tanh(self.dense(self.norm(self.embed(x)))))


def frozen():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    model[0].weight.requires_grad_(False)
    return model


def dense(activation=nn.Tanh, inputs=6, outputs=3):
    return nn.Sequential(nn.Linear(inputs, 5), activation(), nn.Linear(5, outputs))


def images(activation):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), activation, nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, groups=2, stride=2, dilation=1), nn.GroupNorm(3, 6), nn.Flatten(),
        nn.Linear(24, 3),
    )  # fmt: skip


def lines(padding):
    return nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=padding, dilation=2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)
    )


# Model, shape of a row, and the way that its gradients are taken.
MODELS = {
    "dense": (dense, (6,), "closed"),
    "relu in place": (lambda: dense(lambda: nn.ReLU(inplace=True)), (6,), "closed on copies"),
    "frozen weight": (frozen, (6,), "closed"),
    "layer called twice": (Reused, (6,), "closed"),
    "convolutions": (lambda: images(nn.ReLU()), (1, 10, 10), "closed"),
    "convolutions, in place": (lambda: images(nn.ReLU(True)), (1, 10, 10), "closed on copies"),
    "convolution of lines": (lambda: lines(2), (2, 9), "closed"),
    "padding of its own": (lambda: lines("same"), (2, 9), "mapped"),
    "weight behind its back": (Behind, (6,), "mapped"),
    "parameter without dimensions": (Scaled, (6,), "mapped"),
    "rows that mix": (Mixing, (6,), "closed"),
    "recurrent": (Recurrent, (4, 6), "alone"),
}
TEXTS = {
    "embedding": (Tokens, "closed"),
    "padding index": (lambda: Tokens(padding_idx=3), "closed"),
    "tied": (lambda: Tokens(tied=True), "mapped"),
    "dense on positions": (lambda: dense(outputs=9), "closed"),
    "wide, on positions": (lambda: dense(inputs=80, outputs=9), "closed"),
}


def built(build, dtype=torch.float32):
    torch.manual_seed(0)
    return build().to(dtype)


def classes(shape, dtype=torch.float32, rows=ROWS):
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(rows, *shape, generator=draw, dtype=torch.float64).to(dtype)
    return {"x": x, "y": torch.randint(0, 3, (rows,), generator=draw)}


def texts(inputs=None, rows=ROWS):
    draw = torch.Generator().manual_seed(1)
    y = torch.randint(0, 9, (rows, 5), generator=draw)
    x = torch.randn(rows, 5, inputs, generator=draw) if inputs else y.roll(1, 1)
    return {"x": x, "y": y}


def rows_of(objective, data, key=7):
    model = objective.init()
    return Rows(model["params"], model["buffers"], model["counts"], data, tensor(key), 0)


def summed(objective, data, clip):
    ways = {}
    total, norms = clipped_sum(objective, rows_of(objective, data), clip, ways)
    return total, norms, ways["way"]


def by_loop(module, loss, data):
    """The gradient of each row alone, (rows, numbers), by plain autograd."""
    params = [p for p in module.parameters() if p.requires_grad]
    found = []
    for x, y in zip(data["x"], data["y"], strict=True):
        gradients = torch.autograd.grad(loss(module(x[None]), y[None]), params)
        found.append(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    return torch.stack(found).double()


def clipped(gradients, clip):
    norms = gradients.norm(dim=1)
    return (gradients * (GUARD * clip / norms.clamp(min=clip))[:, None]).sum(0), norms


def agree(objective, module, loss, data, way, rel=1e-6):
    gradients = by_loop(module, loss, data)
    # So that some are clipped and some are not.
    clip = gradients.norm(dim=1).median().item()
    expected, norms = clipped(gradients, clip)

    total, found, taken = summed(objective, data, clip)

    assert taken == way
    assert found.tolist() == pytest.approx(norms.tolist(), rel=rel)
    assert (total - expected).norm() <= rel * expected.norm()


@pytest.mark.parametrize("name", MODELS)
def test_norms_and_sum_are_those_of_a_plain_loop(name):
    build, shape, way = MODELS[name]
    module = built(build)

    agree(fm.classifier(module), module, F.cross_entropy, classes(shape), way)


@pytest.mark.parametrize("name", ["convolutions", "convolution of lines"])
def test_large_convolutions_are_taken_by_the_library_s_own_kernel(name, monkeypatch):
    monkeypatch.setattr(ghost, "_LARGE", 0)
    build, shape, way = MODELS[name]
    module = built(build)

    agree(fm.classifier(module), module, F.cross_entropy, classes(shape), way)


@pytest.mark.parametrize("name", TEXTS)
def test_norms_and_sum_of_sequences_are_those_of_a_plain_loop(name):
    build, way = TEXTS[name]
    module = built(build)
    # Dense models are given numbers, the others tokens.
    inputs = module[0].in_features if isinstance(module, nn.Sequential) else None

    def loss(outputs, targets):
        return F.cross_entropy(outputs.transpose(1, 2), targets)

    agree(fm.language_model(module), module, loss, texts(inputs), way)


def test_a_loss_that_is_a_mean_over_rows_is_one_of_each_row():
    module, data = built(dense), classes((6,))
    objective = fm.objective(module, lambda outputs, targets: F.cross_entropy(outputs, targets))

    agree(objective, module, F.cross_entropy, data, "closed")


def test_an_objective_of_another_make_is_asked_row_by_row():
    module, data = built(dense), classes((6,))
    plain = fm.classifier(module)

    class Own:
        def grad(self, *given):
            return plain.grad(*given)

    gradients = by_loop(module, F.cross_entropy, data)
    total, norms = clipped_sum(Own(), rows_of(plain, data), 0.5, {})

    assert norms.tolist() == pytest.approx(gradients.norm(dim=1).tolist(), rel=1e-6)
    torch.testing.assert_close(total, clipped(gradients, 0.5)[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("way", ["closed", "mapped", "alone"])
def test_a_row_s_dropout_is_its_own_whichever_way_it_is_taken(way):
    module = built(lambda: nn.Sequential(nn.Linear(6, 40), nn.Dropout(0.5), nn.Linear(40, 3)))
    objective = fm.classifier(module)
    rows = rows_of(objective, classes((6,)))
    clipped_sum(objective, rows, 1.0, {})  # It is known now that the model drops.

    total, _ = clipped_sum(objective, rows, 1.0, {"way": way})
    again, other = (
        clipped_sum(objective, rows._replace(key=tensor(key)), 1.0, {"way": way})[0]
        for key in (7, 8)
    )
    alone, _ = clipped_sum(objective, rows, 1.0, {"way": "alone"})

    assert (total - alone).norm() <= 1e-6 * alone.norm()
    assert torch.equal(total, again)
    assert not torch.equal(total, other)


def test_half_precision_is_clipped_as_the_numbers_that_came_out():
    module, data = built(dense), classes((6,))
    objective = fm.classifier(module).with_precision("bf16")
    gradients = by_loop(module, F.cross_entropy, data)

    total, norms, way = summed(objective, data, 1e-3)

    assert way == "closed"
    assert norms.tolist() == pytest.approx(gradients.norm(dim=1).tolist(), rel=2e-2)
    assert total.norm() <= ROWS * 1e-3


@pytest.mark.parametrize("way", ["closed", "mapped", "alone"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_example_whose_gradient_is_not_finite_adds_nothing(bad, way):
    objective, data = fm.classifier(built(dense)), classes((6,))
    data["x"][2, 1] = bad
    others = trees.map(lambda leaf: leaf[[0, 1, 3, 4, 5]], data)

    total, _ = clipped_sum(objective, rows_of(objective, data), 0.5, {"way": way})
    expected, _ = clipped_sum(objective, rows_of(objective, others), 0.5, {"way": way})

    assert total.isfinite().all()
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-7)


def test_gradients_too_many_to_be_held_are_taken_in_parts(monkeypatch):
    objective, data = fm.classifier(built(lambda: images(nn.ReLU()))), classes((1, 10, 10))
    whole, norms, _ = summed(objective, data, 0.5)

    monkeypatch.setattr(per_example, "_MOST_NUMBERS", 300)
    parts, found, _ = summed(objective, data, 0.5)

    assert found.tolist() == pytest.approx(norms.tolist(), rel=1e-6)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", [0.0, 1e-30, 0.999, 1.0, 1.001, 1e30, math.inf, math.nan])
def test_no_scaled_norm_is_above_the_clip(norm):
    [scale] = scales(tensor([norm], dtype=torch.float64), 1.0).tolist()

    assert 0 <= scale <= GUARD
    assert not math.isfinite(norm) or scale * norm <= 1.0


def network(draw, dtype):
    sizes = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=draw(st.booleans())), nn.ReLU()]
    kind = draw(st.sampled_from(["plain", "norm", "scaled", "tied"]))
    if kind == "norm":
        layers.append(nn.LayerNorm(sizes[-1]))
    if kind == "tied":
        twice = nn.Linear(sizes[-1], sizes[-1])
        layers += [twice, nn.Tanh(), twice]
    module = nn.Sequential(*layers)
    if kind == "scaled":
        module = Whole(module)
    return module.to(dtype), sizes


class Whole(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.scale = inner, nn.Parameter(tensor(1.0))

    def forward(self, x):
        return self.inner(x) * self.scale


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_without_one_example_a_sum_moves_by_at_most_the_clip(data):
    torch.manual_seed(data.draw(st.integers(0, 2**31)))
    # In float64, so that the other rows' own arithmetic does not depend on who is beside them.
    module, sizes = network(data.draw, torch.float64)
    objective = fm.regressor(module)
    rows = data.draw(st.integers(2, 7))
    spread = 10.0 ** data.draw(st.integers(-6, 6))
    clip = 10.0 ** data.draw(st.integers(-3, 3))
    examples = {
        "x": torch.randn(rows, sizes[0], dtype=torch.float64) * spread,
        "y": torch.randn(rows, sizes[-1], dtype=torch.float64) * spread,
    }
    gone = data.draw(st.integers(0, rows - 1))
    left = trees.map(lambda leaf: leaf[[row for row in range(rows) if row != gone]], examples)
    ways = {}

    total, _ = clipped_sum(objective, rows_of(objective, examples), clip, ways)
    without, _ = clipped_sum(objective, rows_of(objective, left), clip, ways)

    moved = total - without
    assert math.sqrt(math.fsum(number * number for number in moved.tolist())) <= clip
