"""`privacy=fm.DP(unit="example")`: what a client sends hides each of its examples."""

import math
import warnings

import pytest
import torch
from laws.cards import CARDS, build
from torch import nn

import folkmoot as fm
from folkmoot.privacy import PoissonGaussian
from folkmoot.train import standing
from folkmoot.train.releases import Releases

REFUSED = {  # What looks at examples otherwise than by one gradient a step, and how.
    "agnostic": "looks at a client's examples by itself",
    "apfl": "more gradients of one batch than the 1",
    "ditto": "more gradients of one batch than the 1",
    "fedsam": "more gradients of one batch than the 1",
    "ifca": "no gradient|looks at a client's examples",
    "mime": "looks at a client's examples by itself",
    "mimelite": "looks at a client's examples by itself",
    "moon": "looks at a client's examples by itself",
    "pfedme": "more gradients of one batch than the 1",
    "qfedavg": "looks at a client's examples by itself",
    "fedbn": "statistics of a batch",
}


def work(model=None, batch_size=5, **options):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return fm.local.sgd(fm.classifier(model), lr=0.3, batch_size=batch_size, **options)


def clients(*numbers):
    found = {}
    for client, rows in enumerate(numbers or (20, 40)):
        draw = torch.Generator().manual_seed(client)
        x = torch.randn(rows, 3, generator=draw)
        found[client] = {"x": x, "y": (x[:, 0] > 0).long()}
    return found


def run(algorithm, held=None, **options):
    options = {"rounds": 2, "engine": fm.engines.sequential(), "progress": False} | options
    promise = options.pop("promise", {"noise_multiplier": 1.0})
    budget = fm.DP(**({"unit": "example", "delta": 1e-3, "clip": 1.0} | promise))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The noise of a round")
        return fm.run(algorithm, held or clients(), privacy=budget, **options)


@pytest.mark.parametrize("name", CARDS)
def test_an_algorithm_runs_or_is_refused_before_round_one_with_the_reason(name):
    norm = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    options = {"layers": nn.BatchNorm1d} if name == "fedbn" else {}
    begun = []

    def attempt():
        algorithm = build(name, work(norm if name == "fedbn" else None), **options)
        return run(algorithm, callbacks=[lambda event: begun.append(event.kind)])

    if name not in REFUSED:
        assert attempt().privacy.unit == "example"
        return
    with pytest.raises(fm.SettingsError, match=REFUSED[name]):
        attempt()
    assert "round" not in begun


def test_the_noise_is_made_for_the_client_that_costs_most_and_charged_step_by_step():
    result = run(fm.fedavg(work()), clients(20, 40), rounds=3)

    # Of 20 examples 5 a step are a quarter, and an epoch is four steps.
    event = PoissonGaussian(1.0, 0.25)
    assert result.privacy.epsilon == fm.privacy.epsilon([(event, 3 * 4)], 1e-3)
    assert "5 of 20 examples a step at the client with" in result.privacy.sampling


@pytest.mark.parametrize("promise", [{"epsilon": 3.0}, {"noise_multiplier": 2.0}], ids=str)
def test_no_client_spends_more_than_is_stated_whatever_it_holds(promise):
    sizes = [10, 11, 12, 20, 21, 25, 31, 90, 91]
    found = run(fm.fedavg(work(batch_size=10)), clients(*sizes), rounds=5, promise=promise).privacy

    # An epoch of n examples is ceil(n / 10) steps at a rate of 10 / n.
    spent = {
        rows: fm.privacy.epsilon(
            [(PoissonGaussian(found.noise_multiplier, 10 / rows), 5 * math.ceil(rows / 10))], 1e-3
        )
        for rows in sizes
    }
    assert max(spent, key=spent.get) == 11
    assert found.epsilon == spent[11] > 1.2 * spent[10]


def test_a_round_that_asks_for_more_steps_than_the_first_is_refused_before_it_is_paid():
    plain, works = fm.fedavg(work()), [work(), work(epochs=20)]

    def round(state):
        sent = {part: state[part] for part in ("params", "buffers", "counts")}
        asked = works[min(int(state["round"]) - 1, 1)]
        yield fm.Task(sent, asked, fm.aggregators.uniform_mean())
        return {**state, "round": state["round"] + 1}

    with pytest.raises(fm.SettingsError, match=r"asks for 80 steps.*first round asked for 4"):
        run(plain._replace(round=round), clients(20), rounds=3)


def test_the_noise_is_solved_and_the_budget_spent():
    found = run(fm.fedavg(work()), promise={"epsilon": 3.0}).privacy

    assert 3.0 * 0.99 <= found.epsilon <= 3.0
    assert "Numbers of examples are public" in str(found)


def test_means_may_be_weighted_by_public_numbers_of_examples():
    rule = fm.aggregators.weighted_mean()

    assert run(fm.fedavg(work(), aggregator=rule)).privacy.unit == "example"


def test_a_delta_that_lets_an_example_go_is_refused():
    with pytest.raises(fm.SettingsError, match=r"delta 0\.1 is not below"):
        run(fm.fedavg(work()), promise={"noise_multiplier": 1.0, "delta": 0.1})


def test_simulations_repeat_in_every_exact_engine_and_others_do_not():
    seeded = {"noise_multiplier": 1.0, "simulation": True}

    def weight(**options):
        return run(fm.fedavg(work()), **options).model[0].weight

    one = weight(promise=seeded)
    there = weight(promise=seeded, engine=fm.engines.parallel(2))
    assert torch.equal(one, there)
    assert not torch.equal(weight(), weight())


def test_training_gets_better_than_chance_under_moderate_noise():
    held = clients(200, 200)

    result = run(
        fm.fedavg(work(batch_size=20)),
        held,
        rounds=8,
        test=clients(400)[0],
        promise={"noise_multiplier": 1.0, "simulation": True},
    )

    assert result.metrics["test_accuracy"] > 0.8


def test_a_round_that_clients_have_begun_before_a_crash_is_paid_for_again(monkeypatch, tmp_path):
    real = Releases.keep

    def dying(self, round, exchange, decoded):
        if round == 2:
            raise KeyboardInterrupt
        real(self, round, exchange, decoded)

    options = {"rounds": 3, "checkpoint": tmp_path}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Releases, "keep", dying)
        run(fm.fedavg(work()), **options)

    resumed = run(fm.fedavg(work()), resume=True, **options)

    # Four rounds of four steps: the second was begun twice.
    assert [times for _, times in resumed.privacy.charges] == [4 * 4]


def test_a_release_that_was_written_down_is_not_asked_for_again(monkeypatch, tmp_path):
    options = {"rounds": 2, "checkpoint": tmp_path}

    def dying(folder, stored):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(standing, "save_checkpoint", dying)
        run(fm.fedavg(work()), **options)

    resumed = run(fm.fedavg(work()), resume=True, **options)

    assert [row["answered"] for row in resumed.history] == [0, 2]
    assert [times for _, times in resumed.privacy.charges] == [2 * 4]
