"""States of clients are values, whether they lie in memory or in files."""

import gc
import os
import shutil

import pytest
import torch

from folkmoot.core.errors import CheckpointError, InfrastructureError
from folkmoot.train import store as stores
from folkmoot.train.states import ClientStates
from folkmoot.train.store import Store

# A state of 100 float32 takes 400 bytes and 512 for the tensor.
EACH = 912


def state(value):
    return {"c": {"w": torch.full((100,), float(value))}}


def value(states, client):
    tree = states[client]
    assert list(tree) == ["c"] and tree["c"]["w"].shape == (100,)
    return tree["c"]["w"][0].item()


def rounds_of(states, cohorts):
    """Give each client of a round the round's number."""
    for round, cohort in enumerate(cohorts, 1):
        states = states.updated({client: state(round) for client in cohort})
    return states


def files_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def bytes_in(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.fixture(params=[0, 2 * EACH, 2**30], ids=["no memory", "room for two", "room for all"])
def store(request, tmp_path):
    return Store(request.param, beside=tmp_path)


def test_a_round_does_not_write_into_the_states_it_began_with(store):
    first = rounds_of(ClientStates(store=store), [[1, 2, 3]])

    one = first.updated({2: state(20), 4: state(40)})
    other = first.updated({2: state(200)})
    third = rounds_of(other, [[1], [1, 2, 3], [3]])

    assert {client: value(first, client) for client in first} == {1: 1, 2: 1, 3: 1}
    assert {client: value(one, client) for client in one} == {1: 1, 2: 20, 3: 1, 4: 40}
    assert {client: value(other, client) for client in other} == {1: 1, 2: 200, 3: 1}
    assert {client: value(third, client) for client in third} == {1: 2, 2: 2, 3: 3}


def test_states_come_back_from_files_with_dtypes_shapes_and_empty_parts(tmp_path):
    given = {
        "b": torch.tensor(3),
        "a": {"half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16), "none": {}},
        "view": torch.arange(6.0).reshape(2, 3).T,
    }
    states = ClientStates({"no/rth": given}, Store(0, beside=tmp_path)).updated({"x": state(1)})

    found = states["no/rth"]

    assert len(files_in(next(tmp_path.iterdir()))) == 1
    assert found is not given
    assert list(found) == ["b", "a", "view"] and found["a"]["none"] == {}
    assert found["b"].dtype == torch.int64 and found["b"].shape == ()
    assert torch.equal(found["view"], given["view"])
    assert found["a"]["half"].view(torch.int16).equal(given["a"]["half"].view(torch.int16))


def test_a_mapping_of_states_has_what_a_dict_has(store):
    states = rounds_of(ClientStates(store=store), [["b", "a"], ["c"], ["a"]])

    assert list(states) == ["b", "a", "c"] and len(states) == 3
    assert "a" in states and "d" not in states
    assert states.get("d") is None
    with pytest.raises(KeyError):
        _ = states["d"]


def test_within_the_bound_nothing_is_written_and_no_folder_made(tmp_path):
    rounds_of(ClientStates(store=Store(4 * EACH, beside=tmp_path)), [[1, 2], [3], [1]])

    assert files_in(tmp_path) == []


def test_beyond_the_bound_those_that_were_renewed_longest_ago_leave(tmp_path):
    states = rounds_of(ClientStates(store=Store(3 * EACH, beside=tmp_path)), [[1, 2, 3], [1], [4]])

    [folder] = tmp_path.iterdir()
    [file] = folder.iterdir()
    file.unlink()

    # Before the third round memory is full to the brim, by those of 2, 3 and 1, in this order.
    assert {client: value(states, client) for client in (1, 3, 4)} == {1: 2, 3: 1, 4: 3}
    with pytest.raises(CheckpointError, match=r"state of client 2 .*\.states: No such file"):
        _ = states[2]


def test_a_round_writes_the_states_of_its_own_clients_only(tmp_path):
    states = ClientStates({client: state(0) for client in range(100)}, Store(0, tmp_path / "s"))
    states.named()
    before = files_in(tmp_path / "s")
    whole = bytes_in(tmp_path / "s")

    states = states.updated({7: state(1), 8: state(1)})
    states.named()

    assert len(files_in(tmp_path / "s")) == len(before) + 1
    assert set(before) < set(files_in(tmp_path / "s"))
    assert bytes_in(tmp_path / "s") == whole / 100 * 102


def test_a_temporary_folder_goes_with_the_last_states_that_need_it(tmp_path):
    states = rounds_of(ClientStates(store=Store(0, beside=tmp_path)), [[1], [2]])
    former, states = states, rounds_of(states, [[3]])

    del states
    gc.collect()
    assert value(former, 1) == 1
    del former
    gc.collect()

    assert files_in(tmp_path) == []


def test_a_forked_process_leaves_the_temporary_folder_alone(tmp_path):
    states = rounds_of(ClientStates(store=Store(0, beside=tmp_path)), [[1], [2]])

    pid = os.fork()
    if not pid:
        del states
        gc.collect()
        os._exit(0)
    os.waitpid(pid, 0)

    assert value(states, 1) == 1


def test_files_that_nobody_refers_to_are_removed(tmp_path):
    states = rounds_of(ClientStates(store=Store(0, beside=tmp_path)), [[1, 2], [1, 2], [1, 2]])
    [folder] = tmp_path.iterdir()
    former = states
    there = len(files_in(folder))

    states = rounds_of(states, [[1, 2]] * 5)

    # The last round's states are in memory; those of the one before it, and the former's, in files.
    assert there <= 2
    assert len(files_in(folder)) <= 3
    assert (value(former, 1), value(states, 1)) == (3, 5)
    del former
    states = rounds_of(states, [[1, 2]] * 2)
    assert len(files_in(folder)) <= 2


def test_files_do_not_grow_with_rounds_where_some_clients_never_come_again(tmp_path):
    # Each round renews 1 to 9, and asks one client for the only time.
    states = ClientStates(store=Store(0, beside=tmp_path))
    sizes = []

    for round in range(1, 101):
        states = states.updated({client: state(round) for client in [*range(1, 10), 100 + round]})
        if round > 1:
            [folder] = tmp_path.iterdir()
            sizes.append(bytes_in(folder) / (len(states) * 552))

    assert len(states) == 109
    assert max(sizes[20:]) < 3.5
    assert [value(states, 100 + round) for round in range(1, 101)] == list(range(1, 101))


def test_the_same_states_again_are_the_same_file(tmp_path):
    first = ClientStates(store=Store(0, beside=tmp_path)).updated({1: state(1)})
    [one, other] = [first.updated({2: state(2)}).updated({3: state(3)}) for _ in range(2)]
    [folder] = tmp_path.iterdir()

    del one
    other = other.updated({4: state(4)})

    assert [value(other, client) for client in other] == [1, 2, 3, 4]
    assert len(files_in(folder)) <= 3


def test_a_folder_that_was_removed_is_written_anew_though_earlier_states_live(tmp_path):
    earlier = rounds_of(ClientStates(store=Store(0, tmp_path / "s")), [[1], [2]])
    names, _ = earlier.named()
    shutil.rmtree(tmp_path / "s")

    again = rounds_of(ClientStates(store=Store(0, tmp_path / "s")), [[1], [2]])
    assert again.named()[0] == names

    assert files_in(tmp_path / "s") == sorted(names)
    assert [value(again, client) for client in again] == [1, 2]


def test_files_in_use_are_kept_by_whatever_name_their_folder_goes(tmp_path):
    states = rounds_of(ClientStates(store=Store(0, tmp_path / "s")), [[1], [2]])
    (tmp_path / "link").symlink_to(tmp_path / "s")

    stores.remove_unused(tmp_path / "link")

    assert value(states, 1) == 1


def test_a_state_whose_file_was_cut_is_named_with_its_file(tmp_path):
    states = rounds_of(ClientStates(store=Store(0, beside=tmp_path)), [[5], [6]])
    [folder] = tmp_path.iterdir()
    [file] = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(CheckpointError, match=rf"client 5 .*{file.name}.* has been cut.*resume="):
        _ = states[5]
    assert 5 in states


def test_a_full_disk_is_told_and_loses_nothing(tmp_path, monkeypatch):
    states = rounds_of(ClientStates(store=Store(0, tmp_path / "s")), [[1, 2]])

    def full(path, *data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stores, "write_atomically", full)
    with pytest.raises(InfrastructureError, match=r"states .* No space left.* client_memory="):
        states.updated({3: state(3)})
    monkeypatch.undo()

    assert [value(states, client) for client in states] == [1, 1]
    assert value(states.updated({3: state(3)}), 3) == 3


def test_many_states_are_cut_into_files_of_a_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "_FILE_BYTES", 2_000)
    states = ClientStates({client: state(client) for client in range(10)}, Store(0, tmp_path / "s"))

    states = states.updated({10: state(10)})

    # A state is written in 552 bytes, so a file is full with the fourth: 4 + 4 + 2.
    assert len(files_in(tmp_path / "s")) == 3
    assert max(path.stat().st_size for path in (tmp_path / "s").iterdir()) == 4 * 552
    assert [value(states, client) for client in states] == list(range(11))
