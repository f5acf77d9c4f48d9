"""`folkmoot bench --fleet`: the time that is covered, the devices, and marked bars."""

import json

import pytest
from typer.testing import CliRunner

from folkmoot.cli import commands
from folkmoot.cli.bench import fleet, tables

ABOUT = {"cpu": "a CPU", "cores": 2, "memory_gib": 8.0, "torch": "2.13.0", "python": "3.11.7"}
DAYS = 0.14  # A hundredth of two weeks.


@pytest.mark.slow
def test_json_has_what_two_weeks_take():
    done = CliRunner().invoke(commands, ["bench", "--fleet", "--quick", "--json"])

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found) == {"fleet", "machine"}
    parts = found["fleet"]
    assert {name: one["devices"] for name, one in parts.items()} == {
        "rounds": 10_000, "buffers": 10_000, "run": 10_000
    }  # fmt: skip
    for one in parts.values():
        assert one["virtual_days"] >= DAYS - 1e-4
        assert one["attempts"] >= one["answers"] > 0
    # A round each 600 s; 130 devices are asked for 100 answers.
    assert parts["rounds"]["rounds"] == 21
    assert parts["rounds"]["attempts"] == 21 * 130
    assert parts["buffers"]["answers"] == 10 * parts["buffers"]["rounds"]
    assert parts["run"]["bars"] == {"seconds": 600, "peak_gib": 4}


def test_the_whole_run_is_of_a_million_devices_over_two_weeks():
    assert fleet.TRAINED == 1_000_000
    assert fleet.WEEKS_S == 2 * 7 * 24 * 3600
    assert fleet.BARS == {"seconds": 600, "peak_gib": 4}


def test_a_run_above_a_bar_is_marked(capsys):
    clock = {
        "devices": 10_000, "virtual_days": 14.0, "rounds": 2017, "attempts": 262_210,
        "seconds": 8.5, "others_cores": 0.0,
    }  # fmt: skip
    run = {
        **clock, "peak_gib": 4.5, "bars": fleet.BARS, "holds": {"seconds": True, "peak_gib": False}
    }  # fmt: skip

    tables.show({"fleet": {"rounds": clock, "run": run}, "machine": ABOUT})

    shown = capsys.readouterr().out
    assert shown.count("!") == 1
    assert "4.50 !" in shown and "262,210" in shown
