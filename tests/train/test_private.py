"""`privacy=`: every sum is clipped, noised and paid for, whatever the algorithm."""

import itertools
import math
import warnings

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import BudgetError
from folkmoot.train import standing

ENGINE = fm.engines.sequential()


class Line(nn.Module):
    """A loss whose gradient is a client's own number, so that a step's length is known."""

    def __init__(self, size=1):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(size))

    def forward(self, x):
        return x * self.w


def work(size=1, lr=1.0):
    objective = fm.objective(Line(size), lambda outputs, _: outputs.sum(1), target=None)
    return fm.local.sgd(objective, lr=lr, batch_size=None)


def pulls(*gradients, size=1):
    """Clients who move the model by minus their number in one step."""
    return {at: ({"x": torch.full((1, size), g)}) for at, g in enumerate(gradients)}


def run(clients, algorithm=None, *, rounds=1, **options):
    options = {"engine": ENGINE, "progress": False} | options
    privacy = options.pop("privacy", None) or fm.DP(noise_multiplier=0.0, clip=1.0, delta=1e-2)
    return fm.run(
        algorithm or fm.fedavg(work()), clients, rounds=rounds, privacy=privacy, **options
    )


def weights(result):
    return result.model.w.detach().tolist()


def classify(layers=None, lr=0.5):
    torch.manual_seed(0)
    model = layers or nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return fm.local.sgd(fm.classifier(model), lr=lr, batch_size=4)


def labelled(number=8, rows=6):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(number, rows, 3, generator=draw)
    y = (x[..., 0] > 0).long()
    return fm.data.from_function(range(number), lambda c: {"x": x[c], "y": y[c]})


def quietly(function, *args, **options):
    """Call without the warning that so few clients drown in noise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The noise of a round")
        return function(*args, **options)


# What is promised


def test_a_result_names_unit_adjacency_sampling_and_noise_and_spends_its_budget():
    budget = fm.DP(epsilon=8, delta=1e-3, clip=0.5)

    result = quietly(run, labelled(), fm.fedavg(classify()), rounds=3, cohort=4, privacy=budget)

    found = result.privacy
    assert 8 * 0.99 <= found.epsilon <= 8
    assert (found.unit, found.adjacency) == ("client", "add-or-remove-one")
    assert found.sampling.startswith("poisson, 4 of 8 clients")
    assert found.noise_multiplier > 0 and not found.simulation
    assert f"epsilon {found.epsilon:.3g}" in str(result) and "Trusted: the server" in str(result)


def test_everyone_is_asked_without_a_lot_and_a_fixed_cohort_is_not_sold_as_poisson():
    budget = fm.DP(noise_multiplier=2.0, delta=1e-3)

    epsilons = {
        name: quietly(
            run, labelled(), fm.fedavg(classify()), rounds=2, privacy=budget, **options
        ).privacy
        for name, options in {
            "all": {},
            "poisson": {"cohort": 2},
            "fixed": {"sampling": fm.sampling.uniform(2)},
            "mine": {"sampling": lambda ids, round, draw: list(ids)[:2], "cohort": 2},
        }.items()
    }

    assert epsilons["poisson"].epsilon < epsilons["all"].epsilon < epsilons["fixed"].epsilon
    assert epsilons["fixed"].adjacency == "replace-one"
    assert epsilons["mine"].epsilon == epsilons["all"].epsilon
    assert "no amplification" in epsilons["mine"].sampling


def test_a_larger_federation_scales_the_noise_and_makes_it_a_simulation():
    small = fm.DP(epsilon=4, delta=1e-6, population=100_000, cohort=1000)

    found = quietly(run, labelled(), fm.fedavg(classify()), cohort=4, privacy=small).privacy

    assert found.simulation and (found.population, found.cohort) == (100_000, 1000)
    assert "Simulation only" in str(found)
    # 1000 of 100,000 hide better than 4 of 8 could with this noise.
    assert 4 * 0.99 <= found.epsilon <= 4


def test_noise_that_drowns_the_signal_is_announced_with_the_cure(capsys):
    budget = fm.DP(noise_multiplier=4.0, delta=1e-3)

    with pytest.warns(UserWarning, match=r"times as long as the longest mean.*larger cohort"):
        run(labelled(), fm.fedavg(classify()), cohort=2, privacy=budget, progress=None)

    # 4 sqrt(26) / 2, of 26 parameters.
    assert "expected noise to signal 10" in capsys.readouterr().err


def test_without_noise_nothing_is_promised():
    found = run(pulls(1.0), privacy=fm.DP(noise_multiplier=0.0, delta=1e-2)).privacy

    assert found.epsilon == math.inf and "epsilon inf" in str(found)


# What is done


def test_a_mean_is_over_the_expected_cohort_whoever_comes():
    alone = run(pulls(1.0, 1.0, 1.0, 1.0), sampling=lambda ids, round, draw: [0], cohort=4)

    assert weights(alone) == [pytest.approx(-0.25)]


def test_no_client_moves_the_sum_by_more_than_the_clip_whatever_it_weighs():
    clients = pulls(1e30, 0.5)
    heavy = {0: {"x": clients[0]["x"].expand(1000, 1)}, 1: clients[1]}

    assert weights(run(heavy)) == [pytest.approx((-1.0 - 0.5) / 2, rel=1e-5)]


def test_a_rule_that_nobody_named_is_uniform_and_a_named_weighing_one_is_refused():
    weighted = fm.fedavg(work(), aggregator=fm.aggregators.weighted_mean())

    with pytest.raises(fm.SettingsError, match=r"weighted_mean.*one client could outweigh"):
        run(pulls(1.0), weighted)
    with pytest.raises(fm.SettingsError, match="weighs clients"):
        run(pulls(1.0), fm.agnostic(work(), lambda_lr=0.1))
    with pytest.raises(fm.SettingsError, match="neither clipped nor divided"):
        run(labelled(), fm.ifca(classify(), clusters=2))


def test_named_stages_stay_between_clip_and_noise():
    own = fm.fedavg(work(), aggregator=fm.aggregators.uniform_mean(fm.codecs.clip(0.25)))

    # Scaled into the unit ball by the budget's clip of 2, then cut to a quarter of that.
    result = run(pulls(10.0), own, privacy=fm.DP(noise_multiplier=0.0, clip=2.0, delta=1e-2))

    assert weights(result) == [pytest.approx(-0.5, rel=1e-5)]


def test_an_empty_cohort_releases_noise_and_is_paid_for():
    budget = fm.DP(noise_multiplier=1.0, delta=1e-2)

    result = run(
        pulls(1.0), sampling=lambda ids, round, draw: [], cohort=1, rounds=2, privacy=budget
    )

    assert weights(result) != [0.0]
    assert [row["answered"] for row in result.history] == [0, 0]
    assert not any(row["skipped"] for row in result.history)
    # Two exchanges of one Gaussian each: mu = sqrt(2), from Balle and Wang's closed form.
    assert result.privacy.epsilon == pytest.approx(epsilon_of(math.sqrt(2), 1e-2), rel=1e-3)


def epsilon_of(mu, delta):
    """The epsilon at which a Gaussian of this mu has this delta, by bisection."""
    normal = torch.distributions.Normal(0.0, 1.0)

    def spent(epsilon):
        first, second = (normal.cdf(torch.tensor(s * mu / 2 - epsilon / mu)) for s in (1, -1))
        return float(first - math.exp(epsilon) * second)

    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high


def test_counters_stay_as_they_were_sent_and_noisy_variances_are_no_less_than_zero():
    layers = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    budget = fm.DP(noise_multiplier=20.0, delta=1e-3)

    result = quietly(run, labelled(), fm.fedavg(classify(layers)), rounds=3, privacy=budget)

    norm = result.model[1]
    assert norm.num_batches_tracked.item() == 0
    assert (norm.running_var >= 0).all() and torch.isfinite(norm.running_var).all()


def test_an_update_that_is_not_finite_is_left_out_by_name_and_the_noise_is_released():
    # A step of ten times this overflows.
    clients = pulls(3e38, 1.0)

    result = run(clients, fm.fedavg(work(lr=10.0)))

    assert weights(result) == [pytest.approx(-0.5, rel=1e-5)]
    assert [left.client for left in result.left_out] == [0]


def test_two_runs_never_share_noise_unless_both_say_that_they_are_simulations():
    open_, closed = (
        fm.DP(noise_multiplier=1.0, delta=1e-2, simulation=seeded) for seeded in (False, True)
    )

    torch.manual_seed(0)
    first, again = run(pulls(1.0), privacy=open_), run(pulls(1.0), privacy=open_)
    seeded, same = run(pulls(1.0), privacy=closed), run(pulls(1.0), privacy=closed)
    other = run(pulls(1.0), privacy=closed, seed=1)

    assert weights(first) != weights(again)
    assert weights(seeded) == weights(same) != weights(other)
    assert seeded.privacy.simulation and "whoever knows it" in str(seeded.privacy)


def test_cohorts_do_not_follow_from_the_seed_alone():
    clients = pulls(*([1.0] * 40))
    budget = fm.DP(noise_multiplier=1.0, delta=1e-3)

    asked = {
        tuple(row["asked"] for row in run(clients, rounds=5, cohort=20, privacy=budget).history)
        for _ in range(4)
    }

    assert len(asked) > 1


@pytest.mark.parametrize("name", ["scaffold", "mime", "fedexp", "fednova", "feddyn", "ditto"])
def test_every_exchange_of_an_algorithm_is_paid_for(name):
    options = {"feddyn": {"alpha": 0.1}, "ditto": {"lam": 0.1}}.get(name, {})
    budget = fm.DP(noise_multiplier=3.0, delta=1e-3)

    built = getattr(fm, name)(classify(), **options)
    result = quietly(run, labelled(), built, rounds=2, privacy=budget)

    exchanges = 2 * (2 if name == "mime" else 1)
    assert sum(times for _, times in result.privacy.charges) == exchanges


def test_an_exchange_that_the_first_round_has_not_shown_is_refused_before_anyone_is_asked():
    plain = fm.fedavg(work())

    def growing(state):
        steps = plain.round(state)
        task = next(steps)
        for _ in range(int(state["round"])):
            answer = yield task
        try:
            steps.send(answer)
        except StopIteration as done:
            return done.value

    with pytest.raises(fm.SettingsError, match=r"Round 2 asks for exchange 2.*not paid for"):
        run(pulls(1.0), plain._replace(round=growing), rounds=2)


def test_clients_tests_stay_unseen_unless_they_are_declared():
    clients = fm.data.from_datasets([labelled()[0].train] * 3, [labelled()[1].train] * 3)
    hidden = fm.DP(noise_multiplier=1.0, delta=1e-2)
    declared = fm.DP(noise_multiplier=1.0, delta=1e-2, client_tests=True)

    built = fm.fedavg(classify())
    without = quietly(run, clients, built, privacy=hidden)
    within = quietly(run, clients, built, privacy=declared)

    assert not without.judged and within.judged
    assert "Not private, as declared" in str(within.privacy)


# What is refused


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"epsilon": 0}, "epsilon must be"),
        ({"epsilon": -1.0}, "epsilon must be"),
        ({}, "a budget or a noise multiplier"),
        ({"epsilon": 1.0, "noise_multiplier": 1.0}, "one of them"),
        ({"noise_multiplier": math.nan}, "noise_multiplier must be"),
        ({"epsilon": 1.0, "delta": 0.0}, "delta must be"),
        ({"epsilon": 1.0, "clip": math.inf}, "clip must be"),
        ({"epsilon": 1.0, "clip": 0}, "clip must be"),
        ({"epsilon": 1.0, "unit": "silo"}, "unit must be"),
        ({"epsilon": 1.0, "population": 10}, "describe a larger federation together"),
        ({"epsilon": 1.0, "population": 10, "cohort": 20}, "A cohort of 20 was stated"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(options, why):
    with pytest.raises(fm.SettingsError, match=why):
        fm.DP(**options)


def test_a_delta_that_lets_a_client_go_is_refused():
    with pytest.raises(fm.SettingsError, match=r"delta.*population"):
        run(pulls(1.0, 2.0), privacy=fm.DP(epsilon=1.0, delta=0.5))


def test_what_is_no_budget_is_refused():
    with pytest.raises(fm.SettingsError, match=r"privacy must be a budget, such as fm\.DP"):
        run(pulls(1.0), privacy=8.0)


def test_a_spent_ledger_refuses_the_run_before_its_first_round():
    asked = []
    clients = fm.data.from_function(
        range(2), lambda client: asked.append(client) or {"x": torch.ones(1, 1)}
    )
    with fm.privacy.Ledger(epsilon=1.0, delta=1e-2) as ledger:
        budget = fm.DP(noise_multiplier=0.5, delta=1e-2, ledger=ledger)

        with pytest.raises(BudgetError):
            run(clients, privacy=budget, callbacks=[lambda event: asked.append(event.kind)])

    assert "round" not in asked and "start" not in asked


def test_one_ledger_counts_over_runs():
    budget = {"delta": 1e-2, "noise_multiplier": 2.0}
    with fm.privacy.Ledger(epsilon=100.0, delta=1e-2) as ledger:
        for _ in range(2):
            quietly(run, pulls(1.0), rounds=2, privacy=fm.DP(**budget, ledger=ledger))

        spent = ledger.epsilon(1e-2)

    # Four rounds of noise 2: mu = 1.
    assert spent == pytest.approx(epsilon_of(1.0, 1e-2), rel=1e-3)


# Stop and resume


def stopped(monkeypatch, folder, at, **options):
    """Run until the checkpoint of a round, which is not written any more."""
    real, rounds = standing.save_checkpoint, itertools.count(1)

    def dying(*args):
        if next(rounds) == at:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(standing, "save_checkpoint", dying)
        run(pulls(1.0, 2.0), rounds=3, checkpoint=folder, **options)


def test_a_noisy_sum_that_was_drawn_before_a_crash_is_used_again(monkeypatch, tmp_path):
    budget = fm.DP(noise_multiplier=1.0, delta=1e-2)
    stopped(monkeypatch, tmp_path, at=2, privacy=budget)
    [release] = tmp_path.glob("**/release-0000002-*")
    from folkmoot.core import wire

    drawn = wire.from_bytes(release.read_bytes())[0]["value"]["params"]["w"]
    before = _checkpoint_w(tmp_path)

    after = []
    result = run(
        pulls(1.0, 2.0),
        rounds=3,
        checkpoint=tmp_path,
        resume=True,
        privacy=budget,
        callbacks=[lambda event: after.append(_checkpoint_w(tmp_path))],
    )

    assert after[1] == pytest.approx((before + drawn).item())
    assert not [*tmp_path.glob("**/release-*")]
    assert sum(times for _, times in result.privacy.charges) == 3


def _checkpoint_w(folder):
    from folkmoot.core import wire

    newest = sorted(folder.glob("**/checkpoint-*"))[-1]
    return wire.from_bytes(newest.read_bytes())[0]["state"]["params"]["w"]


def test_a_simulation_that_was_stopped_ends_with_the_same_bits(monkeypatch, tmp_path):
    budget = fm.DP(epsilon=4.0, delta=1e-2, simulation=True)
    stopped(monkeypatch, tmp_path, at=2, privacy=budget)

    resumed = run(pulls(1.0, 2.0), rounds=3, checkpoint=tmp_path, resume=True, privacy=budget)

    assert weights(resumed) == weights(run(pulls(1.0, 2.0), rounds=3, privacy=budget))
    assert resumed.privacy.epsilon <= 4.0


def test_a_run_does_not_go_on_with_another_promise(monkeypatch, tmp_path):
    stopped(monkeypatch, tmp_path, at=3, privacy=fm.DP(noise_multiplier=1.0, delta=1e-2))

    with pytest.raises(fm.SettingsError, match=r"belongs to another program.*privacy"):
        run(
            pulls(1.0, 2.0),
            rounds=3,
            checkpoint=tmp_path,
            resume=True,
            privacy=fm.DP(noise_multiplier=0.5, delta=1e-2),
        )


# By hand


def test_a_process_is_paid_for_round_by_round_and_refuses_one_more():
    process = fm.process(
        fm.fedavg(work()), privacy=fm.DP(epsilon=5.0, delta=1e-2), rounds=2, cohort=2
    )
    state = process.initialize()

    first, _ = process.next(state, pulls(1.0, 2.0))
    # A round that is run again is released again.
    process.next(state, pulls(1.0, 2.0))

    with pytest.raises(BudgetError):
        process.next(first, pulls(1.0, 2.0))


def test_a_process_needs_the_rounds_or_the_noise_and_the_cohort():
    with pytest.raises(fm.SettingsError, match="pass rounds="):
        fm.process(fm.fedavg(work()), privacy=fm.DP(epsilon=1.0, delta=1e-2), cohort=2)
    with pytest.raises(fm.SettingsError, match="pass cohort="):
        fm.process(fm.fedavg(work()), privacy=fm.DP(epsilon=1.0, delta=1e-2), rounds=2)

    fm.process(fm.fedavg(work()), privacy=fm.DP(noise_multiplier=1.0, delta=1e-2), cohort=2)
