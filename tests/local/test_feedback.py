"""Memory of what compression has lost: nothing is lost for good, under any algorithm."""

import math

import pytest
import torch

import folkmoot as fm
from folkmoot.core.errors import SettingsError

TOP = fm.codecs.top_k(count=1)


@pytest.fixture
def fed(line):
    """FedAvg with memory, of a line that begins at 0."""

    def build(codec=TOP, start=(0.0, 0.0), **options):
        work = fm.local.sgd(line(list(start)), lr=1.0)
        return fm.fedavg(fm.local.feedback(work, codec), **options)

    return build


def rounds(algorithm, clients, one_round, number, **options):
    """Return where the model stands after each of some rounds, and the last report."""
    snapshot, stands = None, []
    for _ in range(number):
        snapshot, report = one_round(algorithm, clients, snapshot, **options)
        stands.append(snapshot.state["params"]["w"].tolist())
    return stands, snapshot, report


def test_what_one_round_loses_a_later_one_sends(fed, pull, one_round):
    # Each round's delta is (4, 3), of which one number is sent, and the rest kept.
    stands, snapshot, _ = rounds(fed(), {0: pull([-4.0, -3.0])}, one_round, 3)

    # (4, 3) sends 4; (4, 6) sends 6; (8, 3) sends 8.
    assert stands == [[4.0, 0.0], [4.0, 6.0], [12.0, 6.0]]
    assert snapshot.own[0]["unsent"].tolist() == [0.0, 3.0]


def test_each_client_remembers_its_own(fed, pull, one_round):
    clients = {0: pull([-4.0, -3.0]), 1: pull([1.0, 2.0])}

    _, snapshot, _ = rounds(fed(), clients, one_round, 1)
    stands, snapshot, _ = rounds(fed(), clients, one_round, 1, asked=[1])

    assert stands == [[0.0, -2.0]]
    assert set(snapshot.own) == {1}
    assert snapshot.own[1]["unsent"].tolist() == [-1.0, 0.0]


def test_bytes_are_those_that_are_packed(fed, pull, one_round):
    wide = fed(fm.codecs.top_k(count=4), start=[0.0] * 256)
    clients = {0: pull([1.0] * 256)}

    _, _, report = rounds(wide, clients, one_round, 1)

    # Four numbers of 4 bytes, four places of 8 bits, and the weight.
    assert report.uploads == {0: 4 * 4 + 4 * 8 // 8 + 8}


def test_an_update_that_is_not_finite_is_left_out_and_nothing_of_it_is_kept(fed, pull, one_round):
    clients = {0: pull([math.nan, 1.0]), 1: pull([1.0, 0.0])}

    _, snapshot, report = rounds(fed(), clients, one_round, 1)

    assert [left.client for left in report.left_out] == [0]
    assert set(snapshot.own) == {1}


def test_one_bit_comes_to_the_optimum_only_with_memory(one_round):
    """Of Karimireddy et al., section 3: where coordinates are unequal, signs alone go astray."""
    torch.manual_seed(0)
    x = torch.randn(64, 4) * torch.tensor([10.0, 1.0, 1.0, 1.0])
    target = x @ torch.tensor([[1.0], [-2.0], [3.0], [0.5]])
    clients = {0: {"x": x, "y": target}}
    sign = fm.codecs.sign()

    def loss_after(remember, *stages):
        model = torch.nn.Linear(4, 1, bias=False)
        torch.nn.init.zeros_(model.weight)
        work = remember(fm.local.sgd(fm.regressor(model), lr=0.004, batch_size=None))
        algorithm = fm.fedavg(work, aggregator=fm.aggregators.weighted_mean(*stages))
        snapshot = None
        for _ in range(600):
            snapshot, _ = one_round(algorithm, clients, snapshot)
        weight = snapshot.state["params"]["weight"]
        return float((x @ weight.T - target).square().mean())

    forgetful = loss_after(lambda work: work, sign)
    remembering = loss_after(lambda work: fm.local.feedback(work, sign))

    assert remembering < 0.05
    assert forgetful > 20 * remembering


def test_memory_rides_with_controls_and_personal_leaves(line, pull, one_round):
    work = fm.local.feedback(fm.local.sgd(line([0.0, 0.0]), lr=1.0), TOP)

    stands, snapshot, _ = rounds(fm.scaffold(work), {0: pull([-4.0, -3.0])}, one_round, 2)

    assert {"unsent", "control"} <= set(snapshot.own[0])
    assert stands[0] == [4.0, 0.0]


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        (fm.codecs.random_k(0.01), ["loses", "top_k"]),
        (fm.codecs.count_sketch(50), ["packs nothing", "compress="]),
        (fm.codecs.clip(1.0), ["packs nothing"]),
        ("top_k", ["needs a codec", "'top_k'"]),
    ],
    ids=["a codec that loses more than all", "a sketch", "a clip", "a name"],
)
def test_a_codec_that_memory_cannot_mend_is_refused(line, codec, said):
    with pytest.raises(SettingsError) as error:
        fm.local.feedback(fm.local.sgd(line(), lr=1.0), codec)

    assert all(part in str(error.value) for part in said)
