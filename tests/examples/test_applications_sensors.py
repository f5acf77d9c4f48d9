"""The sensors' program ends as it promises, and its rows are what the stations measured."""

import runpy
import sys

import numpy as np
import pytest
import torch
from promises import EXAMPLES, form, promised, tidy

import folkmoot as fm

FOLDER = EXAMPLES / "sensors"
DATA = EXAMPLES.parent / "data"


@pytest.fixture
def inside(monkeypatch, tmp_path):
    """The application's folder, from which its files are imported, and an empty one to run in."""
    others = set(sys.modules)
    monkeypatch.setenv("FOLKMOOT_QUICK", "1")
    monkeypatch.setattr(sys, "argv", ["sensors"])
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - others:
        # Other applications call their files alike.
        if str(FOLDER) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def test_the_sensors_end_as_they_promise(inside, capsys):
    left = runpy.run_path(str(FOLDER))
    table = left["table"]

    line = tidy(capsys.readouterr().out)[-1]
    assert form(line) == form(promised(FOLDER / "__main__.py"))
    assert len(list(inside.glob("sensors-*.png"))) == 3
    # The last table is that of the people.
    assert 0 < table.interval("federated, private", "epsilon").mean <= 8
    rounds, buffers = (
        table.interval(way, "hours").mean for way in ("federated", "federated, buffers")
    )
    assert 0 < buffers < rounds
    ups = [table.interval(way, "MB up").mean for way in table.found if "eden" in way]
    assert ups[0] < table.interval("federated", "MB up").mean / 25


def test_air_holds_what_the_stations_measured_and_masks_what_they_did_not(inside):
    data = __import__("data")

    clients, tests = data.air()

    with np.load(DATA / "beijing_air" / "beijing_air.npz", allow_pickle=False) as file:
        raw = file["x"][file["client_names"].tolist().index("Gucheng")][:, 0].astype(float)
        step, first_test = float(file["step"][0]), int(file["split"].argmax())
    train = clients["Gucheng"].train
    # The quick form takes every fiftieth hour, from the first with a day behind it.
    hours = np.arange(23, len(raw) - 1, 50)
    hours = hours[hours + data.AHEAD < first_test]
    later = np.stack([raw[hour + 1 : hour + 1 + data.AHEAD] for hour in hours])
    measured = later != -32768
    used = measured.any(axis=1)
    assert np.array_equal(train["y"][:, data.AHEAD :], measured[used])
    assert len(train["y"]) == used.sum() and not measured[used].all()
    deviations = np.diff(later[used][:, :2] * step / data.PM25_DEVIATION)[:, 0]
    both = measured[used][:, :2].all(axis=1)
    change = (train["y"][:, 1] - train["y"][:, 0]).numpy()
    assert change[both] == pytest.approx(deviations[both], rel=1e-4, abs=1e-4)
    assert sum(len(client.test["y"]) for client in clients.values()) == len(tests["all"]["y"])


def test_air_errors_count_only_what_was_measured(inside):
    models = __import__("models")
    y = torch.zeros(2, 12)
    y[0, 6] = 1.0  # In the first row the first hour is known, in the second the last.
    y[1, 11] = 1.0
    outputs = torch.full((2, 6), 3.0)
    outputs[0, 0], outputs[1, 5] = 0.5, 0.25

    found = models.hours_off(outputs, y)

    assert found == pytest.approx({"RMSE 1 h": 0.5 * 80.1692, "RMSE 6 h": 0.25 * 80.1692})
    assert models.masked(outputs, y).tolist() == pytest.approx([0.5**2 / 6, 0.25**2 / 6])


def test_unseen_people_are_none_of_those_who_train(inside):
    people = __import__("people").people
    everyone, _ = fm.data.load("hapt")

    clients, tests = people()

    assert len(clients) == 21
    rows = sum(len(client.train["y"]) + len(client.test["y"]) for client in clients.values())
    assert rows + len(tests["unseen"]["y"]) == 5409
    # UCI HAR's test subjects 2, 4, 9, 10, 12, 13, 18, 20 and 24, counted from 1.
    assert set(everyone) - set(clients) == {1, 3, 8, 9, 11, 12, 17, 19, 23}
