"""Ctrl-C: the run ends at once, keeps its rounds, and leaves no process behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = "from folkmoot.cli import main; main()"


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_in_mid_run_ends_with_130_and_no_process_left(toy, here):
    words = ["run", "toy.py", "--workers", "2", "--set", "num_rounds=1000000", "--out", "a"]
    run = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # as a terminal does it, so that workers are interrupted as well
    )
    assert run.stderr.readline().startswith("round 1/1000000")
    workers = [
        int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    ]

    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=30)

    assert run.returncode == 130
    assert len(workers) == 2
    assert not any(is_alive(pid) for pid in workers)
    told = said.splitlines()[-2:]
    assert told[0] == "Interrupted."
    assert told[1].startswith("The rounds that were done are kept in a. To go on: folkmoot run")
    assert "Traceback" not in said
