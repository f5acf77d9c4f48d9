"""What people get wrong with `privacy=`, and the one sentence that names the cure."""

import warnings

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import BudgetError, SettingsError
from folkmoot.privacy.closed_form import gaussian_epsilon
from folkmoot.privacy.dp import Tree


def data(clients=3, rows=10):
    draw = torch.Generator().manual_seed(0)
    return {
        client: (
            torch.randn(rows, 3, generator=draw),
            torch.randint(0, 2, (rows,), generator=draw),
        )
        for client in range(clients)
    }


def work():
    return fm.local.sgd(fm.classifier(nn.Linear(3, 2)), lr=0.1, batch_size=5)


def quietly(function, *args, **options):
    """Call without the warning that so few clients drown in noise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The noise of a round")
        return function(*args, **options)


def run(algorithm, privacy, clients=None, **options):
    options = {"rounds": 2, "progress": False, "workers": 1} | options
    return quietly(fm.run, algorithm, clients or data(), privacy=privacy, **options)


def by_hand(rounds=2, algorithm=None, **promise):
    promise = {"noise_multiplier": 2.0, "delta": 1e-2} | promise
    algorithm = algorithm or fm.fedavg(work())
    return quietly(fm.process, algorithm, privacy=fm.DP(**promise), rounds=rounds, cohort=3)


# Rounds by hand


@pytest.mark.parametrize(
    "promise", [{}, {"noise_multiplier": None, "epsilon": 2.0}], ids=["noise", "budget"]
)
def test_a_private_process_refuses_one_round_more_than_it_is_for(promise):
    process, asked = by_hand(**promise), []
    clients = fm.data.from_function(range(3), lambda c: asked.append(c) or data()[c])
    state = process.initialize()
    for _ in range(2):
        state, _ = process.next(state, clients)
    asked.clear()

    with pytest.raises(BudgetError, match=r"for 2 private rounds, .* nobody was asked\. Build"):
        process.next(state, clients)

    assert asked == []
    assert process.privacy.rounds == 2


def test_a_private_process_without_rounds_goes_on():
    process = by_hand(rounds=None)
    state = process.initialize()

    for _ in range(3):
        state, _ = process.next(state, data())

    assert process.privacy.rounds == 3


def test_a_call_that_is_refused_uses_no_round_up():
    process = by_hand(rounds=1)
    state = process.initialize()

    with pytest.raises(SettingsError):
        process.next(None, data())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        process.next(state, {0: (torch.zeros(4, 7), torch.zeros(4).long())})

    process.next(state, data())


def test_a_private_process_says_what_its_rounds_have_spent():
    process = by_hand()
    state = process.initialize()
    before = process.privacy
    process.next(state, data())
    # A round that is run again is released again.
    process.next(state, data())
    after = process.privacy

    assert (before.epsilon, before.rounds) == (0.0, 0)
    # Two releases with a noise of 2.
    assert after.epsilon == pytest.approx(gaussian_epsilon(2**0.5 / 2, 1e-2))
    assert (after.rounds, after.unit, after.population) == (2, "client", 3)
    assert "no amplification" in after.sampling and "epsilon" in str(after)


def test_a_process_without_privacy_has_none():
    assert fm.process(fm.fedavg(work())).privacy is None


# Together with a run


def test_a_restart_beyond_the_clients_is_refused_with_the_largest_that_fits():
    promise = fm.DP(epsilon=2, mechanism=Tree(restart=8), delta=1e-2)

    with pytest.raises(SettingsError, match=r"8 clients, .* here are 4.*restart of at most 4"):
        run(fm.fedavg(work()), promise, data(4), rounds=8)


def test_a_rule_that_does_not_say_how_it_is_bounded_is_refused_for_that():
    mine = fm.aggregators.uniform_mean()._replace(name="mine", bounded=None)

    with pytest.raises(SettingsError, match=r"by mine\(\), .* does not say how it is bounded"):
        run(fm.fedavg(work(), aggregator=mine), fm.DP(epsilon=2, delta=1e-2))


@pytest.mark.parametrize(
    "build",
    [
        lambda one: fm.fedsam(one, rho=0.1),
        lambda one: fm.ditto(one, lam=0.1),
        fm.apfl,
        lambda one: fm.pfedme(one, lam=1.0, lr=0.1, inner_steps=2),
    ],
    ids=["fedsam", "ditto", "apfl", "pfedme"],
)
def test_who_takes_two_gradients_of_a_batch_is_told_a_cure_that_works(build):
    promise = fm.DP(noise_multiplier=1.0, unit="example", delta=1e-2)

    with pytest.raises(SettingsError, match=r"leave privacy= out of the run: .*gradients=2\)"):
        run(build(work()), promise)

    paid = fm.local.dpsgd(work(), clip=1.0, noise_multiplier=1.0, gradients=2)
    assert run(build(paid), None).model is not None


def test_who_has_paid_for_too_few_gradients_is_told_the_next_number():
    paid = fm.local.dpsgd(work(), clip=1.0, noise_multiplier=1.0, gradients=2)

    with pytest.raises(SettingsError, match=r"than the 2 that .* gradients=3\)"):
        run(fm.pfedme(paid, lam=1.0, lr=0.1, inner_steps=3), None)
