"""What a run shows while it goes."""

import io
import os
import sys
import threading

import pytest

from folkmoot.core.errors import SettingsError
from folkmoot.train.events import Event
from folkmoot.train.progress import bar, lines, metrics_of, shown


def test_a_line_shows_two_metrics_and_not_the_quantiles_of_one():
    ends = ("", "_p10", "_median", "_p90", "_worst_decile")
    row = {f"clients_{name}{end}": 0.5 for name in ("loss", "rmse") for end in ends}

    assert metrics_of(row) == "loss 0.5000  rmse 0.5000"


def test_the_held_out_set_comes_before_clients_tests():
    row = {"test_loss": 0.25, "test_accuracy": 0.75, "clients_loss": 0.5, "clients_loss_p10": 0.5}

    assert metrics_of(row) == "loss 0.2500  accuracy 0.7500"


def test_a_display_that_is_no_function_is_refused():
    with pytest.raises(SettingsError, match="True, False, None"):
        shown("bar")


def row(number, advice=None):
    plain = {"answered": 3, "asked": 4, "train_s": 0.5, "skipped": None, "test_loss": 0.25}
    return {"round": number, "evaluated": True, **plain} | ({"advice": advice} if advice else {})


def test_advice_is_printed_below_its_round_once_for_each_kind(capsys):
    said = [None, "stalled: for 10", "stalled: for 11", "diverging: by 3", None, "stalled: again"]

    with lines() as listen:
        for number, advice in enumerate(said, 1):
            listen(Event("round", number, 6, row(number, advice)))

    printed = [line for line in capsys.readouterr().err.splitlines() if "advice" in line]
    assert printed == [
        "advice: stalled: for 10", "advice: diverging: by 3", "advice: stalled: again",
    ]  # fmt: skip


def test_a_bar_prints_advice_as_it_is_above_itself(capsys):
    with bar() as listen:
        listen(Event("round", 1, 2, row(1, "stalled: [bold] moves")))

    assert "advice: stalled: [bold] moves" in capsys.readouterr().err


class Terminal(io.StringIO):
    """A terminal on which the bar's thread, once it draws, does not end before a fork was tried."""

    def __init__(self):
        super().__init__()
        self.draws, self.forked = threading.Event(), threading.Event()

    def isatty(self):
        return True

    def write(self, text):
        if threading.current_thread() is not threading.main_thread():
            self.draws.set()
            self.forked.wait(0.5)
            self.draws.clear()
        return super().write(text)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_process_is_not_forked_while_the_bar_is_drawn_whose_locks_its_prints_need(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    with bar():
        assert terminal.draws.wait(60)
        pid = os.fork()
        if not pid:
            os._exit(terminal.draws.is_set())
        terminal.forked.set()
        _, status = os.waitpid(pid, 0)

    assert status == 0
