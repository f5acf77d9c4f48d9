"""`folkmoot bench --remote`: a step at a worker is one message, and what it costs is told."""

import json

from typer.testing import CliRunner

from folkmoot.cli import commands
from folkmoot.cli.bench import tables

ABOUT = {"cpu": "one", "cores": 2, "memory_gib": 1, "torch": "2", "python": "3"}


def test_a_step_at_a_worker_is_one_message():
    done = CliRunner().invoke(commands, ["bench", "--remote", "--quick", "--json"])

    found = json.loads(done.stdout)
    assert set(found) == {"remote", "machine"}
    assert found["remote"]["messages_a_step"] == 1
    assert found["remote"]["bar"] == 3
    assert found["remote"]["holds"] == (found["remote"]["ratio"] <= 3)


def test_the_table_shows_the_ratio_and_warns_of_other_programs(capsys):
    tables.show({"remote": {"ratio": 2.5, "bar": 3.0, "others_cores": 1.0}, "machine": ABOUT})

    told = capsys.readouterr().out
    assert "2.5" in told
    assert "do not trust it" in told
