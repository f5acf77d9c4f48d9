"""Schedules give their formula's rate, act in work and server, and are part of a stored run."""

import math

import pytest

import folkmoot as fm
from folkmoot.core.errors import SettingsError
from folkmoot.schedules import cosine, exponential, piecewise, warmup


def rates(schedule, rounds):
    return [schedule(number) for number in rounds]


def test_exponential_multiplies_after_every_so_many_rounds():
    assert rates(exponential(0.8, 0.5), (1, 2, 3, 4)) == [0.8, 0.4, 0.2, 0.1]
    assert rates(exponential(0.8, 0.5, every=2), (1, 2, 3, 4, 5)) == [0.8, 0.8, 0.4, 0.4, 0.2]
    assert rates(exponential(0.8, 1.0), (1, 1000)) == [0.8, 0.8]


def test_cosine_falls_from_the_rate_to_the_floor_and_stays_there():
    # (1 + cos(0)) / 2 = 1, (1 + cos(pi / 3)) / 2 = 3 / 4, (1 + cos(pi / 2)) / 2 = 1 / 2.
    expected = {1: 1.0, 3: 0.8, 4: 0.6, 5: 0.4, 7: 0.2, 8: 0.2, 1000: 0.2}

    found = rates(cosine(1.0, 6, floor=0.2), expected)

    assert found == pytest.approx([*expected.values()], rel=1e-12)


def test_the_last_round_of_a_cosine_still_moves():
    assert cosine(1.0, 10)(10) == pytest.approx((1 - math.cos(math.pi / 10)) / 2, rel=1e-12)
    assert cosine(1.0, 10)(11) == 0.0


def test_warmup_rises_evenly_to_the_rate():
    assert rates(warmup(0.8, 4), (1, 2, 3, 4, 5, 100)) == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 0.8, 0.8], rel=1e-12
    )
    assert warmup(0.5, 1)(1) == 0.5


def test_warmup_goes_over_another_schedule_whose_rounds_are_the_run_s():
    found = rates(warmup(exponential(0.8, 0.5), 2), (1, 2, 3))

    assert found == [0.4, 0.4, 0.2]  # 0.8 / 2, 0.4, 0.2.


def test_piecewise_multiplies_factors_in_the_order_of_rounds():
    assert rates(piecewise(0.5, {5: 0.5, 3: 0.25}), (1, 2, 3, 4, 5, 99)) == [
        0.5,
        0.5,
        0.125,
        0.125,
        0.0625,
        0.0625,
    ]


def test_a_schedule_keeps_its_factors_when_the_caller_changes_them():
    factors = {2: 0.5}
    schedule = piecewise(1.0, factors)

    factors[2] = 0.1

    assert schedule(2) == 0.5


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: exponential(-0.1, 0.5), "lr must be a finite number of at least 0, but is -0.1"),
        (lambda: exponential(0.1, 0.0), "decay must be a finite number above 0, but is 0.0"),
        (lambda: exponential(0.1, 1.5), "decay must be at most 1, but is 1.5"),
        (lambda: exponential(0.1, 0.5, every=0), "every must be a whole number of at least 1"),
        (lambda: exponential(0.1, 0.5, every=1.5), "every must be a whole number"),
        (lambda: cosine(0.1, 0), "rounds must be a whole number of at least 1, but is 0"),
        (lambda: cosine(0.1, True), "rounds must be a whole number"),
        (lambda: cosine(math.nan, 10), "lr must be"),
        (lambda: cosine(0.1, 10, floor=0.2), "floor must be at most lr=0.1, but is 0.2"),
        (lambda: cosine(0.1, 10, floor=-1.0), "floor must be"),
        (lambda: warmup("0.1", 10), "lr must be"),
        (lambda: warmup(0.1, -3), "rounds must be"),
        (lambda: piecewise(math.inf, {3: 0.1}), "lr must be"),
        (lambda: piecewise(0.1, {}), r"piecewise\(\) needs factors by round, such as"),
        (lambda: piecewise(0.1, [3, 5]), r"but was given \[3, 5\]"),
        (lambda: piecewise(0.1, {0: 0.1}), "a round of factors must be a whole number"),
        (lambda: piecewise(0.1, {3: -0.1}), r"factors\[3\] must be a finite number of at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(build, reason):
    with pytest.raises(SettingsError, match=reason):
        build()


ENGINES = {"sequential": fm.engines.sequential(), "vectorized": fm.engines.vectorized()}


def run(line, pull, local, server, rounds, **options):
    work = fm.local.sgd(line(), lr=local)
    algorithm = fm.fedavg(work, server=fm.optimizers.sgd(server))
    return fm.run(
        algorithm, [pull(-1.0), pull(-1.0)], rounds=rounds, progress=False, workers=1, **options
    )


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_a_run_moves_by_the_work_s_rate_times_the_server_s(engine, line, pull):
    local, server = exponential(0.5, 0.5), piecewise(1.0, {2: 2.0, 3: 0.5})
    work = fm.local.sgd(line(), lr=local, steps=3)
    algorithm = fm.fedavg(work, server=fm.optimizers.sgd(server))

    result = fm.run(algorithm, [pull(-1.0)] * 2, rounds=3, progress=False, engine=engine)

    # Three local steps a round: 3 * (0.5 * 1 + 0.25 * 2 + 0.125 * 1).
    assert result.model.w.item() == pytest.approx(3.375, rel=1e-6)


def test_a_round_without_an_answer_is_not_counted(line, pull, one_round):
    algorithm = fm.fedavg(fm.local.sgd(line(), lr=piecewise(0.5, {2: 0.0})))

    skipped, report = one_round(algorithm, {0: pull(-1.0, rows=0)})
    moved, _ = one_round(algorithm, {0: pull(-1.0)}, skipped)

    assert report.skipped
    assert moved.round == 2
    assert moved.state["params"]["w"].item() == 0.5


OTHERS = {
    "decay was 0.5 and is 0.25": exponential(0.5, 0.25),
    "lr was 0.5 and is 0.25": exponential(0.25, 0.5),
    "every was 1 and is 2": exponential(0.5, 0.5, every=2),
    "schedules.cosine": cosine(0.5, 4),
    "schedules.warmup": warmup(exponential(0.5, 0.5), 2),
    "lr was": 0.5,
}


@pytest.mark.parametrize("side", ["local", "server"])
def test_a_stored_run_does_not_go_on_with_another_schedule(side, line, pull, tmp_path):
    rates = {"local": exponential(0.5, 0.5), "server": exponential(0.5, 0.5)}
    run(line, pull, **rates, rounds=2, checkpoint=tmp_path)

    for sentence, other in OTHERS.items():
        with pytest.raises(SettingsError, match=sentence):
            run(line, pull, **{**rates, side: other}, rounds=3, checkpoint=tmp_path, resume=True)


def test_a_stored_run_goes_on_with_the_same_schedule_to_the_same_bits(line, pull, tmp_path):
    def rates():
        return {"local": warmup(cosine(0.5, 5), 2), "server": piecewise(1.0, {3: 0.3})}

    run(line, pull, **rates(), rounds=2, checkpoint=tmp_path)
    resumed = run(line, pull, **rates(), rounds=4, checkpoint=tmp_path, resume=True)
    straight = run(line, pull, **rates(), rounds=4)

    assert resumed.model.w.item() == straight.model.w.item()
