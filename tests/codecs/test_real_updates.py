"""What a client's training makes is compressed as well as theory says of any vector."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import folkmoot
from folkmoot import codecs
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Layout, chain

SAMPLE = Path(folkmoot.__file__).parent / "data" / "samples" / "mnist_writers"
VECTORS = Path(__file__).parents[1] / "vectors" / "compression_nmse.json"
EXACT = json.loads(VECTORS.read_text(encoding="utf-8"))["exact"]["lloyd_max"]


@pytest.fixture(scope="module")
def update():
    """One writer's update of a perceptron with 101,770 parameters, after an epoch."""
    with np.load(SAMPLE / "mnist_writers.npz", allow_pickle=False) as arrays:
        mine = arrays["writer"] == arrays["writer"][0]
        x, y = torch.from_numpy(arrays["x"][mine]), torch.from_numpy(arrays["y"][mine])
    draw = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    with torch.no_grad():
        for leaf in model.parameters():
            leaf.copy_((torch.rand(leaf.shape, generator=draw) - 0.5) / leaf.shape[-1] ** 0.5)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for rows in torch.randperm(len(x), generator=draw).split(10):
        loss = nn.functional.cross_entropy(model(x[rows].float() / 255), y[rows].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach() - before


def errors(codec, vector, count):
    """NMSE of each of several codes of a vector, and of their mean."""
    state, _ = codec.init(Bounds(size=len(vector)), Layout.of({"w": vector}))
    keys = [rng.derive(2, client=at, purpose="encode") for at in range(count)]
    found = [codec.encode(state, vector.clone(), key) - vector for key in keys]
    square = vector.square().sum()
    each = [(error.square().sum() / square).item() for error in found]
    return sum(each) / count, (torch.stack(found).mean(0).square().sum() / square).item()


def test_it_is_far_from_gaussian(update):
    # A third of the weights belong to pixels that are always white, and have not moved.
    assert (update == 0).double().mean() > 0.25
    assert update.abs().max() > 20 * update.square().mean().sqrt()


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_eden_has_its_error_and_loses_it_in_a_mean(update, bits):
    known = EXACT[str(bits)]["eden_unbiased_nmse"]

    each, mean = errors(codecs.eden(bits), update, 20)

    assert each == pytest.approx(known, rel=0.01)
    assert mean == pytest.approx(known / 20, rel=0.02)


def test_a_rotation_is_worth_several_bits(update):
    plain, _ = errors(codecs.quantize(4), update, 5)
    rotated, mean = errors(chain(codecs.rotate(), codecs.quantize(4)), update, 20)

    # The range of 101,770 Gaussian numbers is some 4.5 deviations to each side: steps of 0.6.
    assert rotated == pytest.approx(0.6**2 / 6, rel=0.25)
    assert mean == pytest.approx(rotated / 20, rel=0.1)
    assert plain > 10 * rotated
