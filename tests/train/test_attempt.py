"""Errors of the user's code are caught in one place of a check, and returned."""

import pytest

from folkmoot.train.attempt import attempt


def test_what_is_returned_comes_back():
    assert attempt(divmod, 7, 2) == (3, 1)
    assert attempt(sorted, [1, 2], reverse=True) == [2, 1]


def test_what_is_raised_comes_back_too():
    assert isinstance(attempt(divmod, 7, 0), ZeroDivisionError)


def test_an_interruption_is_no_error_of_the_user():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(interrupted)
