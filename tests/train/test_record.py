"""The folder of a run: plain files that other programs read, and that come back as they were."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import folkmoot as fm
from folkmoot.core.errors import CheckpointError
from folkmoot.train import own_models, record
from folkmoot.train.evaluation import ClientResult
from folkmoot.train.record import plain, read_record, write_record

FILES = {
    "clients.csv", "environment.json", "history.jsonl", "metrics.csv", "model.safetensors",
    "settings.json", "state.safetensors", "summary.json",
}  # fmt: skip


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_saved_run_is_one_folder_with_picture_and_report(finished, tmp_path):
    folder = finished.save(tmp_path / "deep" / "a")

    found = {path.name for path in folder.iterdir()} - {"best_model.safetensors"}
    assert found == FILES | {"participation.csv", "plot.png", "report.html"}


def test_the_best_model_has_a_file_where_it_differs_and_none_where_it_does_not(by_hand, tmp_path):
    better = {"w": torch.ones(1)}
    result = by_hand({}, {}, best=(1, 0.5), best_state_dict=better)
    write_record(tmp_path, result)

    assert load_file(tmp_path / "best_model.safetensors")["w"].item() == 1
    assert read_record(tmp_path).best_state_dict["w"].item() == 1

    write_record(tmp_path, dataclasses.replace(result, best_state_dict=result.state_dict))
    again = read_record(tmp_path)
    assert again.best_state_dict is again.state_dict


def test_the_model_file_loads_strictly_into_tied_and_batch_norm_layers(
    finished, new_model, tmp_path
):
    write_record(tmp_path, finished)
    weights, model = load_file(tmp_path / "model.safetensors"), new_model()

    model.load_state_dict(weights, strict=True)

    x = torch.randn(5, 2)
    assert torch.equal(model.eval()(x), finished.model.eval()(x))
    counter = weights["norm.num_batches_tracked"]
    assert (counter.dtype, counter.shape) == (torch.int64, ())


def test_the_model_file_says_where_it_comes_from(finished, tmp_path):
    write_record(tmp_path, finished)

    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        about = json.loads(file.metadata()["folkmoot"])

    assert (about["name"], about["algorithm"], about["round"]) == ("tiny", "fedavg", 3)
    assert about["data_fingerprint"] == finished.settings["data_fingerprint"]


def test_half_precision_odd_names_and_channels_last_come_back(by_hand, tmp_path):
    image = torch.arange(16.0).reshape(1, 2, 2, 4).contiguous(memory_format=torch.channels_last)
    weights = {"a/b.w": torch.ones(2, dtype=torch.bfloat16), "%2F": image, "n": torch.tensor(3)}
    write_record(tmp_path, by_hand({}, state_dict=weights, best_state_dict=weights))

    found = read_record(tmp_path).state_dict

    assert list(found) == list(weights)
    assert all(torch.equal(found[name], leaf) for name, leaf in weights.items())
    assert found["a/b.w"].dtype == torch.bfloat16


def test_what_an_algorithm_keeps_beside_the_model_comes_back(by_hand, tmp_path):
    weights = {"w": torch.ones(2), "frozen": torch.zeros(1)}
    moments = {"momentum": {"w": torch.full((2,), 0.5)}, "step": torch.tensor(4)}
    params = {"w": torch.ones(2)}
    state = {"params": params, "buffers": {}, "counts": {}, "optimizer": moments, "empty": {}}
    write_record(tmp_path, by_hand({}, state_dict=weights, state=state))

    found = read_record(tmp_path).state

    assert list(found) == list(state)
    assert found["buffers"] == found["counts"] == found["empty"] == {}
    assert found["params"]["w"].tolist() == [1, 1]
    assert found["optimizer"]["momentum"]["w"].tolist() == [0.5, 0.5]
    assert found["optimizer"]["step"].item() == 4


def test_parameters_that_are_not_the_model_files_are_kept_as_they_are(by_hand, tmp_path):
    state = {"params": {"w": torch.full((1,), 9.0)}}
    write_record(tmp_path, by_hand({}, state_dict={"w": torch.zeros(1)}, state=state))

    assert read_record(tmp_path).state["params"]["w"].item() == 9


def test_nan_and_infinity_are_valid_json_and_come_back(by_hand, tmp_path):
    row = {"evaluated": True, "test_loss": math.inf, "test_accuracy": math.nan}
    accuracies = {1: math.nan, 2: -math.inf}
    write_record(tmp_path, by_hand(row, {}, accuracies=accuracies, settings={"lr": math.nan}))

    for path in [*tmp_path.glob("*.json"), *tmp_path.glob("*.jsonl")]:
        for line in (
            path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        ):
            json.loads(line, parse_constant=refuse)
    found = read_record(tmp_path)
    assert found.history[0]["test_loss"] == math.inf
    assert math.isnan(found.history[0]["test_accuracy"])
    assert found.history[0]["skipped"] is None
    assert math.isnan(found.best.value)
    assert math.isnan(found.clients[1].metrics["accuracy"])
    assert found.clients[2].metrics["accuracy"] == -math.inf


@pytest.mark.parametrize(
    "clients", [[7, 12], ["7", "012"], ['a,"b"', "c\nd", "c\rd", "", "é<b>"]], ids=str
)
def test_client_ids_come_back_with_their_type(by_hand, tmp_path, clients):
    lost = [[clients[0], "too\nlate"]]
    result = by_hand({"left_out": lost}, accuracies=dict.fromkeys(clients, 0.1))
    write_record(tmp_path, result)

    found = read_record(tmp_path)

    assert found.clients == result.clients
    assert found.history == result.history
    assert [type(client) for client in found.clients] == [type(clients[0])] * len(clients)


def test_metrics_are_readable_as_csv_and_empty_where_nothing_was_measured(by_hand, tmp_path):
    rows = {"left_out": [[1, "x"]]}, {"evaluated": True, "test_accuracy": math.nan}
    write_record(tmp_path, by_hand(*rows))

    first, second = rows_of(tmp_path / "metrics.csv")

    assert (first["round"], first["left_out"], first["test_accuracy"]) == ("1", "1", "")
    assert (second["round"], second["left_out"], second["test_accuracy"]) == ("2", "0", "nan")


def test_clients_are_readable_as_csv(judged, tmp_path):
    write_record(tmp_path, judged)

    assert rows_of(tmp_path / "clients.csv")[0] == {
        "id": "1", "examples": "5", "accuracy": "0.25", "loss": "0.75",
    }  # fmt: skip


def test_a_client_that_has_a_model_and_was_not_judged_has_no_metrics(by_hand, tmp_path):
    result = by_hand({"evaluated": True, "test_loss": 1.0}, accuracies={2: math.nan})
    result.clients[1] = ClientResult(1, 0, {})
    result.clients[3] = ClientResult(3, 0, {})
    result = dataclasses.replace(result, clients=dict(sorted(result.clients.items())))

    write_record(tmp_path, result)
    found = read_record(tmp_path)

    rows = rows_of(tmp_path / "clients.csv")
    assert rows[0] == {"id": "1", "examples": "0", "accuracy": "", "loss": ""}
    assert rows[1] == {"id": "2", "examples": "5", "accuracy": "nan", "loss": "nan"}
    assert found.clients[1] == result.clients[1] and found.clients[3] == result.clients[3]
    assert math.isnan(found.clients[2].metrics["accuracy"])
    assert list(found.judged) == [2]


def with_leaves(result, leaves):
    clients = {
        client: ClientResult(client, 0, {}, leaves=lambda tree=tree: tree)
        for client, tree in leaves.items()
    }
    return dataclasses.replace(result, clients=clients)


def test_leaves_of_clients_models_are_readable_by_safetensors_alone(by_hand, tmp_path):
    own = {"a/b": {"w": torch.ones(2)}, "a%": {"w": torch.zeros(2), "0.b/c": torch.ones(())}}

    write_record(tmp_path, with_leaves(by_hand(), own | {"none": {}}))
    found = read_record(tmp_path).clients

    flat = load_file(tmp_path / "clients" / "0000.safetensors")
    assert set(flat) == {"a%2Fb/w", "a%25/w", "a%25/0.b/c"}
    assert found["none"].leaves is None
    for client, leaves in own.items():
        read = found[client].leaves()
        assert list(read) == list(leaves)
        assert all(torch.equal(read[name], leaf) for name, leaf in leaves.items())


def test_clients_models_are_in_several_files_and_those_of_an_earlier_run_go(
    by_hand, tmp_path, monkeypatch
):
    monkeypatch.setattr(own_models, "_FILE_BYTES", 80)
    leaves = {client: {"w": torch.full((10,), float(client))} for client in range(5)}

    write_record(tmp_path, with_leaves(by_hand(), leaves))
    # A result reads its leaves from the folder that it is saved to again.
    write_record(tmp_path, read_record(tmp_path))
    names = sorted(path.name for path in (tmp_path / "clients").iterdir())
    again = read_record(tmp_path).clients
    values = [again[client].leaves()["w"][0].item() for client in again]
    write_record(tmp_path, with_leaves(by_hand(), {1: {"w": torch.ones(1)}}))

    # Two of 40 bytes fill a file.
    assert names == ["0000.safetensors", "0001.safetensors", "0002.safetensors"]
    assert values == [0, 1, 2, 3, 4]
    assert [path.name for path in (tmp_path / "clients").iterdir()] == ["0000.safetensors"]


def test_what_others_have_put_beside_clients_models_stays_and_is_not_read(by_hand, tmp_path):
    theirs = tmp_path / "clients"
    (theirs / "a folder").mkdir(parents=True)
    for name in ("hospital.csv", "hospital.safetensors", "0.safetensors"):
        (theirs / name).write_text("data")

    write_record(tmp_path, with_leaves(by_hand(), {1: {"w": torch.ones(1)}}))
    found = read_record(tmp_path).clients[1].leaves()
    write_record(tmp_path, by_hand())

    assert found["w"].item() == 1
    left = sorted(path.name for path in theirs.iterdir())
    assert left == ["0.safetensors", "a folder", "hospital.csv", "hospital.safetensors"]


def test_models_of_another_run_in_the_folder_are_not_taken_for_those_that_were_loaded(
    by_hand, tmp_path
):
    write_record(tmp_path, with_leaves(by_hand(), {1: {"w": torch.ones(1)}}))
    earlier = read_record(tmp_path).clients[1]
    write_record(tmp_path, read_record(tmp_path))
    assert earlier.leaves()["w"].item() == 1

    write_record(tmp_path, with_leaves(by_hand(), {1: {"w": torch.zeros(1)}}))

    with pytest.raises(CheckpointError, match=r"client 1 cannot .*has changed since.*again"):
        earlier.leaves()


def test_damage_to_a_clients_model_is_told(by_hand, tmp_path):
    write_record(tmp_path, with_leaves(by_hand(), {1: {"w": torch.ones(9)}}))
    read = read_record(tmp_path)
    path = tmp_path / "clients" / "0000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(CheckpointError, match=r"model of client 1 cannot .*0000\.safetensors"):
        read.clients[1].leaves()
    with pytest.raises(CheckpointError, match=r"0000\.safetensors is damaged.*Save the run again"):
        read_record(tmp_path)


def test_a_run_without_rounds_or_clients_comes_back(by_hand, tmp_path):
    write_record(tmp_path, by_hand())

    found = read_record(tmp_path)

    assert (found.history, found.clients, found.rounds) == ([], {}, 0)


def test_the_same_run_saved_twice_has_the_same_bytes(finished, tmp_path):
    for name in "ab":
        write_record(tmp_path / name, finished)

    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_numbers_of_numpy_and_torch_are_plain_and_tuples_are_lists():
    given = {"a": np.float32(0.5), "b": (np.int64(1), torch.tensor(2)), 3: {"c"}, "d": math.nan}

    assert plain(given) == {"a": 0.5, "b": [1, 2], "3": ["c"], "d": None}
    assert plain([np.bool_(True), None, -math.inf]) == [True, None, "-Infinity"]
    assert plain(np.arange(3)) == [0, 1, 2]


def test_a_save_that_breaks_off_leaves_no_run_to_be_loaded(by_hand, tmp_path, monkeypatch):
    write_record(tmp_path, by_hand({}))

    def full(path, data):
        if path.name == "clients.csv":
            raise OSError("disk full")
        path.write_bytes(data)

    monkeypatch.setattr(record, "write_atomically", full)
    with pytest.raises(OSError, match="disk full"):
        write_record(tmp_path, by_hand({}, {}))

    with pytest.raises(CheckpointError, match=r"holds no finished run: there is no summary\.json"):
        read_record(tmp_path)


def test_a_folder_with_checkpoints_only_says_how_to_go_on(tmp_path):
    (tmp_path / "checkpoints").mkdir()

    with pytest.raises(CheckpointError, match=r"a run that has not ended: .*resume=True"):
        fm.load_result(tmp_path)


def test_a_damaged_file_is_named(by_hand, tmp_path):
    write_record(tmp_path, by_hand({}))
    for name in ("model.safetensors", "history.jsonl", "settings.json"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2] + b"\n")
        with pytest.raises(CheckpointError, match=f"{name} is damaged"):
            fm.load_result(tmp_path)
        (tmp_path / name).write_bytes(whole)


def test_a_lost_file_is_named(by_hand, tmp_path):
    write_record(tmp_path, by_hand({}))
    (tmp_path / "clients.csv").unlink()

    with pytest.raises(CheckpointError, match=r"has lost its clients\.csv"):
        fm.load_result(tmp_path)


def test_a_later_format_is_refused(by_hand, tmp_path):
    write_record(tmp_path, by_hand({}))
    summary = json.loads((tmp_path / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"format": 2}))

    with pytest.raises(CheckpointError, match="written in format 2, but this folkmoot reads"):
        fm.load_result(tmp_path)
