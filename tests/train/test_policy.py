"""Options about time: what each takes, what it has no meaning beside, and what is said then."""

import math

import pytest
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError
from folkmoot.train.policy import ALWAYS, Policy, policy_of

FLEET = fm.fleets.hospitals()


def policy(fleet=FLEET, **options):
    names = ("deadline_s", "over_select", "quorum", "pace_s", "partial", "buffer", "staleness")
    given = dict.fromkeys(names) | {"partial": False} | options
    return policy_of(fleet, **given)


def test_no_option_is_a_round_that_waits_for_everyone():
    assert policy() == policy(None) == ALWAYS == Policy()
    assert not ALWAYS.carries and ALWAYS.deadline_s == math.inf


def test_options_are_taken_as_they_are():
    found = policy(deadline_s=600, over_select=1.3, quorum=0.7, pace_s=900.0, partial=True)

    assert found == Policy(deadline_s=600, over_select=1.3, quorum=0.7, pace_s=900.0, partial=True)


def test_a_buffer_has_a_rule_of_staleness_where_none_is_given():
    found = policy(buffer=10)

    assert found.carries and found.staleness.weight(3) == 0.5 and found.staleness.at_most == 100


@pytest.mark.parametrize(
    ("quorum", "asked", "least"),
    # 0.7 * 10 and 0.1 * 3 are not whole in floating numbers.
    [(1, 0, 1), (5, 3, 5), (0.5, 10, 5), (0.51, 10, 6), (0.7, 10, 7), (0.1, 30, 3), (0.5, 0, 1)],
)
def test_a_quorum_is_a_number_of_answers_or_a_share_of_those_asked(quorum, asked, least):
    assert Policy(quorum=quorum).least(asked) == least


def test_a_round_that_hides_who_takes_part_has_no_quorum():
    assert Policy(quorum=3, hides=True).least(10) == 0


@pytest.mark.parametrize(
    ("rule", "discounts"),
    [(fm.staleness.polynomial(0.5), True), (fm.staleness.polynomial(0), False), (None, False)],
)
def test_a_policy_knows_whether_late_answers_count_for_less(rule, discounts):
    assert Policy(buffer=2, staleness=rule).discounts == discounts


REFUSED = {
    "no time": ({"deadline_s": 0}, r"deadline_s must be a finite number above 0, but is 0\."),
    "less than no time": ({"deadline_s": -1.0}, "deadline_s must be .* but is -1.0"),
    "time as text": ({"deadline_s": "3"}, "deadline_s must be a finite number .* but is '3'"),
    "time that is NaN": ({"deadline_s": math.nan}, "deadline_s must be a finite .* is nan"),
    "true as time": ({"deadline_s": True}, "deadline_s must be .* but is True"),
    "half of those wanted": (
        {"over_select": 0.5},
        r"over_select must be at least 1, but is 0\.5: 1\.3 asks 13 devices for each 10 answers\.",
    ),
    "over-selection without end": ({"over_select": math.inf}, "at least 1, but is inf"),
    "over-selection as NaN": ({"over_select": math.nan}, "at least 1, but is nan"),
    "over-selection as text": ({"over_select": "2"}, "over_select must be a number, but is '2'"),
    "over-selection as a flag": ({"over_select": True}, "over_select must be a number"),
    "no quorum": ({"quorum": 0}, r"at least 1, or a share in \(0, 1\] of those asked, but is 0\."),
    "more than all": ({"quorum": 1.5}, r"a share in \(0, 1\] of those asked, but is 1\.5"),
    "a quorum as a flag": ({"quorum": True}, "quorum must be a whole number .* but is True"),
    "a quorum as text": ({"quorum": "half"}, "quorum must be .* but is 'half'"),
    "a quorum that is NaN": ({"quorum": math.nan}, "quorum must be .* but is nan"),
    "pace backwards": ({"pace_s": -1}, "pace_s must be a finite number of at least 0, but is -1"),
    "partial as text": (
        {"partial": "yes", "deadline_s": 1.0},
        "partial must be True or False, but is 'yes'",
    ),
    "partial without a deadline": ({"partial": True}, r"pass deadline_s="),
    "no buffer": ({"buffer": 0}, "buffer must be a whole number of at least 1, but is 0"),
    "a part of a buffer": ({"buffer": 2.5}, "buffer must be a whole number .* but is 2.5"),
    "a buffer as a flag": ({"buffer": True}, "buffer must be a whole number .* but is True"),
    "staleness where nothing is stale": (
        {"staleness": fm.staleness.polynomial()},
        r"Leave staleness= out, or pass buffer=10\.",
    ),
    "late answers that outweigh fresh ones": (
        {"buffer": 2, "staleness": lambda stale: 1 + stale},
        r"An answer of staleness 1 would weigh 2 .*at most 1, so that no late answer outweighs",
    ),
    "over-selection of a buffer": (
        {"buffer": 2, "over_select": 1.5},
        r"Leave over_select= or buffer= out\.",
    ),
    "a quorum of a buffer": ({"buffer": 2, "quorum": 1}, r"Leave quorum= or buffer= out\."),
    "partial work of a buffer": (
        {"buffer": 2, "partial": True, "deadline_s": 1.0},
        r"Leave partial= or buffer= out\.",
    ),
    "a fleet by name": ({"fleet": "phones"}, r"must be a fm\.Fleet, such as .* but is 'phones'\."),
    "a preset that was not called": ({"fleet": fm.fleets.phones}, r"fm\.fleets\.phones\(\), but"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_with_the_cure(options, said):
    with pytest.raises(SettingsError, match=said):
        policy(**options)


@pytest.mark.parametrize(
    "option",
    [
        {"deadline_s": 3.0},
        {"over_select": 1.5},
        {"quorum": 2},
        {"pace_s": 1.0},
        {"partial": True},
        {"buffer": 2},
        {"staleness": fm.staleness.hinge()},
    ],
    ids=lambda option: next(iter(option)),
)
def test_an_option_without_a_fleet_is_refused_by_its_name(option):
    (name,) = option

    with pytest.raises(SettingsError, match=rf"^{name}= .*fleet=fm\.fleets\.phones\(\)"):
        policy(None, **option)


def test_the_front_door_says_the_same():
    work = fm.local.sgd(fm.classifier(nn.Linear(1, 2)), lr=0.1)

    with pytest.raises(SettingsError, match=r"^deadline_s= is about how long devices take"):
        fm.run(fm.fedavg(work), [], rounds=1, deadline_s=3.0)
