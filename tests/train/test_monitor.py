"""The monitor tells the runs that go wrong, and says nothing of those that do not."""

import math

import numpy as np
import pytest

from folkmoot.core.errors import SettingsError
from folkmoot.train.monitor import last_advice, watch
from folkmoot.train.stopping import converged

ANSWERS = 20


def rows(**columns):
    """Rows of evaluated rounds 1, 2, ..., from a list a column."""
    return [
        {"round": number, "evaluated": True, "answered": ANSWERS}
        | dict(zip(columns, map(float, values), strict=True))
        for number, values in enumerate(zip(*columns.values(), strict=True), 1)
    ]


def noisy(values, share, seed):
    """Values, each times a factor around 1."""
    return values * np.exp(share * np.random.default_rng(seed).normal(size=len(values)))


def ever(history):
    """What advice was given at any time of a run."""
    found = [watch(history[:end]) for end in range(1, len(history) + 1)]
    return {advice.what for advice in found if advice}


T = np.arange(1.0, 51.0)
DECAYS = {"1/t": 1 / T, "1/sqrt(t)": T**-0.5, "exp": np.exp(-T / 15), "line": 1 - T / 60}


def healthy(decay, noise, seed):
    """A loss that falls to 0.3, accuracy that rises to 0.9, updates that shrink, and diversity that
    rises, as it does wherever the mean gradient vanishes."""
    return rows(
        test_loss=noisy(0.3 + 2 * decay, noise, seed),
        test_accuracy=0.9 - 0.8 * decay * noisy(np.ones(50), noise, seed + 1_000),
        update_norm=noisy(0.2 + 0.8 * decay, 0.15, seed + 2_000),
        diversity=1 + (ANSWERS - 1) * (1 - decay),
    )


@pytest.mark.parametrize("decay", DECAYS.values(), ids=DECAYS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.0, 0.03, 0.1])
def test_a_healthy_run_is_left_alone(decay, seed, noise):
    assert ever(healthy(decay, noise, seed)) == set()


@pytest.mark.slow
@pytest.mark.parametrize("decay", DECAYS.values(), ids=DECAYS)
def test_of_a_thousand_healthy_runs_none_gets_advice(decay):
    for noise in (0.01, 0.02, 0.03, 0.05, 0.1):
        for seed in range(50):
            assert ever(healthy(decay, noise, 100 * seed + round(100 * noise))) == set()


def test_updates_that_grow_while_the_loss_falls_are_a_warm_up():
    history = rows(test_loss=3 * 0.98**T, update_norm=0.01 * 1.2**T)

    assert ever(history) == set()


def test_geometric_growth_with_a_loss_that_rises_is_divergence():
    # From round 20 updates grow by 1.25 a round, and the loss with them.
    growth = 1.25 ** np.maximum(0, T - 20)
    history = rows(test_loss=2 / np.minimum(T, 20) + 0.05 * growth, update_norm=0.4 * growth)

    first = next(end for end in range(1, 51) if watch(history[:end]))
    found = watch(history[:40])

    assert found.what == "diverging"
    # 1.25 ** 9 = 7.45 over ten rounds; 0.4 * 1.25 ** 20 = 34.7; 0.1 + 0.05 * 1.25 ** 20 = 4.437.
    assert "grown 7.5 times over 9 rounds, to 34.7" in found.sentence
    assert "test_loss is 4.437 after 0.15" in found.sentence
    assert "lower the learning rate" in found.sentence and "clip_gradient=" in found.sentence
    assert 20 < first <= 30


def test_slow_growth_is_found_over_a_longer_window():
    growth = 1.06**T

    found = watch(rows(test_loss=1 + 0.1 * growth, update_norm=noisy(growth, 0.05, 0)))

    # Ten rounds have only 1.06 ** 9 = 1.7.
    assert found.what == "diverging" and "over 29 rounds" in found.sentence


def test_growth_that_is_one_odd_cohort_is_no_divergence():
    norms = np.ones(50)
    norms[-1] = 1e6
    history = rows(test_loss=np.append(3 * 0.9 ** T[:-1], 2.0), update_norm=norms)

    assert watch(history) is None


def test_without_any_metric_only_much_growth_counts():
    def bare(factor):
        return [{"round": n, "evaluated": False, "update_norm": factor**n} for n in range(1, 11)]

    assert watch(bare(1.2)) is None  # 1.2 ** 9 = 5.2
    assert watch(bare(1.4)).what == "diverging"  # 1.4 ** 9 = 20.7


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_is_no_number_any_more_is_divergence(value):
    found = watch(rows(test_loss=[2.0, 1.5, value]))

    assert found.what == "diverging"
    assert f"test_loss is {value} and was 1.5 before" in found.sentence


def test_a_loss_that_never_was_a_number_is_not():
    assert watch(rows(test_loss=[math.nan, math.nan])) is None


def stalled(norms, noise=0.01, **more):
    """A run that learns for ten rounds, and then no more."""
    left = np.maximum(0.0, 1 - T / 10)
    return rows(
        test_loss=noisy(0.5 + 2 * left, noise, 1),
        test_accuracy=0.8 - 0.7 * left + noise * np.random.default_rng(2).normal(size=50),
        update_norm=norms,
        **more,
    )


def test_a_stall_with_short_updates_is_a_run_that_has_converged():
    found = watch(stalled(np.maximum(0.01, 0.5**T)))

    assert found.what == "stalled"
    assert "test_accuracy has gained nothing in the last 25 evaluations" in found.sentence
    # 0.01 after the median of the first five, 0.5 ** 3.
    assert "is 0.01 after 0.125 at first: the run has converged" in found.sentence


def test_a_stall_with_long_updates_asks_for_shorter_steps():
    found = watch(stalled(noisy(np.full(50, 0.4), 0.1, 3)))

    assert found.what == "stalled" and "lower the learning rate" in found.sentence


def test_a_stall_is_not_told_while_updates_still_shrink():
    assert watch(stalled(0.98**T)) is None  # 0.98 ** 12.5 = 0.78, and 0.98 ** 37 = 0.47.


def test_a_private_run_is_judged_by_its_metrics_alone():
    history = [
        {name: value for name, value in row.items() if name != "update_norm"}
        for row in stalled(np.ones(50))
    ]

    assert "stop here" in watch(history).sentence


def test_one_metric_that_still_gains_is_enough_to_go_on():
    history = stalled(np.full(50, 0.4))

    gains = [row | {"clients_f1": row["round"] / 50, "clients_f1_p10": 0.0} for row in history]
    quantile = [row | {"clients_f1_p10": row["round"] / 50} for row in history]

    assert watch(gains) is None
    assert watch(quantile) is not None


def test_noise_that_could_hide_progress_is_no_stall():
    # Two standard errors of what a line gains over 25 values: 2 * 0.2 * sqrt(12 / 25) = 0.28, far
    # more than a twentieth of the 0.7 that accuracy has gained.
    assert watch(stalled(np.ones(50), noise=0.2)) is None


def test_an_overfit_run_is_a_stall_with_its_best_round():
    left = np.maximum(0.0, 1 - T / 10)
    history = rows(
        test_loss=0.5 + 2 * left + np.maximum(0, T - 10) / 100, update_norm=np.full(50, 0.4)
    )

    found = watch(history)

    assert found.what == "stalled"
    assert "it is 0.9, and was 0.5 in round 10" in found.sentence


def test_a_metric_that_never_leaves_its_noise_has_no_say():
    # Of ten classes: the loss stays at that of guessing, accuracy at 0.1, up and down by a tenth.
    guessing = 0.1 + 0.01 * np.cos(np.pi * (T - 1) / 2)
    flat = np.full(50, 2.303)

    assert watch(rows(test_loss=flat, test_accuracy=guessing)).what == "stalled"
    assert watch(rows(test_loss=flat, test_accuracy=guessing + T / 1000)) is None
    assert watch(rows(test_accuracy=guessing)) is None


def test_a_stall_is_told_after_20_evaluations_at_the_earliest():
    history = stalled(np.full(50, 0.4), noise=0.0)

    first = next(end for end in range(1, 51) if watch(history[:end]))

    assert first == 20


def test_clients_that_still_move_far_and_apart_are_drifting():
    # Alike at first, diversity 2 of 20; later 16. Each is sqrt(16) * 0.5 = 2 long, as at first,
    # when it was sqrt(2) * 1.414.
    late = T > 17
    history = stalled(np.where(late, 0.5, 1.414), diversity=np.where(late, 16.0, 2.0))

    found = watch(history)

    assert found.what == "drifting apart"
    assert "diversity of updates is 16 after 2 at first (1 is all alike, 20" in found.sentence
    assert "a client's is still 2 long, after 2" in found.sentence
    assert "fm.fedprox" in found.sentence and "fm.scaffold" in found.sentence


@pytest.mark.parametrize(
    ("late_norm", "late_diversity"),
    [(0.2, 16.0), (0.5, 3.0), (0.5, 8.0)],
    ids=["short of their own", "no more than at first", "more alike than not"],
)
def test_a_stall_is_no_drift_where_clients(late_norm, late_diversity):
    late = T > 17
    history = stalled(
        np.where(late, late_norm, 1.414), diversity=np.where(late, late_diversity, 2.0)
    )

    assert watch(history).what == "stalled"


def test_the_last_advice_is_that_of_the_last_evaluated_round():
    history = [{"evaluated": True, "advice": "stalled: so"}, {"evaluated": False}]

    assert last_advice(history) == "stalled: so"
    assert last_advice([*history, {"evaluated": True}]) is None
    assert last_advice([]) is None


def test_a_run_stops_with_the_monitors_sentence_once_it_was_found_twice():
    history, stop = stalled(np.full(50, 0.4), noise=0.0), converged()

    ended = [end for end in range(1, 51) if stop(history[:end])]

    # Found after 20 evaluations for the first time.
    assert ended[0] == 21
    assert stop(history[:21]).startswith("stalled: test_accuracy has gained nothing in the last 10")
    assert converged(1)(history[:20]) and converged(5)(history[:23]) is None
    assert converged()([]) is None


def test_a_stop_after_no_evaluation_is_refused():
    with pytest.raises(SettingsError, match="evaluations must be a finite number above 0"):
        converged(0)
