"""A folder in which nothing can be kept is found before round 1, and nothing stays there."""

from pathlib import Path

import pytest

import folkmoot as fm
from folkmoot.core.errors import InfrastructureError, SettingsError
from folkmoot.train.folders import refuse_unwritable


def train(pull, line, **options):
    built = fm.fedavg(fm.local.sgd(line(1.0), lr=0.5))
    options = {"rounds": 1, "workers": 1, "progress": False} | options
    return fm.run(built, [pull(2.0)], **options)


@pytest.mark.parametrize("option", ["save", "checkpoint"])
@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_in_the_way_is_told_before_anything_is_trained(tmp_path, pull, line, option, below):
    (tmp_path / "taken").touch()
    heard = []

    with pytest.raises(
        InfrastructureError, match=rf"cannot be kept in .*taken.*, Not a dir.* folder by {option}="
    ):
        train(pull, line, callbacks=[heard.append], **{option: tmp_path / "taken" / below})

    assert not heard
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]


def test_a_file_where_checkpoints_belong_is_told_too(tmp_path, pull, line):
    (tmp_path / "checkpoints").touch()

    with pytest.raises(InfrastructureError, match=r"cannot be kept in .*checkpoints: Not"):
        train(pull, line, checkpoint=tmp_path)


def test_a_name_that_no_file_system_takes_is_told(tmp_path):
    with pytest.raises(InfrastructureError, match="File name too long"):
        refuse_unwritable("save=", tmp_path / ("n" * 1000))


def test_a_place_where_nobody_may_write_is_told():
    # Not even an administrator can make a folder here.
    with pytest.raises(InfrastructureError, match="cannot be kept in"):
        refuse_unwritable(
            "save=", Path("/proc/self/a" if Path("/proc/self").is_dir() else "/dev/a")
        )


def test_looking_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()

    for folder in (Path("there"), Path("not/yet"), tmp_path / "whole" / "path"):
        refuse_unwritable("save=", folder)

    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_a_run_that_is_refused_leaves_no_folder(tmp_path, pull, line):
    with pytest.raises(SettingsError):
        train(pull, line, save=tmp_path / "a", checkpoint=tmp_path / "b", cohort=9)

    assert not list(tmp_path.iterdir())
