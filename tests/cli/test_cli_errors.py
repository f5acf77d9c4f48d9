"""Errors end in a code, which their kind or the place of their last frame decides."""

import pytest

from folkmoot.cli.errors import exit_code, own_frames
from folkmoot.core import errors
from folkmoot.data import from_folder


def caught(function):
    with pytest.raises((OSError, ValueError)) as found:
        function()
    return found.value


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.SettingsError, 2),
        (errors.DataError, 2),
        (errors.ClientError, 3),
        (errors.QuorumError, 4),
        (errors.DivergenceError, 4),
        (errors.CheckpointError, 5),
        (ZeroDivisionError, 3),
    ],
)
def test_the_kind_of_an_error_decides_its_code(kind, code):
    assert exit_code(kind("a sentence")) == code


def test_a_file_that_fails_in_the_users_code_is_the_users_error():
    def app():
        open("/nowhere/at/all")  # noqa: SIM115

    assert exit_code(caught(app)) == 3


def test_frames_of_folkmoot_and_of_libraries_are_left_out():
    def app():
        from_folder("/nowhere/at/all")

    files = {frame.filename for frame in own_frames(caught(app))}

    assert files == {__file__}
