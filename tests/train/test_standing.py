"""How a run goes on from round to round, and how it ends: by a rule, or because nobody answers."""

import numpy as np
import pytest
from torch import tensor

import folkmoot as fm
from folkmoot.core.errors import QuorumError, SettingsError


@pytest.fixture
def train(line, pull):
    """Run plain averaging of two clients, whose answers may weigh nothing."""

    def trained(rounds=2, weight=1.0, **options):
        work = fm.local.sgd(line(1.0), lr=0.5)

        def finish(sent, carry, seen):
            update, own = work.finish(sent, carry, seen)
            return update._replace(weight=weight), own

        built = fm.fedavg(work._replace(finish=finish))
        given = {"rounds": rounds, "workers": 1, "progress": False} | options
        return fm.run(built, [pull(2.0), pull(4.0)], **given)

    return trained


def asking_in(*rounds):
    """Ask the first client in these rounds, and nobody in all others."""
    return lambda clients, round, rng: clients[:1] if round in rounds else []


@pytest.mark.parametrize("nothing", [False, None, "", np.False_], ids=repr)
def test_a_rule_that_says_nothing_lets_the_run_go_on(train, nothing):
    result = train(rounds=3, stop=lambda history: nothing)

    assert (result.rounds, result.ended) == (3, None)


@pytest.mark.parametrize("yes", [True, np.True_], ids=repr)
def test_a_rule_that_only_says_yes_ends_the_run_with_a_sentence(train, yes, tmp_path):
    result = train(rounds=3, stop=lambda history: yes, save=tmp_path)

    assert (result.rounds, result.ended) == (1, "the stopping rule said so")
    assert "the stopping rule said so" in str(result)
    assert fm.load_result(tmp_path).ended == "the stopping rule said so"


@pytest.mark.parametrize(("found", "kind"), [(3, "int"), (0.0, "float"), (tensor(True), "Tensor")])
def test_a_rule_that_answers_with_something_else_is_refused_by_its_type(train, found, kind):
    with pytest.raises(SettingsError, match=rf"returned .* of type {kind}\. Return why to stop"):
        train(stop=lambda history: found)


def test_rounds_that_asked_nobody_are_no_silence(train):
    result = train(rounds=6, sampling=asking_in(1, 6))

    assert [row["asked"] for row in result.history] == [1, 0, 0, 0, 0, 1]
    assert result.model.w.item() == 1 - 2 * 0.5 * 2.0


def test_poisson_cohorts_may_be_empty_for_as_long_as_they_like(train):
    result = train(rounds=60, sampling=fm.sampling.poisson(0.05), seed=1)

    asked = [row["asked"] for row in result.history]
    assert "000" in "".join(map(str, asked))
    assert sum(asked) > 0


def test_three_rounds_that_asked_and_had_no_result_end_a_run(train):
    with pytest.raises(QuorumError, match=r"3 rounds in a row had no result.*add up to 0"):
        train(rounds=9, weight=0.0, sampling=asking_in(1, 4, 7, 9))


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_run_of_which_no_round_had_a_result_is_no_model(train, rounds):
    said = rf"None of {rounds} rounds? had a result, so nothing was learnt\. .*add up to 0"

    with pytest.raises(QuorumError, match=said):
        train(rounds=rounds, weight=0.0)


def test_a_run_in_which_nobody_was_asked_is_no_model(train):
    with pytest.raises(QuorumError, match=r"None of 5 rounds asked anybody.*larger cohort"):
        train(rounds=5, sampling=asking_in())


def test_a_resumed_run_counts_the_rounds_before_it(train, tmp_path):
    sampling = asking_in(1)
    train(rounds=1, checkpoint=tmp_path, sampling=sampling)

    result = train(rounds=3, checkpoint=tmp_path, sampling=sampling, resume=True)

    assert [row["asked"] for row in result.history] == [1, 0, 0]


def test_a_run_that_asked_nobody_yet_can_be_gone_on_with(train, tmp_path):
    sampling = asking_in(3)
    with pytest.raises(QuorumError, match="None of 2 rounds asked anybody"):
        train(checkpoint=tmp_path, sampling=sampling)

    with pytest.raises(QuorumError, match="None of 2 rounds asked anybody"):
        train(checkpoint=tmp_path, sampling=sampling, resume=True)
    result = train(rounds=3, checkpoint=tmp_path, sampling=sampling, resume=True)

    assert result.history[-1]["answered"] == 1
