"""What a promise may hold, and what it refuses when it is written."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import folkmoot as fm
from folkmoot.core.errors import SettingsError
from folkmoot.privacy.dp import DP
from folkmoot.privacy.ledger import Ledger


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        (None, "above 0, or a clipping codec .* but is None"),
        ("1", "above 0, or a clipping codec .* but is '1'"),
        (torch.tensor(1.0), r"above 0, or a clipping codec .* but is tensor\(1\.\)"),
        (fm.codecs.adaptive_clip, r"'adaptive_clip' itself\. Build the codec, with \(\)"),
        (fm.aggregators.uniform_mean(), "above 0, or a clipping codec .* but is Aggregator"),
        (True, "must be a finite number above 0, but is True"),
        (0, "must be a finite number above 0, but is 0"),
        (math.nan, "must be a finite number above 0, but is nan"),
    ],
    ids=["None", "text", "tensor", "function", "aggregator", "True", "0", "nan"],
)
def test_what_cannot_clip_is_refused_by_name(clip, reason):
    with pytest.raises(SettingsError, match=rf"^clip .*{reason}"):
        DP(epsilon=1.0, clip=clip)


def test_a_number_or_a_codec_clips():
    codec = fm.codecs.adaptive_clip()

    assert DP(epsilon=1.0, clip=codec).clip is codec
    assert DP(epsilon=1.0, clip=2).clip == 2


def test_numbers_of_numpy_become_plain_ones():
    made = DP(noise_multiplier=np.float32(2.0), clip=np.int64(3), delta=np.float32(0.25))

    found = (made.noise_multiplier, made.clip, made.delta)
    assert found == (2.0, 3.0, 0.25) and {type(one) for one in found} == {float}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"epsilon": True}, "epsilon must be a finite number above 0, but is True"),
        ({"noise_multiplier": False}, "noise_multiplier must be a finite .* but is False"),
        ({"epsilon": 1, "delta": True}, "delta must be a number between 0 and 1, but is True"),
        ({"epsilon": 1, "delta": "0.1"}, "delta must be a number between 0 and 1, but is '0.1'"),
        ({"epsilon": 1, "simulation": "no"}, "simulation must be True or False, but is 'no'"),
        ({"epsilon": 1, "simulation": 0}, "simulation must be True or False, but is 0"),
        ({"epsilon": 1, "client_tests": "no"}, "client_tests must be True or False, but is 'no'"),
    ],
    ids=str,
)
def test_a_switch_is_no_number_and_a_number_no_switch(options, reason):
    with pytest.raises(SettingsError, match=reason):
        DP(**options)


# Ledgers


@pytest.mark.parametrize("path", ["x.jsonl", Path("x.jsonl")], ids=["text", "path"])
def test_a_ledger_s_path_is_refused_with_how_it_is_opened(path):
    with pytest.raises(SettingsError, match=r"Open it first: fm.privacy.Ledger\('x.jsonl', unit="):
        DP(epsilon=2, ledger=path)


def test_what_is_no_ledger_is_refused():
    with pytest.raises(SettingsError, match=r"but is 5\. Open it first: fm.privacy.Ledger\("):
        DP(epsilon=2, ledger=5)


@pytest.mark.parametrize(("unit", "other"), [("client", "example"), ("example", "client")])
def test_a_ledger_of_another_unit_is_refused(unit, other):
    with pytest.raises(SettingsError, match=f"each {other}, but unit is '{unit}'"):
        DP(epsilon=2, unit=unit, ledger=Ledger(unit=other))

    assert DP(epsilon=2, unit=unit, ledger=Ledger(unit=unit)).ledger is not None


@pytest.mark.parametrize(
    ("options", "named"),
    [({"simulation": True}, "simulation=True"), ({"population": 100, "cohort": 10}, "population=")],
    ids=["seeded", "larger"],
)
def test_a_simulation_charges_no_ledger(options, named):
    with pytest.raises(SettingsError, match=f"^{named} makes a simulation.*Leave ledger= out"):
        DP(epsilon=2, ledger=Ledger(), **options)
