"""What a run shows while it goes."""

import pytest

from folkmoot.core.errors import SettingsError
from folkmoot.train.progress import metrics_of, shown


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
