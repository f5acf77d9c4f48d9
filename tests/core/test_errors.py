"""A near miss is named; what is far from all is answered with what is known, or with nothing."""

import pytest

from folkmoot.core.errors import SettingsError, did_you_mean, not_negative, positive

KNOWN = ["rounds", "cohort", "seed"]


def test_a_near_miss_is_named_alone():
    assert did_you_mean("round", KNOWN) == " Did you mean 'rounds'?"
    assert did_you_mean("round", KNOWN, listed=False) == " Did you mean 'rounds'?"


def test_what_is_near_to_nothing_is_answered_with_all_that_is_known():
    assert did_you_mean("privacy", KNOWN) == " Known: cohort, rounds, seed."


def test_who_lists_what_is_known_in_another_way_hears_nothing():
    assert did_you_mean("privacy", KNOWN, listed=False) == ""


@pytest.mark.parametrize("refuse", [positive, not_negative])
@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), -1])
def test_what_is_no_number_is_refused_by_name_and_value(refuse, value):
    with pytest.raises(SettingsError, match=f"lr must be a finite number .*, but is {value!r}"):
        refuse(lr=value)
