"""Who is asked: sizes, chances and refusals."""

import itertools
import math
import time
import tracemalloc

import numpy as np
import pytest

from folkmoot.core.errors import SettingsError
from folkmoot.train import sampling
from folkmoot.train.sampling import as_sampling, draw_cohort


def cohorts(rule, clients, rounds, seed=0):
    return [draw_cohort(rule, clients, round, seed).clients for round in range(1, rounds + 1)]


def shares(drawn, clients):
    """The share of rounds in which each client was asked."""
    return {client: sum(client in cohort for cohort in drawn) / len(drawn) for client in clients}


# Uniform


@pytest.mark.parametrize(
    ("cohort", "size"), [(1, 1), (7, 7), (10, 10), (None, 10), (0.5, 5), (1.0, 10), (0.01, 1)]
)
def test_a_uniform_cohort_has_exactly_its_size_and_nobody_twice(cohort, size):
    rule = sampling.uniform(cohort)

    for clients in cohorts(rule, range(10), 20):
        assert len(clients) == len(set(clients)) == size
        assert list(clients) == sorted(clients)
        assert set(clients) <= set(range(10))
    assert rule.expected(10) == size


def test_rounds_differ_and_equal_seeds_do_not():
    rule, clients = sampling.uniform(5), range(1_000)

    drawn = cohorts(rule, clients, 20)

    assert len(set(drawn)) == 20
    assert drawn == cohorts(rule, clients, 20)
    assert not set(drawn) & set(cohorts(rule, clients, 20, seed=1))


def test_everyone_is_asked_alike():
    asked = shares(cohorts(sampling.uniform(3), range(10), 3_000), range(10))

    # Four and a half deviations of a share of 3,000 rounds; ten clients.
    bound = 4.5 * math.sqrt(0.3 * 0.7 / 3_000)
    assert all(abs(share - 0.3) < bound for share in asked.values())


def test_ids_may_be_words():
    names = ("anna", "bert", "carl", "dora")

    drawn = cohorts(sampling.uniform(2), names, 50)

    assert set(itertools.chain(*drawn)) == set(names)
    assert all(list(clients) == sorted(clients) for clients in drawn)


# Poisson


def test_a_poisson_cohort_has_the_mean_and_variance_of_a_binomial():
    rounds, population, rate = 3_000, 50, 0.2
    sizes = np.array([len(c) for c in cohorts(sampling.poisson(10), range(population), rounds)])

    mean, variance = population * rate, population * rate * (1 - rate)
    assert abs(sizes.mean() - mean) < 4 * math.sqrt(variance / rounds)
    # The variance of a sample variance is about 2 v^2 / n.
    assert abs(sizes.var() - variance) < 4 * variance * math.sqrt(2 / rounds)


def test_two_clients_of_a_poisson_cohort_take_part_independently():
    drawn = cohorts(sampling.poisson(0.4), range(4), 4_000)

    for one, other in itertools.combinations(range(4), 2):
        both = sum(one in cohort and other in cohort for cohort in drawn) / 4_000
        # Without replacement it were 0.4 * 1 / 3 for a cohort of two.
        assert abs(both - 0.16) < 4.5 * math.sqrt(0.16 * 0.84 / 4_000)


def test_a_poisson_cohort_may_be_empty_or_everyone():
    sizes = {len(cohort) for cohort in cohorts(sampling.poisson(0.5), range(3), 200)}

    assert sizes == {0, 1, 2, 3}
    assert {len(cohort) for cohort in cohorts(sampling.poisson(1.0), range(3), 20)} == {3}


@pytest.mark.parametrize(("cohort", "expected"), [(10, 10), (0.2, 20)])
def test_a_poisson_rule_says_what_it_expects(cohort, expected):
    assert sampling.poisson(cohort).expected(100) == pytest.approx(expected)


# Weighted and fixed


def test_a_weighted_draw_of_one_follows_the_weights():
    weights = {0: 1.0, 1: 3.0, 2: 0.0, 3: 6.0}

    asked = shares(cohorts(sampling.weighted(1, weights), range(4), 3_000), range(4))

    for client, weight in weights.items():
        chance = weight / 10
        bound = 4.5 * math.sqrt(chance * (1 - chance) / 3_000)
        assert abs(asked[client] - chance) <= bound


def test_a_weighted_draw_of_two_is_one_after_the_other():
    chances = {"a": 0.5, "b": 0.3, "c": 0.2}
    drawn = cohorts(sampling.weighted(2, chances), tuple(chances), 4_000)

    for one, other in itertools.combinations(chances, 2):
        p, q = chances[one], chances[other]
        expected = p * q / (1 - p) + q * p / (1 - q)
        found = sum(set(cohort) == {one, other} for cohort in drawn) / 4_000
        assert abs(found - expected) < 4.5 * math.sqrt(expected * (1 - expected) / 4_000)


def test_a_fixed_cohort_is_the_same_each_round():
    rule = sampling.fixed([4, 1])

    assert cohorts(rule, range(5), 3) == [(1, 4)] * 3
    assert rule.expected(5) == 2


# A user's own function


@pytest.mark.parametrize("kind", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_a_function_is_a_sampling(kind):
    rule = as_sampling(lambda clients, round, rng: kind([round, round + 2]), None)

    drawn = cohorts(rule, range(9), 3)

    assert drawn == [(1, 3), (2, 4), (3, 5)]
    assert all(type(client) is int for client in itertools.chain(*drawn))


def test_a_function_is_given_the_clients_the_round_and_a_stream_of_its_own():
    seen = []

    def rule(clients, round, rng):
        seen.append((list(clients), round, rng.random()))
        return [clients[0]]

    cohorts(as_sampling(rule, None), ("a", "b"), 2)
    cohorts(as_sampling(rule, None), ("a", "b"), 2)

    assert [entry[:2] for entry in seen[:2]] == [(["a", "b"], 1), (["a", "b"], 2)]
    assert seen[:2] == seen[2:]
    assert seen[0][2] != seen[1][2]


@pytest.mark.parametrize(("cohort", "expected"), [(None, 200), (5, 5), (0.1, 20)])
def test_a_function_s_expected_cohort_is_what_the_run_says(cohort, expected):
    assert as_sampling(lambda clients, round, rng: [], cohort).expected(200) == expected


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (lambda: [0, 99], "'function picks' chose client 99 in round 1, who is unknown"),
        (lambda: [2, 2], "Client 2 stands twice"),
        (lambda: [0, "a"], "all int or all str"),
        (lambda: None, "must return a list of client ids, but returned NoneType"),
        (lambda: {1, 2}, "but returned set"),
        (lambda: 3, "but returned int"),
        (lambda: "ab", "but returned str"),
        (lambda: [1.5], "all int or all str"),
    ],
)
@pytest.mark.parametrize("clients", [range(5), tuple(range(5))], ids=["range", "tuple"])
def test_what_a_function_must_not_return_is_refused(returned, reason, clients):
    def picks(clients, round, rng):
        return returned()

    with pytest.raises(SettingsError, match=reason):
        draw_cohort(as_sampling(picks, None), clients, 1, 0)


# Refusals


@pytest.mark.parametrize("build", [sampling.uniform, sampling.poisson])
@pytest.mark.parametrize(
    ("cohort", "reason"),
    [
        (0, "cohort must be a finite number above 0, but is 0"),
        (-3, "but is -3"),
        (0.0, "but is 0.0"),
        (math.nan, "but is nan"),
        (1.5, "cohort=1.5 is a float, so a share .* write 1"),
        (20.0, "write 20"),
        (True, "whole number of clients, a share in .*, but is True"),
        ("5", "but is '5'"),
        ([1, 2], r"but is \[1, 2\]"),
    ],
)
def test_a_cohort_that_makes_no_sense_is_refused_when_it_is_written(build, cohort, reason):
    with pytest.raises(SettingsError, match=reason):
        build(cohort)


@pytest.mark.parametrize("cohort", [0, -1, 0.5, None, True, "2"])
def test_a_weighted_cohort_is_a_whole_number(cohort):
    with pytest.raises(SettingsError, match="cohort must be a whole number"):
        sampling.weighted(cohort, {0: 1.0})


def test_a_poisson_rule_needs_a_number():
    with pytest.raises(SettingsError, match="needs the expected number of clients"):
        sampling.poisson(None)


@pytest.mark.parametrize("build", [sampling.uniform, sampling.poisson])
def test_more_clients_than_there_are_are_refused(build):
    with pytest.raises(SettingsError, match=r"cohort of 11 .* population of 10"):
        build(11).expected(10)
    with pytest.raises(SettingsError, match=r"cohort of 11 .* population of 10"):
        draw_cohort(build(11), range(10), 1, 0)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({0: 1.0, 1: 1.0}, "no weight for client 2 and 0 others"),
        ({0: 1.0, 1: -1.0, 2: 1.0}, "finite, not negative"),
        ({0: 1.0, 1: math.nan, 2: 1.0}, "finite, not negative"),
        ({0: 1.0, 1: math.inf, 2: 1.0}, "finite, not negative"),
        ({0: 1.0, 1: 0.0, 2: 0.0}, "above 0 for at least the 2 clients"),
    ],
    ids=str,
)
def test_weights_that_cannot_be_drawn_by_are_refused(weights, reason):
    with pytest.raises(SettingsError, match=reason):
        draw_cohort(sampling.weighted(2, weights), range(3), 1, 0)


def test_two_answers_to_one_question_are_refused():
    with pytest.raises(SettingsError, match=r"cohort=5 and sampling='poisson'.*Give one"):
        as_sampling(sampling.poisson(5), 5)


def test_what_is_no_sampling_is_refused():
    with pytest.raises(SettingsError, match="but is 'uniform'"):
        as_sampling("uniform", None)


def test_nothing_named_is_uniform():
    assert as_sampling(None, 3).name == sampling.uniform(3).name
    assert as_sampling(None, None).expected(8) == 8


@pytest.mark.parametrize(
    ("cohort", "rounds", "reason"),
    [
        (None, 8, r"8 rounds have passed takes 8 clients, .* here are 4\. Use at most 4 rounds"),
        (0.5, 8, r"here are 4\. Use at most 4 rounds: a tree's restart of at most 4"),
        (
            2,
            3,
            r"2 clients a round, .* population of 6, but here are 4\. Ask for at most 1, or",
        ),
        (0.75, 2, r"3 clients a round, .* population of 6, but here are 4\. Ask for at most 2"),
    ],
)
def test_too_few_clients_to_keep_apart_are_refused_with_what_is_possible(cohort, rounds, reason):
    with pytest.raises(SettingsError, match=reason):
        sampling.separated(cohort, rounds).expected(4)


# A large population


@pytest.mark.parametrize(
    "rule", [sampling.uniform(50), sampling.uniform(50 / 1_000_000), sampling.poisson(50)]
)
def test_a_million_clients_are_never_listed(rule):
    population = range(1_000_000)
    draw_cohort(rule, population, 1, 0)
    tracemalloc.start()
    begun = time.perf_counter()

    drawn = [draw_cohort(rule, population, round, 0) for round in range(1, 21)]

    seconds = time.perf_counter() - begun
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Twenty cohorts of about fifty ids; a list of the population were 8 MB and more.
    assert peak_bytes < 1_000_000
    assert seconds < 2
    assert all(cohort.population == 1_000_000 for cohort in drawn)
    assert sum(len(cohort.clients) for cohort in drawn) == pytest.approx(1_000, rel=0.2)
    assert max(max(cohort.clients) for cohort in drawn) > 900_000


def test_a_cohort_says_round_population_expectation_and_part():
    cohort = draw_cohort(sampling.poisson(2), range(8), 3, 0, part="test")

    assert (cohort.round, cohort.population, cohort.expected, cohort.part) == (3, 8, 2.0, "test")
