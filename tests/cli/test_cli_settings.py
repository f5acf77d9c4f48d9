"""`--set key=value`: texts become what the arguments of an app ask for."""

from pathlib import Path
from typing import Literal

import pytest

from folkmoot.cli.app import App
from folkmoot.cli.settings import chosen
from folkmoot.core.errors import SettingsError


def app_of(function):
    return App(Path("app.py"), "app", "", function)


def read(kind, text):
    def app(x): ...

    app.__annotations__["x"] = kind
    return chosen(app_of(app), [f"x={text}"])["x"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "12", 12),
        (float, "1e-3", 0.001),
        (float, "3", 3.0),
        (bool, "yes", True),
        (bool, "False", False),
        (str, "a=b", "a=b"),
        (Path, "data/here", Path("data/here")),
        (int | None, "none", None),
        (int | None, "5", 5),
        (int | str, "5", 5),
        (int | str, "five", "five"),
        (Literal["adam", "sgd"], "sgd", "sgd"),
        (Literal[1, 2], "2", 2),
        (tuple[int, ...], "128,64", (128, 64)),
        (list[float], "0.1, 1", [0.1, 1.0]),
    ],
)
def test_a_text_is_read_by_the_annotation(kind, text, value):
    found = read(kind, text)

    assert found == value
    assert type(found) is type(value)


def test_without_annotation_the_default_says_the_type():
    def app(rounds=3, lr=0.5, name="a", deep=False): ...

    given = ["rounds=4", "lr=1", "name=7", "deep=on"]

    assert chosen(app_of(app), given) == {"rounds": 4, "lr": 1.0, "name": "7", "deep": True}


def test_the_last_of_two_values_counts():
    def app(rounds: int = 3): ...

    assert chosen(app_of(app), ["rounds=4", "rounds=5"]) == {"rounds": 5}


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (int, "3.5", "x must be a whole number"),
        (bool, "maybe", "x must be yes or no"),
        (int | None, "few", "x must be a whole number or none"),
        (Literal["adam", "sgd"], "sdg", "x must be one of adam, sgd"),
        (tuple[int, ...], "1;2", "x must be a whole number, or several with commas between"),
        (dict, "{}", "A setting of type dict cannot be typed"),
    ],
)
def test_a_text_that_does_not_fit_is_refused_with_what_would(kind, text, sentence):
    with pytest.raises(SettingsError, match=sentence):
        read(kind, text)


def test_an_unknown_key_is_refused_with_the_near_one_and_the_list():
    def app(num_rounds: int = 20, *, lr: float): ...

    with pytest.raises(SettingsError) as refusal:
        chosen(app_of(app), ["rounds=3"])

    assert str(refusal.value) == (
        "app.py has no setting 'rounds'. Did you mean 'num_rounds'? "
        "Its settings are num_rounds: int = 20, lr: float."
    )
