"""What a person gets from a result: its text, its rows, its model, and all of it again later."""

import copy
import gc
import math
import sys

import pandas
import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError
from folkmoot.train.outcome import Times
from folkmoot.train.result import ModelNotLoaded
from folkmoot.train.result import _times as times_of
from folkmoot.train.standing import Standing
from folkmoot.train.stopping import Best


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """The real run, saved."""
    return finished.save(tmp_path_factory.mktemp("runs") / "a")


def test_printing_a_real_run_names_its_metrics_engine_and_data(finished):
    text = str(finished)

    assert text.startswith("tiny\n")
    assert "3 rounds, 4 of 4 clients a round, seed 0" in text
    for what in (
        "accuracy",
        "loss",
        "worst",
        "decile",
        "std",
        "left out     nobody",
        "sequential",
        "torch",
    ):
        assert what in text
    assert finished.settings["data_fingerprint"][:12] in text


def test_a_result_shows_itself_in_one_line(judged):
    assert repr(judged) == "Result('a run', 3 rounds, accuracy 0.7500)"


def test_a_notebook_gets_a_table_and_a_curve_without_any_script(judged):
    html = judged._repr_html_()

    assert "<svg" in html and "0.8750" in html
    assert "<script" not in html
    assert "src=" not in html


def test_table_rows_are_the_history_with_the_same_columns_in_each(by_hand):
    result = by_hand({"left_out": [[1, "x"], [2, "y"]]}, {"evaluated": True, "test_accuracy": 0.5})

    first, second = result.table()

    assert list(first) == list(second)
    assert math.isnan(first.pop("test_accuracy"))
    assert first == result.history[0] | {"left_out": 2}
    assert second == result.history[1] | {"left_out": 0}


def test_a_frame_has_the_rows_of_the_table(finished):
    frame = finished.frame()

    assert isinstance(frame, pandas.DataFrame)
    assert frame["round"].tolist() == [1, 2, 3]
    assert frame["test_loss"].tolist() == [row["test_loss"] for row in finished.history]


def test_a_frame_without_pandas_says_what_to_install(by_hand, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(SettingsError, match=r"pip install pandas.*result\.table\(\)"):
        by_hand({}).frame()


def test_plot_returns_the_path_or_the_figure(judged, tmp_path):
    from matplotlib.figure import Figure

    assert judged.plot(tmp_path / "run.png") == tmp_path / "run.png"
    assert isinstance(judged.plot(), Figure)


def test_metrics_of_the_last_and_of_the_best_round_are_at_hand(judged):
    assert judged.metrics["test_accuracy"] == 0.75
    assert judged.best_metrics["test_accuracy"] == 0.875
    assert judged.traffic == (3_000, 6_000)


def test_weights_of_a_result_stay_when_its_model_is_trained_on(finished):
    model = finished.model
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.last.bias.add_(1)

    assert torch.equal(finished.state_dict["last.bias"], before["last.bias"])
    model.load_state_dict(before)


def test_everything_but_live_modules_is_equal_after_a_load(finished, folder):
    loaded = fm.load_result(folder)

    for name in ("best", "history", "clients", "settings", "times", "ended", "environment"):
        assert getattr(loaded, name) == getattr(finished, name), name
    assert loaded.peak_memory == finished.peak_memory
    same_tree(loaded.state, finished.state)
    same_tree(loaded.state_dict, finished.state_dict)
    same_tree(loaded.best_state_dict, finished.best_state_dict)
    assert str(loaded) == str(finished)


def same_tree(found, wanted):
    """Equal keys in equal order, dtypes, shapes and numbers."""
    assert list(found) == list(wanted)
    for key, leaf in wanted.items():
        if isinstance(leaf, dict):
            same_tree(found[key], leaf)
        else:
            assert found[key].dtype == leaf.dtype
            assert torch.equal(found[key], leaf)


def test_a_load_without_the_class_has_weights_and_says_what_to_pass_for_a_model(folder):
    loaded = fm.load_result(folder)

    with pytest.raises(ModelNotLoaded, match=r"load_result\(folder, model=.*result\.state_dict"):
        _ = loaded.model
    with pytest.raises(ModelNotLoaded, match=r"result\.best_state_dict"):
        _ = loaded.best_model
    assert getattr(loaded, "model", None) is None


def test_a_load_with_an_instance_fills_it(finished, folder, new_model):
    instance = new_model()

    loaded = fm.load_result(folder, model=instance)

    assert loaded.model is instance
    assert loaded.model.last.weight is loaded.model.first.weight
    same_tree(loaded.model.state_dict(), finished.state_dict)
    same_tree(loaded.best_model.state_dict(), finished.best_state_dict)
    assert loaded.best_model is not loaded.model


def test_another_model_is_refused_and_stays_as_it_was(folder):
    other = nn.Sequential(nn.Linear(2, 3))
    before = copy.deepcopy(other.state_dict())

    with pytest.raises(SettingsError, match=r"This Sequential is not .*: it has no first.weight"):
        fm.load_result(folder, model=other)
    same_tree(dict(other.state_dict()), dict(before))


def test_a_model_of_another_width_is_refused_with_both_shapes(folder, new_model):
    wide = new_model()
    wide.last = nn.Linear(2, 5)

    with pytest.raises(SettingsError, match=r"last.weight is \(5, 2\), in the run \(2, 2\)"):
        fm.load_result(folder, model=wide)


def test_a_class_in_place_of_a_model_is_refused(folder, new_model):
    with pytest.raises(SettingsError, match=r"must be an instance .* but is the class Tied"):
        fm.load_result(folder, model=new_model)


def test_seconds_of_a_resumed_run_are_at_least_those_of_its_rows():
    row = {"train_s": 6.0, "client_s": 4.0, "evaluation_s": 1.0}
    standing = Standing(None, [row, row], Best("test_loss", "lower"), {})

    # Two rows of 6 + 1 seconds, while this process ran for 5.
    assert times_of(standing, 5.0) == Times(14.0, 8.0, 2.0, 4.0)


def personal_run(folder, **options):
    """Train four clients that keep two layers, and save the run."""
    x = torch.randn(4, 12, 2, generator=torch.Generator().manual_seed(0))
    y = (x.sum(dim=2) > 0).long()
    clients = fm.data.from_function(
        range(4),
        lambda client: {"x": x[client, :8], "y": y[client, :8]},
        test=lambda client: {"x": x[client, 8:], "y": y[client, 8:]},
    )
    torch.manual_seed(3)
    built = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    work = fm.local.sgd(fm.classifier(built), lr=0.1, batch_size=4)
    given = {"rounds": 3, "cohort": 2, "personal": ["1.*", "3.*"], "workers": 1} | options
    return built, fm.run(fm.fedavg(work), clients, save=folder, progress=False, **given)


@pytest.mark.parametrize("options", [{}, {"client_memory": 0}, {"client_tests": False}], ids=str)
def test_clients_models_come_back_as_they_were(options, tmp_path):
    built, result = personal_run(tmp_path, **options)

    loaded = fm.load_result(tmp_path, model=copy.deepcopy(built))

    assert loaded.clients == result.clients
    for client, found in result.clients.items():
        same_tree(dict(loaded.clients[client].model.state_dict()), found.model.state_dict())
        assert not loaded.clients[client].model.training
    differ = [client for client, found in result.clients.items() if found.leaves()]
    assert len(differ) >= 2
    # Only personal leaves are stored: batch statistics and the last layer.
    names = {name for client in differ for name in result.clients[client].leaves()}
    assert {name.split(".")[0] for name in names} == {"1", "3"}


def test_clients_models_outlive_the_store_they_were_spilled_to(tmp_path):
    _, result = personal_run(tmp_path / "run", client_memory=0, client_tests=False)
    own = {client: found.model.state_dict() for client, found in result.clients.items()}
    spilled = list((tmp_path / "run").glob(".folkmoot-states-*"))
    assert len(spilled) == 1

    result.save(tmp_path / "copy")
    del result
    gc.collect()
    loaded = fm.load_result(tmp_path / "copy", model=personal_run(None)[0])

    assert not spilled[0].exists()
    for client, weights in own.items():
        same_tree(dict(loaded.clients[client].model.state_dict()), weights)


def test_a_clients_model_without_the_class_says_what_to_pass(tmp_path):
    personal_run(tmp_path)

    with pytest.raises(SettingsError, match=r"model of client 0 .*load_result\(folder, model="):
        _ = fm.load_result(tmp_path).clients[0].model


def test_without_personal_leaves_a_clients_model_is_the_global_one(finished, folder, new_model):
    loaded = fm.load_result(folder, model=new_model())

    same_tree(dict(loaded.clients[2].model.state_dict()), finished.state_dict)
    same_tree(dict(finished.clients[2].model.state_dict()), finished.state_dict)
    assert not (folder / "clients").exists()
