"""A checkpoint is whole or not there, and a damaged one is never gone on from."""

import os
import signal
from pathlib import Path

import pytest
import torch

from folkmoot.core import tree as trees
from folkmoot.core.errors import CheckpointError, SettingsError
from folkmoot.train.checkpoint import (
    Stored,
    begin_anew,
    load_checkpoint,
    refuse_other_program,
    save_checkpoint,
    store_of,
)
from folkmoot.train.loop import Snapshot
from folkmoot.train.states import ClientStates

FACTS = {
    "history": [{"round": 1, "test_loss": float("nan")}],
    "best": ["test_loss", "lower", 0, 0.5],
}


def stored(round, own=None, store=None):
    state = {
        "params": {
            "0.weight": torch.arange(600.0) + round,
            "half": torch.ones(3, dtype=torch.bfloat16),
        },
        "buffers": {},
        "counts": {"steps": torch.tensor(7)},
        "round": torch.tensor(round),
    }
    snapshot = Snapshot(round, state, {"0": {}}, ClientStates(own, store))
    return Stored(snapshot, {}, FACTS, {})


def alike(one, other):
    pairs = zip(trees.items(one), trees.items(other), strict=True)
    return trees.empties(one) == trees.empties(other) and all(
        path == place and leaf.dtype == found.dtype and torch.equal(leaf, found)
        for (path, leaf), (place, found) in pairs
    )


def test_what_is_stored_comes_back_with_ids_dtypes_and_empty_trees(tmp_path):
    for own in (
        {3: {"a": torch.ones(2)}, 11: {"a": torch.zeros(2)}},
        {"north": {"b": torch.ones(())}},
        {},
    ):
        given = stored(4, own, store_of(tmp_path))

        save_checkpoint(tmp_path, given)
        found = load_checkpoint(tmp_path)

        assert found.snapshot.round == 4
        assert list(found.snapshot.own) == list(own)
        assert alike(found.snapshot.state, given.snapshot.state)
        assert alike(
            {str(k): v for k, v in found.snapshot.own.items()}, {str(k): v for k, v in own.items()}
        )
        assert found.best == {}
        assert repr(found.facts) == repr(FACTS)


def test_the_two_newest_are_kept_and_nothing_else(tmp_path):
    (tmp_path / ".checkpoint-0000002.safetensors.4711").write_bytes(b"half of a checkpoi")

    for round in range(1, 5):
        save_checkpoint(tmp_path, stored(round))

    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-0000003.safetensors", "checkpoint-0000004.safetensors"]


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "nowhere") is None


def flipped(at):
    def damage(data):
        place = at % len(data)
        return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]

    return damage


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "noise": lambda data: bytes(range(256)) * 4,
    "zeros": lambda data: bytes(len(data)),
    "a bit of the length": flipped(0),
    "a bit of the header": flipped(30),
    "a bit of the facts": flipped(400),
    "a bit of a weight": flipped(-1000),
    "the last bit": flipped(-1),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(tmp_path, damage):
    before = stored(1)
    save_checkpoint(tmp_path, before)
    newest = save_checkpoint(tmp_path, stored(2))
    newest.write_bytes(damage(newest.read_bytes()))

    with pytest.warns(UserWarning, match=r"checkpoint-0000002.* going on from round 1 instead"):
        found = load_checkpoint(tmp_path)

    assert found.snapshot.round == 1
    assert alike(found.snapshot.state, before.snapshot.state)


def test_every_flipped_bit_is_found(tmp_path):
    path = save_checkpoint(tmp_path, stored(1))
    whole = path.read_bytes()

    for at in range(0, len(whole), 37):
        path.write_bytes(flipped(at)(whole))
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path)


def test_with_every_checkpoint_damaged_each_is_named(tmp_path):
    for round in (1, 2):
        save_checkpoint(tmp_path, stored(round)).write_bytes(b"")

    with pytest.raises(
        CheckpointError, match=r"can be read: checkpoint-0000002.*checkpoint-0000001.*Remove"
    ):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("instant", ["replace", "fsync", "unlink"])
def test_a_kill_in_the_midst_of_writing_leaves_a_checkpoint(tmp_path, instant):
    for round in (1, 2):
        save_checkpoint(tmp_path, stored(round))

    pid = os.fork()
    if not pid:
        home = os if instant == "fsync" else Path
        setattr(home, instant, lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL))
        save_checkpoint(tmp_path, stored(3))
        os._exit(0)
    _, status = os.waitpid(pid, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    assert load_checkpoint(tmp_path).snapshot.round == (3 if instant == "unlink" else 2)


def test_a_new_run_does_not_overwrite_one_that_can_go_on(tmp_path):
    finished = tmp_path / "summary.json"
    save_checkpoint(tmp_path / "checkpoints", stored(7))

    with pytest.raises(SettingsError, match=r"checkpoint-0000007.* has not ended.*resume=True"):
        begin_anew(tmp_path / "checkpoints", finished)
    finished.touch()
    begin_anew(tmp_path / "checkpoints", finished)

    assert load_checkpoint(tmp_path / "checkpoints") is None
    assert not finished.exists()


def test_another_program_is_refused_with_each_setting_and_both_values():
    was, now = (
        {"seed": 1, "lr": 0.1, "same": 3, "initial_model": "a"},
        {"seed": 2, "same": 3, "mu": 0.5},
    )

    with pytest.raises(SettingsError) as found:
        refuse_other_program(was, now)

    assert "seed was 1 and is 2; mu was None and is 0.5; lr was 0.1 and is None." in str(
        found.value
    )
    refuse_other_program(was, {**was, "initial_model": "b"})


def test_of_many_other_settings_five_are_named():
    with pytest.raises(SettingsError, match=r"e was 1 and is 0; and 2 others\."):
        refuse_other_program(dict.fromkeys("abcdefg", 1), dict.fromkeys("abcdefg", 0))


def own_of(value, client=0):
    return {"a": torch.full((4,), float(value)), "of": torch.tensor(client)}


def rounds_with_states(folder, *cohorts):
    """Store a checkpoint after each round, in which some clients have renewed their states."""
    states = ClientStates(store=store_of(folder, 0))
    for round, cohort in enumerate(cohorts, 1):
        states = states.updated({client: own_of(round, client) for client in cohort})
        save_checkpoint(folder, stored(round)._replace(snapshot=snapshot_of(round, states)))
    return states


def snapshot_of(round, states):
    return stored(round).snapshot._replace(own=states)


def values_of(states):
    return {client: int(states[client]["a"][0]) for client in states}


def test_a_state_is_written_once_however_many_checkpoints_name_it(tmp_path):
    rounds_with_states(tmp_path, [1, 2, 3], [3], [4], [])

    # One file a round that renewed a state; the last round had none to write.
    assert len(list((tmp_path / "states").iterdir())) == 3
    assert values_of(load_checkpoint(tmp_path).snapshot.own) == {1: 1, 2: 1, 3: 2, 4: 3}


def test_files_of_states_that_no_kept_checkpoint_names_are_removed(tmp_path):
    rounds_with_states(tmp_path, [1, 2], [1, 2], [1, 2], [1, 2])

    # Each round has renewed all, so each of the two checkpoints names one file.
    assert len(list((tmp_path / "states").iterdir())) == 2
    (tmp_path / "checkpoint-0000004.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="going on from round 3"):
        assert values_of(load_checkpoint(tmp_path).snapshot.own) == {1: 3, 2: 3}


def test_a_run_that_goes_on_keeps_the_files_of_the_checkpoint_that_it_went_on_from(tmp_path):
    rounds_with_states(tmp_path, [1, 2], [1, 2])
    (tmp_path / "states" / ".half-written.states.17").write_bytes(b"by a process that was killed")
    found = load_checkpoint(tmp_path).snapshot

    following = found.own.updated({1: own_of(3, 1), 2: own_of(3, 2)})
    del found
    newest = save_checkpoint(tmp_path, stored(3)._replace(snapshot=snapshot_of(3, following)))

    assert len(list((tmp_path / "states").iterdir())) == 2
    newest.write_bytes(b"")
    with pytest.warns(UserWarning, match="going on from round 2"):
        assert values_of(load_checkpoint(tmp_path).snapshot.own) == {1: 2, 2: 2}


STATE_DAMAGE = {
    "missing": (lambda path: path.unlink(), "No such file"),
    "a flipped bit": (lambda path: path.write_bytes(flipped(-1)(path.read_bytes())), "the bytes"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "the bytes"),
    "other states": (lambda path: path.write_bytes(b"x"), "the bytes"),
}


@pytest.mark.parametrize(("damage", "said"), STATE_DAMAGE.values(), ids=STATE_DAMAGE)
def test_a_damaged_file_of_states_is_reported_and_the_checkpoint_before_it_used(
    tmp_path, damage, said
):
    rounds_with_states(tmp_path, [1, 2], [2])
    before = set((tmp_path / "states").iterdir())
    own = load_checkpoint(tmp_path).snapshot.own.updated({7: own_of(3, 7)})
    save_checkpoint(tmp_path, stored(3)._replace(snapshot=snapshot_of(3, own)))
    [newest] = set((tmp_path / "states").iterdir()) - before
    damage(newest)

    message = rf"checkpoint-0000003.*state of client 7 cannot.*{said}.*from round 2 instead"
    with pytest.warns(UserWarning, match=message):
        found = load_checkpoint(tmp_path)

    assert values_of(found.snapshot.own) == {1: 1, 2: 2}


def test_states_of_a_run_that_ended_stay_while_its_result_is_in_use(tmp_path):
    ended = rounds_with_states(tmp_path, [1, 2], [2])
    (tmp_path / "ended").touch()

    begin_anew(tmp_path, tmp_path / "ended")
    assert values_of(ended) == {1: 1, 2: 2}
    del ended
    begin_anew(tmp_path, tmp_path / "ended")

    assert list((tmp_path / "states").iterdir()) == []
