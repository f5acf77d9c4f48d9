"""The front: what the command line decides reaches runs that know nothing of it, and only those."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.train.front import Checked, Front, behind, current


def train(**options):
    clients = [(torch.ones(4, 2), torch.tensor([0, 1, 0, 1])) for _ in range(3)]
    work = fm.local.sgd(fm.classifier(nn.Linear(2, 2)), lr=0.1)
    return fm.run(fm.fedavg(work), clients, **{"rounds": 2, "progress": False, **options})


def test_a_run_behind_a_front_takes_its_workers_name_and_folder(tmp_path):
    front = Front(workers=1, name="mine", place=lambda name: tmp_path / name, app={"app": "a.py"})

    with behind(front):
        result = train(workers=2)

    assert result.settings["engine"] == "sequential"
    assert result.settings["name"] == "mine"
    assert result.settings["app"] == "a.py"
    assert (tmp_path / "mine" / "model.safetensors").exists()
    assert list((tmp_path / "mine" / "checkpoints").iterdir())


def test_folders_that_the_app_names_itself_are_written_too(tmp_path):
    with behind(Front(place=lambda name: tmp_path / "front")):
        train(workers=1, save=tmp_path / "own", checkpoint=tmp_path / "kept")

    for folder in ("front", "own", "kept"):
        assert (tmp_path / folder / "model.safetensors").exists()
    assert not (tmp_path / "front" / "checkpoints").exists()


def test_the_fronts_display_takes_the_place_of_the_apps():
    seen = []

    @contextmanager
    def display():
        yield lambda event: seen.append(event.kind)

    with behind(Front(progress=display)):
        train(workers=1)

    assert seen == ["start", "round", "round", "end"]


def test_a_front_that_checks_ends_the_app_with_the_report():
    with pytest.raises(Checked) as checked, behind(Front(checks=True)):
        train()

    assert checked.value.report.ok
    assert checked.value.report.rounds == 2


def test_outside_of_the_block_nothing_stands_in_front():
    with behind(Front(workers=1)):
        pass

    assert current() == Front()
