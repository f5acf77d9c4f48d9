"""`folkmoot bench --codecs`: every codec that compresses, its bits and error, and marked bars."""

import json

import pytest
import torch
from typer.testing import CliRunner

from folkmoot import codecs as fm_codecs
from folkmoot.cli import commands
from folkmoot.cli.bench import codec_rounds, codecs, tables

ABOUT = {"cpu": "a CPU", "cores": 2, "memory_gib": 8.0, "torch": "2.13.0", "python": "3.11.7"}
# 4,096 numbers: 4 bytes for a scale.
BITS = {
    "bf16": 16,
    "quantize(8)": 8 + 32 / 4096,
    "quantize(1)": 1 + 32 / 4096,
    "qsgd(16, block=512)": 6 + 32 / 512,
    "random_k(0.01)": 32 * 41 / 4096,
    "rotate": 32,
    "eden(4)": 4 + 32 / 4096,
    "chain(rotate, quantize(2))": 2 + 32 / 4096,
}


def test_json_has_what_codecs_cost():
    threads = torch.get_num_threads()

    done = CliRunner().invoke(commands, ["bench", "--codecs", "--quick", "--json"])

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found) == {"codecs", "codec_rounds", "machine"}
    measured = found["codecs"]
    assert {name: measured[name]["bits"] for name in BITS} == pytest.approx(BITS, rel=1e-3)
    assert measured["eden(1)"]["nmse"] == pytest.approx(0.571, rel=0.1)
    assert measured["rotate"]["nmse"] < 1e-10
    assert all(figures["both_gb_s"] > 0 for figures in measured.values())
    rounds = found["codec_rounds"]
    assert set(rounds) == {"quantize(8)", "eden(1)", "eden(4)", "top_k(0.01)"}
    assert rounds["quantize(8)"]["up"] == pytest.approx(8 / 32, rel=1e-3)
    assert rounds["eden(1)"]["up"] == pytest.approx(1 / 32, rel=1e-3)
    assert rounds["quantize(8)"]["bars"] == {"time": 1.1}
    assert torch.get_num_threads() == threads


def test_the_bars_are_those_that_were_promised():
    bars = {line.codec.name: line.bar for line in codecs.LINES if line.bar}

    assert bars == {
        **{f"quantize({bits})": 0.5 for bits in (8, 4, 2, 1)},
        "top_k(0.01)": 0.5,
        "top_k(0.1)": 0.5,
        "chain(top_k(0.01), quantize(8))": 0.5,
        **{f"eden({bits})": 0.3 for bits in (1, 2, 4)},
        **{f"chain(rotate, quantize({bits}))": 0.3 for bits in (1, 2, 4)},
    }


def test_a_figure_is_bytes_of_float32_by_seconds_of_processor_time(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 4.5] * 3)
    monkeypatch.setattr(codecs, "process_time", lambda: next(clock))

    found = codecs.figures(codecs.Line(fm_codecs.quantize(8), bar=1.0), 1000, 2)

    assert found["encode_gb_s"] == pytest.approx(4000 / 1 / 1e9)
    assert found["decode_gb_s"] == pytest.approx(4000 / 3 / 1e9)
    assert found["both_gb_s"] == pytest.approx(4000 / 4 / 1e9)
    assert found["by_copy"] == pytest.approx(4 / 0.5)
    assert found["holds"] is False


def test_a_codec_below_its_bar_is_marked(capsys):
    figures = {
        "bits": 8.0, "nmse": 0.0002, "encode_gb_s": 0.6, "decode_gb_s": 0.9, "both_gb_s": 0.36,
        "by_copy": 100.0, "bar": 0.5, "holds": False, "others_cores": 0.0,
    }  # fmt: skip
    good = {**figures, "both_gb_s": 0.71, "holds": True}

    tables.show({"codecs": {"quantize(8)": figures, "eden(1)": good}, "machine": ABOUT})

    shown = capsys.readouterr().out
    assert shown.count("!") == 1
    assert "0.36 !" in shown and "0.71" in shown


def test_what_a_codec_adds_is_the_median_of_the_turns_ratios():
    turns = [
        {"none": (2.0, 4000), "eden(1)": (2.2, 125)},
        {"none": (4.0, 4000), "eden(1)": (4.8, 125)},
        {"none": (1.0, 4000), "eden(1)": (1.5, 125)},
    ]

    found = codec_rounds.figures(turns, 0.0)

    assert found["eden(1)"]["time"] == pytest.approx(1.2)  # of 1.1, 1.2 and 1.5
    assert found["eden(1)"]["plain_s"] == 2.0
    assert found["eden(1)"]["up"] == 125 / 4000
    assert found["eden(1)"]["holds"] == {"time": False}


def test_rounds_take_turns_and_the_first_turn_does_not_count():
    order = []

    class Round:
        def __init__(self, name):
            self.name = name

        def seconds(self):
            order.append(self.name)
            return float(len(order)), 1

    turns = codec_rounds.alternated({"none": Round("none"), "eden(1)": Round("eden(1)")}, 2)

    assert order == ["eden(1)", "none", "none", "eden(1)", "eden(1)", "none"]
    assert [turn["none"][0] for turn in turns] == [3.0, 6.0]


def test_a_round_above_its_bar_is_marked(capsys):
    figures = {
        "time": 1.18, "plain_s": 1.0, "up": 0.125, "bars": {"time": 1.1}, "holds": {"time": False},
        "others_cores": 0.0,
    }  # fmt: skip
    good = {**figures, "time": 1.03, "holds": {"time": True}}

    tables.show({"codec_rounds": {"eden(4)": figures, "quantize(8)": good}, "machine": ABOUT})

    shown = capsys.readouterr().out
    assert shown.count("!") == 1
    assert "1.18 !" in shown and "1.03" in shown and "0.1250" in shown
