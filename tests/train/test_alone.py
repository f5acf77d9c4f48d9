"""Training alone: clients reach optima of their own, and nothing of the model travels."""

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.train.alone import alone

OPTIMA = {"a": 0.0, "b": 4.0}


def number(start=0.0):
    """A model of one number w; on data (1, c) its loss is (w - c)^2, of gradient 2 (w - c)."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, start)
    return model


def clients(optima=OPTIMA):
    def data(client):
        return {"x": torch.ones(2, 1), "y": torch.full((2, 1), optima[client])}

    return fm.data.from_function(optima, data, test=data)


def work(lr=0.5, **more):
    """One step over all rows; at a rate of 0.5 it ends at the optimum, at 0.25 halfway there."""
    return fm.local.sgd(fm.regressor(number()), lr=lr, batch_size=None, **more)


def run(algorithm, rounds=1, **more):
    given = {"engine": fm.engines.sequential(), "progress": False, **more}
    return fm.run(algorithm, clients(), rounds=rounds, **given)


def finetune(result, *more, **given):
    engine = fm.engines.sequential()
    return fm.finetune(result, clients(), *more, engine=engine, progress=False, **given)


def value(module):
    return module.weight.item()


def test_each_client_reaches_its_own_optimum():
    result = run(alone(work(), work().init()))

    assert {client: value(found.model) for client, found in result.clients.items()} == OPTIMA


def test_a_client_goes_on_from_where_it_stood():
    result = run(alone(work(lr=0.25), work().init()), rounds=3)

    assert value(result.clients["b"].model) == 3.5  # 4 (1 - 0.5^3)


def test_clients_begin_with_the_first_model():
    first = fm.regressor(number(2.0)).init()

    result = run(alone(work(lr=0.25), first))

    assert value(result.clients["a"].model) == 1.0  # Halfway from 2 to 0.
    assert value(result.clients["b"].model) == 3.0


def test_nothing_of_the_model_travels():
    algorithm = alone(work(), work().init())

    task = next(algorithm.round(algorithm.init()))

    assert (task.broadcast["params"], task.broadcast["buffers"]) == ({}, {})


def test_statistics_of_batches_stay_with_each_client():
    torch.manual_seed(0)
    objective = fm.regressor(nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1)))
    result = run(alone(fm.local.sgd(objective, lr=0.1, epochs=2), objective.init()))

    # Two steps, whose batches have a mean of 1: 0, then 0.1, then 0.9 * 0.1 + 0.1.
    statistics = result.clients["a"].model[0]
    assert statistics.running_mean.item() == pytest.approx(0.19)
    assert statistics.num_batches_tracked.item() == 2
    assert result.model[0].num_batches_tracked.item() == 0


@pytest.mark.parametrize("builder", [fm.engines.parallel, fm.engines.vectorized])
def test_it_is_the_same_on_other_engines(builder):
    result = run(alone(work(lr=0.25), work().init()), rounds=2, engine=builder())

    assert value(result.clients["b"].model) == 3.0


def test_work_that_rides_on_what_is_shared_is_refused():
    pulled = fm.local.proximal(work(), mu=1.0)

    with pytest.raises(fm.SettingsError, match="trains alone shares nothing"):
        alone(pulled, work().init())


def test_work_of_clients_with_own_models_is_refused():
    with pytest.raises(fm.SettingsError, match="have one already"):
        alone(fm.local.personal(work(), "*"), work().init())
    average = run(fm.fedavg(work()))
    with pytest.raises(fm.SettingsError, match=r"finetune\(\) gives each .* have one already"):
        finetune(average, fm.local.personal(work(), "*"))


def test_fine_tuning_begins_with_the_global_model():
    average = run(fm.fedavg(work()))

    tuned = finetune(average, work(lr=0.25))

    assert value(average.model) == 2.0  # The mean of 0 and 4.
    assert {client: value(found.model) for client, found in tuned.clients.items()} == {
        "a": 1.0,
        "b": 3.0,
    }


def test_fine_tuned_models_are_judged_on_the_clients_tests():
    tuned = finetune(run(fm.fedavg(work())), work(lr=0.25))

    assert tuned.clients["b"].metrics["loss"] == 1.0  # (3 - 4)^2
    assert tuned.metrics["clients_loss"] == 1.0


def test_a_fine_tuned_result_remembers_the_run_and_its_model():
    average = run(fm.fedavg(work()), name="average")

    again = finetune(finetune(average))

    assert again.base is average
    assert value(again.model) == 2.0
    assert finetune(average).name == "average-finetuned"
    assert value(average.model) == 2.0


def test_the_run_s_own_work_is_done_without_what_was_put_on_it():
    pulled = run(fm.fedprox(work(), mu=100.0))

    tuned = finetune(pulled)

    # With the pull on it, the work would be refused.
    assert value(tuned.clients["b"].model) == 4.0


def test_a_rate_goes_on_from_the_round_of_the_run():
    def rate(round):
        return 0.5 if round == 3 else 0.0

    tuned = finetune(run(fm.fedavg(work(lr=rate)), rounds=2))

    assert value(tuned.clients["b"].model) == 4.0


def test_people_who_took_no_part_can_fine_tune_too():
    average = run(fm.fedavg(work()))

    tuned = fm.finetune(average, clients({"new": 7.0}), progress=False)

    assert value(tuned.clients["new"].model) == 7.0


def test_a_run_without_a_global_model_is_refused():
    kept = run(fm.fedavg(work()), personal="weight")

    with pytest.raises(fm.SettingsError, match="has none: weight stayed with each client"):
        finetune(kept)


def test_what_is_no_result_and_no_work_is_refused():
    with pytest.raises(fm.SettingsError, match=r"result of a run first, .* was given a Linear"):
        fm.finetune(number(), clients())
    with pytest.raises(fm.SettingsError, match="needs local work"):
        finetune(run(fm.fedavg(work())), number())


def test_work_for_another_model_is_refused():
    other = fm.local.sgd(fm.regressor(nn.Linear(2, 1, bias=False)), lr=0.1)
    biased = fm.local.sgd(fm.regressor(nn.Linear(1, 1)), lr=0.1)
    average = run(fm.fedavg(work()))

    with pytest.raises(fm.SettingsError, match=r"weight, \(1, 2\), is \(1, 1\) in the run"):
        finetune(average, other)
    with pytest.raises(fm.SettingsError, match=r"bias, \(1,\), is not in the run"):
        finetune(average, biased)


def test_a_result_from_a_folder_needs_the_work(tmp_path):
    loaded = fm.load_result(run(fm.fedavg(work())).save(tmp_path))

    with pytest.raises(fm.SettingsError, match=r"Pass the local work: finetune\(result, clients"):
        finetune(loaded)
    assert value(finetune(loaded, work(lr=0.25)).clients["b"].model) == 3.0
