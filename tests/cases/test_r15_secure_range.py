"""Case R15: nothing is cut in silence, no range is nonsense, and whoever is lost leaves nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from folkmoot.codecs import to_field
from folkmoot.core import rng
from folkmoot.core.codec import Bounds, Layout
from folkmoot.core.errors import SettingsError
from folkmoot.secagg.terms import terms
from folkmoot.secagg.together import together

CASE = yaml.safe_load((Path(__file__).parent / "R15.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED, TOLERANCE = CASE["input"], CASE["expected"], CASE["tolerance"]


def mean_of(case, bits, seed):
    """The decoded mean, how many numbers were cut, and one quantum."""
    clients = [torch.tensor(values) for values in case["clients"]]
    size = len(clients[0])
    codec = to_field(range=case["clipping_range"], bits=bits)
    bounds = Bounds(weight=1.0, clients=len(clients), size=size)
    state, _ = codec.init(bounds, Layout.of({"w": torch.zeros(size)}))
    sent = [
        codec.encode(state, vector, rng.derive(seed, round=1, client=at, purpose="encode"))
        for at, vector in enumerate(clients)
    ]
    total, following = codec.decode(state, sum(sent), 0)
    return total / len(clients), following["cut"].item(), 1 / float(state["scale"])


@pytest.mark.parametrize("bits", [INPUT["a"]["bits"], 32])
def test_the_caller_is_told_of_every_number_that_was_cut(bits):
    for seed in range(100):
        mean, cut, _ = mean_of(INPUT["a"], bits, seed)

        assert cut == EXPECTED["a"]["cut"]
        assert mean.tolist() == pytest.approx(EXPECTED["a"]["mean"], abs=TOLERANCE)


def test_within_the_range_nothing_is_cut_and_the_mean_is_off_by_less_than_a_quantum():
    found = [mean_of(INPUT["b"], INPUT["b"]["bits"], seed) for seed in range(400)]

    means, cuts, quanta = zip(*found, strict=True)
    exact = torch.tensor(EXPECTED["b"]["mean"])
    assert set(cuts) == {EXPECTED["b"]["cut"]}
    assert all((mean - exact).abs().max() <= quanta[0] for mean in means)
    # Two clients share the 16 bits, so a quantum is 32 / 65,535. Rounding is fair, and in a sum of
    # two coins its error is seldom above one of theirs.
    assert quanta[0] == pytest.approx(32 / 65_535, rel=1e-4)
    assert (torch.stack(means).mean(0) - exact).abs().max() <= TOLERANCE / 4
    assert torch.stack(means).std(0).max() <= TOLERANCE


def test_with_32_bits_as_secure_sums_take_them_the_mean_is_exact_in_every_run():
    for seed in range(100):
        mean, cut, quantum = mean_of(INPUT["b"], None, seed)

        assert cut == EXPECTED["b"]["cut"]
        assert mean.tolist() == pytest.approx(EXPECTED["b"]["mean"], abs=TOLERANCE / 1000)
        assert quantum < 2.0**-26


@pytest.mark.parametrize("value", INPUT["c"]["clipping_range"])
def test_a_range_of_nothing_is_refused_at_set_up(value):
    with pytest.raises(SettingsError, match=r"range must be a finite number above 0, but is"):
        to_field(range=float(value))


@pytest.mark.parametrize("phase", ["share", "mask", "unmask"])
def test_a_client_that_is_lost_leaves_neither_masks_nor_numbers(phase):
    case = INPUT["d"]
    names = range(len(case["clients"]))
    agreed = terms(
        names, [(1, 32)], corrupt=0.0, dropped=0.25, threshold=case["threshold"], quorum=3
    )
    given = {name: (np.array(case["clients"][name], np.int32).view(np.uint32),) for name in names}

    opened = together(agreed, given, drops={case["lost"]: phase})

    total = opened.vectors[0].view(np.int32)
    if phase == "unmask":
        # Its masked input had come: whoever sends it is in the sum.
        assert total.tolist() == [-4]
        return
    assert total.tolist() == EXPECTED["d"]["sum"]
    assert opened.survivors == (0, 1, 2)
    assert (total / len(opened.survivors)).tolist() == EXPECTED["d"]["mean"]
