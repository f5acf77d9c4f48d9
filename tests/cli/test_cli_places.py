"""Where runs are kept: one folder each, named by time, never over another."""

from datetime import datetime

import pytest

from folkmoot.cli.places import Places
from folkmoot.core.errors import SettingsError


def noon():
    return datetime(2026, 3, 1, 12, 0, 0)


def with_checkpoint(folder):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "checkpoint-0000001.safetensors").touch()


def test_a_folder_is_named_by_time_and_run(here):
    places = Places(None, clock=noon)

    assert str(places("heart disease/α")) == "runs/20260301-120000-heart-disease-α"
    assert not (here / "runs").exists()


def test_two_runs_of_one_moment_have_two_folders(here):
    (here / "runs" / "20260301-120000-a").mkdir(parents=True)
    places = Places(None, clock=noon)

    assert [places("a").name, places("a").name, places("b").name] == [
        "20260301-120000-a-2",
        "20260301-120000-a-3",
        "20260301-120000-b",
    ]


def test_resuming_takes_the_newest_run_of_that_name_with_a_checkpoint(here):
    for name in ("20260301-110000-a", "20260301-113000-a", "20260301-114500-b"):
        with_checkpoint(here / "runs" / name)
    (here / "runs" / "20260301-115500-a").mkdir()

    assert Places(None, resume=True, clock=noon)("a").name == "20260301-113000-a"


def test_a_folder_that_holds_something_is_refused_unless_resumed(here):
    with_checkpoint(here / "kept")

    with pytest.raises(SettingsError, match="kept is not empty"):
        Places(here / "kept")
    assert Places(here / "kept", resume=True)("a") == here / "kept"
