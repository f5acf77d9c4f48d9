"""Bits of runs on a fleet are those of policy and seed, whatever runs them, and if they stop."""

import functools
import hashlib

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError
from folkmoot.engines.traces import intervals

ROUNDS = 6


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """Leave out what a finished run draws: it takes longer than all else here."""
    monkeypatch.setattr(fm.Result, "plot", lambda result, path: None)
    monkeypatch.setattr(fm.Result, "report", lambda result, path: None)


def rows(client):
    drawn = torch.Generator().manual_seed(client)
    x = torch.randn(9 + client % 4, 4, generator=drawn)
    return {"x": x, "y": (x[:, 0] > 0).long()}


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


def phones(dropout=0.1):
    """Fifteen devices that differ in all, and are there now and then."""
    trace = intervals(
        (f"{c}", [(7.0 * c % 31 + 40 * n, 7.0 * c % 31 + 40 * n + 25) for n in range(3)], 120.0)
        for c in range(15)
    )
    devices = {
        c: fm.Device(
            examples_per_s=2.0 + c % 7,
            down_bytes_per_s=100.0 + 30 * c,
            up_bytes_per_s=90.0 + 11 * c,
            latency_s=0.1 * c,
            dropout=dropout,
        )
        for c in range(15)
    }
    return fm.Fleet(trace, devices=devices)


SETTINGS = {
    "together": {"deadline_s": 9.0, "over_select": 1.4, "quorum": 2, "pace_s": 4.0},
    "partial": {"deadline_s": 6.0, "partial": True},
    "buffered": {"buffer": 3, "staleness": fm.staleness.polynomial(0.5, at_most=4)},
    "a lot": {"sampling": fm.sampling.poisson(0.6), "cohort": None, "deadline_s": 12.0},
    "tiers": {"sampling": fm.sampling.tiered(4, tiers=3), "cohort": None},
}
LINKS = {
    "plain": {},
    "compressed": {
        "compress": fm.codecs.quantize(4),
        "compress_down": fm.codecs.quantize(8),
    },
}


def train(built=None, **options):
    work = fm.local.sgd(fm.classifier(model()), lr=0.1, batch_size=4, epochs=2)
    given = {"rounds": ROUNDS, "cohort": 5, "seed": 3, "workers": 1, "fleet": phones()} | options
    return fm.run(
        built or fm.fedavg(work, server=fm.optimizers.adam(0.05)),
        fm.data.from_function(range(15), rows, name="few"),
        test=rows(50),
        progress=False,
        **given,
    )


def told(result):
    """All that must be equal: the model, its best, and the history less real seconds."""
    leaves = [
        leaf.numpy().tobytes()
        for one in (result.model, result.best_model)
        for leaf in one.state_dict().values()
    ]
    real = ("train_s", "client_s", "evaluation_s")
    history = [{k: v for k, v in row.items() if k not in real} for row in result.history]
    bits = hashlib.sha256(b"".join(leaves)).hexdigest()
    return bits, repr(history), repr(result.participation), result.traffic.by_round


@functools.cache
def whole(setting, link):
    return told(train(**SETTINGS[setting], **LINKS[link]))


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    "how", [{"workers": 2}, {"workers": None, "engine": fm.engines.sequential()}], ids=["2", "one"]
)
def test_bits_and_rows_are_the_same_for_any_number_of_workers(setting, link, how):
    found = told(train(**SETTINGS[setting], **LINKS[link], **how))

    assert found == whole(setting, link)
    assert "left_out': [[" in found[1] or setting == "tiers"


class Killed(Exception):
    pass


def killing(at):
    def look(event):
        if event.kind == "round" and event.round == at:
            raise Killed

    return look


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_that_goes_on_ends_as_if_it_had_never_stopped(setting, link, tmp_path):
    options = SETTINGS[setting] | LINKS[link] | {"checkpoint": tmp_path}
    for at in (1, 4):
        with pytest.raises(Killed):
            train(**options, resume=at > 1, callbacks=[killing(at)])

    assert told(train(**options, resume=True)) == whole(setting, link)


OTHERS = {
    "deadline": ({"deadline_s": 8.0}, "deadline_s was 9.0 and is 8.0"),
    "pace": ({"pace_s": 5.0}, "pace_s was 4.0 and is 5.0"),
    "quorum": ({"quorum": 3}, "quorum was 2 and is 3"),
    "over-selection": ({"over_select": 1.5}, "over_select was 1.4 and is 1.5"),
    "another fleet of one name": (
        {"fleet": phones(dropout=0.2)},
        r"fleet\.devices\.0\.dropout was 0\.1 and is 0\.2",
    ),
    "no fleet": (dict.fromkeys(["fleet", *SETTINGS["together"]]), "fleet was 'fleet' and is None"),
    "broadcasts": ({"compress_down": fm.codecs.quantize(8)}, "compress_down was None"),
}


@pytest.mark.parametrize(("other", "said"), OTHERS.values(), ids=OTHERS)
def test_a_run_does_not_go_on_with_another_clock(other, said, tmp_path):
    options = SETTINGS["together"] | {"checkpoint": tmp_path}
    with pytest.raises(Killed):
        train(**options, callbacks=[killing(1)])

    with pytest.raises(SettingsError, match=said):
        train(**options | other, resume=True)


STALER = {
    "more at once": ({"cohort": 6}, "in_flight was 5 and is 6"),
    "a larger buffer": ({"buffer": 2}, "buffer was 3 and is 2"),
    "another bound": ({"staleness": fm.staleness.polynomial(0.5, at_most=5)}, "at_most was 4"),
    "another function": ({"staleness": lambda stale: 1 / (1 + stale)}, "staleness was"),
}


@pytest.mark.parametrize(("other", "said"), STALER.values(), ids=STALER)
def test_a_buffered_run_does_not_go_on_with_another_rule(other, said, tmp_path):
    options = SETTINGS["buffered"] | {"checkpoint": tmp_path}
    with pytest.raises(Killed):
        train(**options, callbacks=[killing(1)])

    with pytest.raises(SettingsError, match=said):
        train(**options | other, resume=True)


def test_functions_of_one_name_with_other_numbers_are_other_rules(tmp_path):
    def run_with(share, **more):
        rule = lambda stale: 1 / (1 + share * stale)  # noqa: E731
        train(buffer=3, staleness=rule, checkpoint=tmp_path, **more)

    with pytest.raises(Killed):
        run_with(0.5, callbacks=[killing(1)])

    with pytest.raises(SettingsError, match=r"share was 0\.5 and is 0\.25"):
        run_with(0.25, resume=True)
