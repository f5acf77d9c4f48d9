"""Judging personal models: values and gaps worked by hand, on clients whose optima differ."""

import math

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.train.compared import Gap, gap
from folkmoot.train.evaluation import ClientResult

OPTIMA = {"a": 0.0, "b": 4.0}


def number(start=0.0):
    """A model of one number w; on data (1, c) its loss is (w - c)^2, of gradient 2 (w - c)."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, start)
    return model


def clients(optima=OPTIMA, tested=None):
    def data(client):
        return {"x": torch.ones(2, 1), "y": torch.full((2, 1), optima[client])}

    def test(client):
        return data(client) if client in (tested or optima) else None

    return fm.data.from_function(optima, data, test=test)


def work(lr=0.5):
    """One step over all rows; at a rate of 0.5 it ends at the optimum, at 0.25 halfway there."""
    return fm.local.sgd(fm.regressor(number()), lr=lr, batch_size=None)


def run(algorithm, rounds=1, **more):
    engine = fm.engines.sequential()
    return fm.run(algorithm, clients(), rounds=rounds, engine=engine, progress=False, **more)


def evaluate(result, data=None, **more):
    given = {"engine": fm.engines.sequential(), **more}
    return fm.evaluate(result, data or clients(), **given)


def losses(results):
    return {client: found.metrics["loss"] for client, found in results.items()}


@pytest.fixture
def average():
    """FedAvg's model, the mean of the optima: 2."""
    return run(fm.fedavg(work()))


@pytest.fixture
def own():
    """Models of their own after a step of a quarter: 0 and 2, losses 0 and 4."""
    return run(fm.fedavg(work(lr=0.25)), personal="weight", name="own")


def test_the_global_model_is_judged_on_each_clients_tests(average):
    found = evaluate(average)

    assert losses(found.clients) == {"a": 4.0, "b": 4.0}  # (2 - 0)^2, (2 - 4)^2
    assert found.clients["a"].model.weight.item() == 2.0
    assert (found.baselines, found.gaps) == ({}, {})


def test_own_models_are_judged_on_each_clients_tests(own):
    found = evaluate(own, personal=True, baselines=False)

    assert losses(found.clients) == {"a": 0.0, "b": 4.0}
    assert found.clients["b"].model.weight.item() == 2.0


def test_values_are_summarised_over_clients(own):
    found = evaluate(own, personal=True, baselines=False).metrics

    # Of 0 and 4: quantiles between them, and the worst tenth is the worse one.
    names = ("", "_p10", "_median", "_p90", "_worst_decile", "_std")
    values = [found[f"clients_loss{end}"] for end in names]
    assert values == pytest.approx([2.0, 0.4, 2.0, 3.6, 4.0, 2.0])


def test_local_training_reaches_each_optimum_and_global_training_the_mean(average):
    found = evaluate(average, personal=True)

    assert losses(found.baselines["local"]) == {"a": 0.0, "b": 0.0}
    assert losses(found.baselines["global"]) == {"a": 4.0, "b": 4.0}
    assert found.gaps["local"]["loss"] == Gap(4.0, 0.0, 1.0)
    assert found.gaps["global"]["loss"] == Gap(0.0, 0.0, 0.0)
    # Who has no other model than the global one is not said to have one.
    assert not found.personal and "2 clients, each with the global model" in str(found)


def test_gaps_are_those_of_personal_models(own):
    found = evaluate(own, personal=True, work=work())

    # Losses 0 and 4, against 0 and 0 alone, and 4 and 4 of the mean.
    assert found.gaps["local"]["loss"] == Gap(2.0, 0.0, 0.5)
    assert found.gaps["global"]["loss"] == Gap(-2.0, 0.5, 0.0)


def test_the_global_model_too_is_compared_where_that_is_asked(average):
    assert evaluate(average, baselines=True).gaps["local"]["loss"] == Gap(4.0, 0.0, 1.0)


def test_clients_train_alone_as_often_as_they_were_asked_on_average():
    half = run(fm.fedavg(work(lr=0.25)), rounds=4, cohort=1)

    found = evaluate(half, personal=True)

    # 4 rounds * 1 / 2: two steps, 4 (1 - 0.5^2) = 3, and (3 - 4)^2 = 1.
    assert losses(found.baselines["local"]) == {"a": 0.0, "b": 1.0}


def test_the_global_baseline_asks_the_same_cohorts():
    half = run(fm.fedavg(work()), rounds=3, cohort=1, seed=5)

    assert evaluate(half, personal=True).gaps["global"]["loss"] == Gap(0.0, 0.0, 0.0)


def test_rounds_that_were_not_run_do_not_count_for_baselines():
    stopped = run(fm.fedavg(work(lr=0.25)), rounds=9, stop=lambda history: len(history) == 1)

    found = evaluate(stopped, personal=True)

    assert losses(found.baselines["local"]) == {"a": 0.0, "b": 4.0}  # One step: (2 - 4)^2.


def test_a_client_who_was_never_asked_has_the_model_it_would_begin_with():
    one = run(
        fm.fedavg(work()), personal="weight", sampling=fm.sampling.fixed("b"), client_tests=False
    )

    found = evaluate(one, personal=True, baselines=False)

    assert list(one.clients) == ["b"]
    assert losses(found.clients) == {"a": 0.0, "b": 0.0}
    assert found.clients["a"].model.weight.item() == 0.0


def test_a_fine_tuned_run_is_set_beside_baselines_of_its_base():
    base = run(fm.fedavg(work(lr=0.25)), rounds=2)
    tuned = fm.finetune(base, clients(), work(), progress=False)

    found = evaluate(tuned, personal=True)

    assert losses(found.clients) == {"a": 0.0, "b": 0.0}
    # Two rounds of half a way: 3 for b alone; together 1, then 1.5.
    assert losses(found.baselines["local"]) == {"a": 0.0, "b": 1.0}
    assert losses(found.baselines["global"]) == {"a": 2.25, "b": 6.25}


def test_baselines_can_be_used_again(average, own):
    first = evaluate(average, personal=True)

    again = evaluate(own, personal=True, baselines=first)

    assert again.gaps["global"]["loss"] == Gap(-2.0, 0.5, 0.0)
    assert again.baselines == first.baselines


def test_clients_without_tests_are_left_out(average):
    found = evaluate(average, clients(tested="b"), personal=True)

    assert list(found.clients) == ["b"]
    assert list(found.baselines["local"]) == ["b"]
    assert found.gaps["local"]["loss"].mean == 4.0


def test_people_who_took_no_part_may_judge_the_global_model(average):
    found = evaluate(average, clients({"new": 5.0}))

    assert losses(found.clients) == {"new": 9.0}  # (2 - 5)^2


def test_models_of_more_clients_than_are_held_at_once_are_judged():
    optima = {client: float(client) for client in range(150)}
    many = fm.run(
        fm.fedavg(work()), clients(optima), rounds=1, personal="weight", client_tests=False
    )

    found = evaluate(many, clients(optima), personal=True, baselines=False)

    assert list(found.clients) == list(range(150))
    assert found.metrics["clients_loss"] == 0.0


def test_a_gap_counts_clients_by_the_direction_of_the_metric():
    def results(*values):
        sums = {"score": torch.zeros(2)}
        return {
            client: ClientResult(client, 1, {"score": value}, sums)
            for client, value in enumerate(values)
        }

    mine, theirs = results(0.9, 0.5, 0.25, math.nan), results(0.4, 0.5, 0.5, 0.5)
    higher = fm.metrics.accuracy()._replace(name="score")

    # (0.5 + 0 - 0.25) / 3; the client without a value is left out.
    third = pytest.approx(1 / 3)
    assert gap(mine, theirs, higher) == (pytest.approx(0.25 / 3), third, third)
    assert gap(theirs, mine, higher._replace(better="lower")) == (
        pytest.approx(-0.25 / 3),
        third,
        third,
    )
    assert all(map(math.isnan, gap(results(math.nan), results(1.0), higher)))


def test_a_model_that_is_not_finite_makes_the_gap_not_finite_either():
    def results(value, total):
        sums = {"score": torch.tensor([total])}
        return {client: ClientResult(client, 1, {"score": value}, sums) for client in "ab"}

    metric = fm.metrics.accuracy()._replace(name="score")

    assert math.isnan(gap(results(0.5, 0.5), results(math.nan, math.nan), metric).mean)


def test_an_evaluation_prints_as_a_table(own):
    text = str(evaluate(own, personal=True, work=work()))

    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[:2] == ["own", "2 clients, each with its own model"]
    assert "clients' own tests all together p10 median p90 worst decile std" in lines
    assert "loss 2.0000 0.4000 2.0000 3.6000 4.0000 2.0000" in lines
    assert "against global only mean gap better off worse off" in lines
    assert "loss -2.0000 50 % 0 %" in lines
    assert max(map(len, text.splitlines())) <= 80


def test_an_evaluation_has_a_row_a_client(own):
    found = evaluate(own, personal=True, work=work())

    row = found.table()[1]
    assert (row["id"], row["examples"], row["loss"]) == ("b", 2, 4.0)
    assert (row["loss_local"], row["loss_global"]) == (0.0, 4.0)
    assert repr(found) == "Evaluation('own', 2 clients, loss 2.0000)"


def test_a_run_without_a_global_model_is_refused(own):
    with pytest.raises(fm.SettingsError, match=r"has none: weight .* personal=True"):
        evaluate(own)


def test_clients_of_another_federation_are_refused(own, average):
    with pytest.raises(fm.SettingsError, match="'new' took no part in this run"):
        evaluate(own, clients({"new": 5.0}), personal=True)
    with pytest.raises(fm.DataError, match="no client 'new'"):
        evaluate(average, clients({"new": 5.0}), baselines=True)


def test_clients_without_any_tests_are_refused(average):
    data = {client: (torch.ones(2, 1), torch.ones(2, 1)) for client in OPTIMA}

    with pytest.raises(fm.SettingsError, match="None of the 2 clients has test examples"):
        evaluate(average, data)
    with pytest.raises(fm.SettingsError, match="None of the 2 clients has test examples"):
        evaluate(average, clients(tested="c"))


def test_what_is_no_result_and_no_baseline_is_refused(average):
    with pytest.raises(fm.SettingsError, match=r"result of a run first, .* was given a Linear"):
        evaluate(number())
    with pytest.raises(fm.SettingsError, match=r"earlier Evaluation .* but is a Result"):
        evaluate(average, baselines=average)
    with pytest.raises(fm.SettingsError, match="has no baselines to use again"):
        evaluate(average, baselines=evaluate(average))


def test_baselines_of_other_clients_are_refused(average):
    one = evaluate(average, clients(tested="b"), personal=True)

    with pytest.raises(fm.SettingsError, match="has not judged client 'a'"):
        evaluate(average, baselines=one)


def test_work_for_another_model_is_refused(average):
    other = fm.local.sgd(fm.regressor(nn.Linear(1, 1)), lr=0.1)

    with pytest.raises(fm.SettingsError, match=r"bias, \(1,\), is not in the run"):
        evaluate(average, work=other)


def test_a_result_from_a_folder_says_what_it_needs(average, tmp_path):
    loaded = fm.load_result(average.save(tmp_path))

    with pytest.raises(fm.SettingsError, match=r"Pass the local work: evaluate\(result, clients"):
        evaluate(loaded)
    with pytest.raises(fm.SettingsError, match=r"Pass baselines=, .* or baselines=False"):
        evaluate(loaded, personal=True, work=work())
    assert losses(evaluate(loaded, work=work()).clients) == {"a": 4.0, "b": 4.0}
    first = evaluate(average, personal=True)
    again = evaluate(loaded, work=work(), baselines=first)
    assert again.gaps["local"]["loss"] == Gap(4.0, 0.0, 1.0)


def test_own_models_that_were_stored_are_judged_again(own, tmp_path):
    own.save(tmp_path)

    loaded = fm.load_result(tmp_path, model=number())

    again = evaluate(loaded, work=work(), personal=True, baselines=False)
    assert losses(again.clients) == {"a": 0.0, "b": 4.0}
    with pytest.raises(fm.SettingsError, match="'new' is not known to the run in this folder"):
        evaluate(loaded, clients({"new": 1.0}), work=work(), personal=True, baselines=False)
    with pytest.raises(fm.SettingsError, match="loaded without the model's class"):
        evaluate(fm.load_result(tmp_path), work=work(), personal=True, baselines=False)


def test_an_error_of_a_baseline_says_where_it_comes_from():
    too_far = fm.local.sgd(fm.regressor(number(1.0)), lr=3e38, batch_size=None)

    with pytest.raises(fm.RoundError) as caught:
        evaluate(run(fm.fedavg(work())), work=too_far, baselines=True)

    assert "trained a baseline" in caught.value.__notes__[-1]
