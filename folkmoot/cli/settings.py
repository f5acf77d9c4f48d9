"""`--set key=value`: an app's settings, read by the types and defaults of its arguments."""

import inspect
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Union

from folkmoot.cli.app import App
from folkmoot.core.errors import SettingsError, did_you_mean

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_NAMES = {
    bool: "yes or no",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    types.NoneType: "none",
}
_NOTHING = inspect.Parameter.empty


def chosen(app: App, given: Sequence[str]) -> dict[str, Any]:
    """Return the values of all settings that were given, by name.

    Args:
        app: Whose settings they are.
        given: Texts of the form key=value; of two for one key the last counts.

    Raises:
        SettingsError: If a key is unknown, a value does not fit, or one that is needed is missing.
    """
    known = _known(app)
    values = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise SettingsError(f"--set {text}: write key=value, such as --set {_example(known)}.")
        if key not in known:
            near = did_you_mean(key, known, listed=False)
            raise SettingsError(f"{app.path} has no setting {key!r}.{near} {_listed(known)}")
        values[key] = _read(key, value, _kind(known[key]))
    for key, parameter in known.items():
        if parameter.default is _NOTHING and key not in values:
            raise SettingsError(f"{app.path} needs a value for {key!r}: --set {key}=...")
    return values


def _known(app: App) -> dict[str, inspect.Parameter]:
    """Return the function's arguments that have a name."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(app.function, eval_str=True).parameters
    return {key: parameter for key, parameter in found.items() if parameter.kind in named}


def _listed(known: dict[str, inspect.Parameter]) -> str:
    """Write the settings with their types and defaults."""
    if not known:
        return "It has none."
    return f"Its settings are {', '.join(_spelled(parameter) for parameter in known.values())}."


def _spelled(parameter: inspect.Parameter) -> str:
    default = "" if parameter.default is _NOTHING else f" = {parameter.default!r}"
    kind = _kind(parameter)
    return f"{parameter.name}: {getattr(kind, '__name__', kind)}{default}"


def _example(known: dict[str, inspect.Parameter]) -> str:
    key = next(iter(known), "rounds")
    default = known[key].default if key in known else 10
    return f"{key}={'...' if default is _NOTHING else default}"


def _kind(parameter: inspect.Parameter) -> Any:
    """Return a setting's type: what is written, else its default's."""
    if parameter.annotation is not _NOTHING:
        return parameter.annotation
    return str if parameter.default in (_NOTHING, None) else type(parameter.default)


def _read(key: str, text: str, kind: Any) -> Any:
    try:
        return _value(text, kind)
    except SettingsError:
        raise
    except ValueError:
        raise SettingsError(f"--set {key}={text}: {key} must be {_named(kind)}.") from None


def _value(text: str, kind: Any) -> Any:
    """Read a text as a type; a ValueError says that it is none."""
    outer, inner = typing.get_origin(kind), typing.get_args(kind)
    if outer in (Union, types.UnionType):
        return _first(text, inner)
    if outer is Literal:
        choices = {str(choice): choice for choice in inner}
        return choices[text] if text in choices else _no()
    if outer in (list, tuple):
        parts = [_value(part.strip(), inner[0]) for part in text.split(",") if part.strip()]
        return outer(parts)
    if kind is bool:
        return text.lower() in _TRUE if text.lower() in (*_TRUE, *_FALSE) else _no()
    if kind is types.NoneType:
        return None if text.lower() == "none" else _no()
    if kind is Any:
        return text
    if kind in (int, float, str, Path):
        return kind(text)
    raise SettingsError(
        f"A setting of type {getattr(kind, '__name__', kind)} cannot be typed: --set reads "
        "numbers, texts, yes or no, paths, and lists of these."
    )


def _first(text: str, kinds: Sequence[Any]) -> Any:
    """Read a text as the first type that it fits; `none` and numbers before texts."""
    for kind in sorted(kinds, key=lambda one: (one is str, one is not types.NoneType)):
        try:
            return _value(text, kind)
        except ValueError:
            continue
    return _no()


def _no() -> Any:
    raise ValueError


def _named(kind: Any) -> str:
    outer, inner = typing.get_origin(kind), typing.get_args(kind)
    if outer in (Union, types.UnionType):
        return " or ".join(_named(one) for one in inner)
    if outer is Literal:
        return f"one of {', '.join(str(choice) for choice in inner)}"
    if outer in (list, tuple):
        return f"{_named(inner[0])}, or several with commas between"
    return _NAMES.get(kind, str(kind))
