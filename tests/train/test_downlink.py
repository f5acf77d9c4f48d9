"""Broadcasts as differences: EF21-P of its own, bytes by closed forms, and what is refused."""

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import ClientError, SettingsError
from folkmoot.train.downlink import difference_bytes, down_codec, sent

SIZE = 40
GOALS = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(0))


class Points(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(SIZE))

    def forward(self, x):
        return x * self.w


def algorithm_of(lr=0.3, server=None):
    """One local step towards each client's goal: the gradient is w - goal."""
    pulled = fm.objective(Points(), lambda out, goal: (out - goal).square().sum(1) / 2)
    work = fm.local.sgd(pulled, lr=lr, batch_size=None)
    return fm.fedavg(work, server=server, aggregator=fm.aggregators.uniform_mean())


def clients_of():
    return [{"x": torch.ones(1, SIZE), "y": goal[None]} for goal in GOALS]


def run(codec, algorithm=None, clients=None, **options):
    given = {"rounds": 5, "workers": 1, "monitor": False, "progress": False} | options
    built = algorithm or algorithm_of()
    return fm.run(built, clients or clients_of(), compress_down=codec, **given)


def ef21_p(codec, rounds, lr=0.3, seed=0):
    """Gruntkowska et al., algorithm 1: a step from what all hold, which follows the model by C.

    The first broadcast is the model itself. Keys are those of the run, as a codec may draw.
    """
    state, _ = codec.init(Bounds(size=SIZE), Layout.of({"vector": torch.zeros(SIZE)}))
    model, held = torch.zeros(SIZE), torch.zeros(SIZE)
    for round in range(1, rounds + 1):
        if round > 1:
            key = rng.derive(seed, round=round, purpose="broadcast 0")
            message = codec.pack(state, model - held, key)
            held = held + codec.unpack(state, message, key)
        model = model + lr * (GOALS - held).mean(dim=0)
    return model


CODECS = {
    "top_k": fm.codecs.top_k(0.25),
    "quantize": fm.codecs.quantize(4),
    "eden": fm.codecs.eden(4),
    "bf16": fm.codecs.bf16(),
}


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_clients_train_from_the_copy_that_they_share_with_the_server(codec):
    found = run(codec).model.w.detach()

    assert torch.allclose(found, ef21_p(down_codec(codec), 5), rtol=1e-5, atol=1e-6)
    plain = run(None).model.w.detach()
    assert not torch.equal(found, plain)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_the_optimum_is_found_although_single_broadcasts_lose_much(codec):
    found = run(codec, rounds=120).model.w.detach()

    assert torch.allclose(found, GOALS.mean(dim=0), atol=1e-3)


def test_single_numbers_and_statistics_travel_whole():
    codec = fm.codecs.top_k(count=1)
    broadcast = {
        "params": {"w": torch.ones(8), "scale": torch.tensor(2.0)},
        "buffers": {"mean": torch.ones(3)},
        "counts": {"seen": torch.tensor(4)},
    }
    first = sent(codec, None, broadcast, 0)
    moved = trees.map(lambda leaf: leaf + 1, broadcast)

    second = sent(codec, first.kept, moved, 1)

    assert first.held == broadcast
    assert second.held["params"]["w"].tolist() == [2.0, *[1.0] * 7]
    for part, name in (("params", "scale"), ("buffers", "mean"), ("counts", "seen")):
        assert torch.equal(second.held[part][name], moved[part][name])


# fedavg sends params and a round's number, of 8 bytes; a difference of k numbers is a float32 and
# an index of 6 bits each.
WHOLE = 4 * SIZE + 8


def by_client(result):
    return {client: down for client, (_, down) in result.traffic.by_client.items()}


def packed_bytes(codec):
    state, _ = codec.init(Bounds(size=SIZE), Layout.of({"vector": torch.zeros(SIZE)}))
    return trees.num_bytes(codec.pack(state, torch.randn(SIZE), 0))


@pytest.mark.parametrize("fleet", [None, fm.Fleet(devices=fm.Device(examples_per_s=1.0))])
def test_who_holds_the_last_broadcast_hears_its_difference_and_who_missed_some_all_of_them(fleet):
    codec = fm.codecs.top_k(count=6)
    part = packed_bytes(codec) + 8
    asked = {1: [0, 1], 2: [0], 3: [0, 1], 4: [0], 5: [0], 6: [0], 7: [0], 8: [0, 1, 2]}

    result = run(codec, rounds=8, fleet=fleet, sampling=lambda clients, round, rng: asked[round])

    assert 2 * part < WHOLE < 5 * part
    wanted = [2 * WHOLE, part, part + 2 * part, *[part] * 4, part + WHOLE + WHOLE]
    assert [row["download_bytes"] for row in result.history] == wanted
    assert by_client(result) == {
        0: WHOLE + 7 * part,
        1: WHOLE + 2 * part + WHOLE,
        2: WHOLE,
        3: 0,
    }


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_difference_takes_as_many_bytes_as_it_packs(codec):
    codec = down_codec(codec)
    broadcast = {"params": {"w": torch.randn(SIZE)}, "round": torch.tensor(3)}

    assert difference_bytes(codec, broadcast) == packed_bytes(codec) + 8


def test_bytes_decide_how_long_a_download_takes():
    fleet = fm.Fleet(devices=fm.Device(examples_per_s=1.0, down_bytes_per_s=float(WHOLE)))
    codec = fm.codecs.top_k(count=6)
    part = packed_bytes(codec) + 8

    result = run(codec, rounds=3, fleet=fleet)

    # A second for the model, and one for the example.
    assert [row["round_s"] for row in result.history] == pytest.approx(
        [2.0, 1 + part / WHOLE, 1 + part / WHOLE], rel=1e-12
    )


def one_step_late(codec):
    """The model after two steps, between which one more difference was heard."""
    state, _ = codec.init(Bounds(size=SIZE), Layout.of({"vector": torch.zeros(SIZE)}))
    model, held = 0.3 * GOALS[:3].mean(dim=0), torch.zeros(SIZE)
    for _ in range(2):
        held = held + codec.unpack(state, codec.pack(state, model - held, 0), 0)
    return model + 0.3 * (GOALS[:3] - held).mean(dim=0)


def full(client):
    if client == 3:
        raise ClientError("its disk is full")
    return clients_of()[client]


ALWAYS = fm.Fleet(devices=fm.Device(examples_per_s=1.0))
SILENT = {
    "a quorum": {"fleet": ALWAYS, "quorum": 2},
    "nobody who can": {"clients": fm.data.from_function(range(4), full)},
}


@pytest.mark.parametrize("options", SILENT.values(), ids=SILENT)
def test_a_round_without_a_result_has_been_heard_all_the_same(options):
    """Both sides' copies move with a broadcast; what it lacked is in the next one."""
    codec, asked = fm.codecs.top_k(0.25), {1: [0, 1, 2], 2: [3], 3: [0, 1, 2]}

    result = run(codec, rounds=3, sampling=lambda clients, round, rng: asked[round], **options)

    assert [bool(row["skipped"]) for row in result.history] == [False, True, False]
    assert torch.allclose(result.model.w.detach(), one_step_late(codec), atol=1e-6)


REFUSED = {
    "more is lost than there was": (
        fm.codecs.random_k(0.1),
        r"compress_down=random_k.* loses .* copies would run away.*Use a codec that loses less",
    ),
    "nothing is packed": (fm.codecs.clip(1.0), r"compress_down=clip\(1\) packs nothing"),
    "bytes that hang on numbers": (
        chain(fm.codecs.quantize(4), fm.codecs.entropy_coded()),
        "packs to sizes that hang on the numbers.*Leave the entropy coding out",
    ),
    "a builder": (fm.codecs.quantize, r"must be built first, with \(\)"),
    "a name": ("quantize", r"compress_down must be a codec, .* but is 'quantize'"),
}


@pytest.mark.parametrize(("codec", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_a_broadcast_is_refused(codec, said):
    with pytest.raises(SettingsError, match=said):
        run(codec)


def test_a_broadcast_that_grows_is_refused():
    codec = down_codec(fm.codecs.quantize(8))
    first = sent(codec, None, {"params": {"w": torch.zeros(4)}}, 0)

    with pytest.raises(SettingsError, match="5 numbers and the one before had 4: the model grows"):
        sent(codec, first.kept, {"params": {"w": torch.zeros(5)}}, 1)
