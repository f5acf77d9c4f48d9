"""A near miss is named; what is far from all is answered with what is known, or with nothing."""

from folkmoot.core.errors import did_you_mean

KNOWN = ["rounds", "cohort", "seed"]


def test_a_near_miss_is_named_alone():
    assert did_you_mean("round", KNOWN) == " Did you mean 'rounds'?"
    assert did_you_mean("round", KNOWN, listed=False) == " Did you mean 'rounds'?"


def test_what_is_near_to_nothing_is_answered_with_all_that_is_known():
    assert did_you_mean("privacy", KNOWN) == " Known: cohort, rounds, seed."


def test_who_lists_what_is_known_in_another_way_hears_nothing():
    assert did_you_mean("privacy", KNOWN, listed=False) == ""
