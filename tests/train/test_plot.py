"""The picture of a run: what is marked where, and that every odd run can be drawn."""

import dataclasses
import math
import os
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from folkmoot.core.errors import SettingsError
from folkmoot.data import picture
from folkmoot.train import plot
from folkmoot.train.panels import HELD_OUT, _apart, _edges
from folkmoot.train.plot import draw, inline_svg, write_picture

NAN = math.nan


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def seen(**values):
    return {"evaluated": True} | {f"test_{name}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml"), ("a.pdf", b"%PDF")]
)
def test_the_ending_chooses_the_format(judged, tmp_path, name, start):
    path = write_picture(tmp_path / "deep" / name, judged)

    assert path.read_bytes().startswith(start)


def test_another_ending_is_refused_with_those_that_are_known(by_hand, tmp_path):
    with pytest.raises(SettingsError, match=r"'run' ends in 'none'.*\.png, \.svg, \.pdf"):
        write_picture(tmp_path / "run", by_hand({}))


def test_the_best_round_is_marked_at_its_value(judged):
    figure = draw(judged)

    main = figure.axes[0]
    [ring] = [line for line in main.lines if line.get_markersize() == 8]
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([2], [0.875])
    assert "○ best 0.8750 in round 2" in texts(figure)


def test_the_held_out_curve_has_the_values_of_the_history(judged):
    [curve] = [
        line
        for line in draw(judged).axes[0].lines
        if line.get_color() == HELD_OUT and len(line.get_xdata()) == 3
    ]

    assert list(curve.get_xdata()) == [1, 2, 3]
    assert list(curve.get_ydata()) == [0.5, 0.875, 0.75]


def test_curves_are_named_beside_their_last_values(judged):
    said = texts(draw(judged))

    for label in (
        "held-out 0.7500",
        "clients' median 0.5000",
        "p10 0.2500",
        "p90 1.0000",
        "std 0.7500",
    ):
        assert label in said
    assert {"accuracy", "loss", "accuracy of 3 clients"} <= set(said)


def test_curves_of_clients_own_models_are_told_from_that_of_the_global_one(judged):
    own = dataclasses.replace(judged, settings=judged.settings | {"own_models": True})

    said = set(texts(draw(own)))

    assert {"global model 0.7500", "own models' median 0.5000"} <= said
    assert {"own models 0.5000", "accuracy of 3 clients' own models"} <= said


ODD = {
    "no rounds": [],
    "one round": [seen(loss=0.5, accuracy=0.5)],
    "no evaluation": [{}, {"left_out": [["$<b>", "$\\x"]]}],
    "nothing to judge by": [{"evaluated": True}],
    "a value between two NaNs": [seen(accuracy=v) for v in (NAN, 0.5, NAN)],
    "only NaN": [seen(accuracy=NAN, loss=NAN)] * 2,
    "an infinite loss": [seen(accuracy=0.5, loss=v) for v in (1.0, math.inf)],
    "a loss over many powers of ten": [seen(accuracy=0.5, loss=v) for v in (1e4, 1e-3)],
    "another metric than the chosen one": [seen(rmse=2.0)],
}


@pytest.mark.parametrize("rows", ODD.values(), ids=ODD)
def test_every_odd_run_can_be_drawn(by_hand, rows):
    result = by_hand(*rows, settings={"name": "a $name_{", "data": "$"})

    assert "a $name_{" in texts(draw(result))
    assert "<svg" in inline_svg(result, small=True)


@pytest.mark.parametrize("accuracies", [{"$x$": 0.5}, {1: NAN, 2: 1e20}, {1: NAN}], ids=str)
def test_odd_clients_can_be_drawn(by_hand, accuracies):
    assert "<svg" in inline_svg(by_hand({}, accuracies=accuracies))


def test_a_run_without_evaluation_shows_who_answered(by_hand):
    said = texts(draw(by_hand({}, {"answered": 3, "left_out": [[1, "late"]]})))

    assert {"not evaluated", "answered 7", "left out 1"} <= set(said)


def test_labels_that_would_touch_are_moved_apart_around_their_middle():
    assert _apart(np.array([0.5, 0.5]), 0.1) == pytest.approx([0.45, 0.55])
    assert _apart(np.array([0.0, 1.0]), 0.1) == [0.0, 1.0]
    # The third touches the two that were moved: all three stand around (0.5 + 0.5 + 0.56) / 3.
    assert _apart(np.array([0.5, 0.5, 0.56]), 0.1) == pytest.approx([0.42, 0.52, 0.62])


@pytest.mark.parametrize("values", [[0.5], [1e20, 1e20], [0.0, 1.0], [-3.0] * 900])
def test_bins_hold_every_value_and_are_5_to_24(values):
    edges = _edges(np.array(values))

    assert edges[0] <= min(values) and max(values) <= edges[-1]
    assert (np.diff(edges) > 0).all()
    assert 5 <= len(edges) - 1 <= 24


def test_an_inline_picture_takes_the_colours_of_its_page_and_needs_no_network(judged):
    svg = inline_svg(judged)

    assert "currentColor" in svg and HELD_OUT not in svg.replace(f"--held-out, {HELD_OUT}", "")
    assert "<metadata" not in svg and "<!DOCTYPE" not in svg
    assert 'aria-label="accuracy over 3 rounds"' in svg


def test_a_picture_is_the_same_bytes_each_time_and_leaves_matplotlibs_settings(judged, tmp_path):
    before = dict(matplotlib.rcParams)

    pictures = [write_picture(tmp_path / f"{name}.svg", judged).read_bytes() for name in "ab"]

    assert pictures[0] == pictures[1]
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_never_used(judged, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)

    assert draw(judged)._repr_png_().startswith(b"\x89PNG")


def test_matplotlib_keeps_nothing_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setattr(picture.tempfile, "gettempdir", lambda: str(tmp_path))

    with plot._matplotlib():
        pass

    assert Path(os.environ["MPLCONFIGDIR"]).parent == tmp_path
