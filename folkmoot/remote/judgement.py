"""What a call will give, judged before it runs: shapes, bytes and labels.

A training step makes the same calls on objects of the same sorts again and again, so judgements are
kept. Which rows an object is of is no part of its sort: what counts is whether all are of the same.
"""

from typing import Any, NamedTuple

from folkmoot.remote import outlines
from folkmoot.remote.errors import RemoteError
from folkmoot.remote.labels import TANGLED, Kind, Label, is_blend, joined
from folkmoot.remote.objects import Held, Sort, sort_of
from folkmoot.remote.operators import Operator
from folkmoot.remote.rules import Call, label_of

FAILS = (
    *(RuntimeError, TypeError, ValueError, LookupError, ArithmeticError, MemoryError),
    *(AttributeError, AssertionError),
)
"""What torch raises where an operator cannot take what it is given."""
_MOST_KEPT = 4096


class Judgement(NamedTuple):
    """What a call will give."""

    outcome: outlines.Outcome
    label: Label
    """Of all its results; of what it leaves in its first argument, where it writes there."""
    sorts: tuple[Sort, ...]


_KEPT: dict[Any, Judgement] = {}


def judged(
    operator: Operator, args: list[Any], kwargs: dict[str, Any], held: list[Held]
) -> Judgement:
    """Judge a call.

    Args:
        operator: From the allow-list.
        args, kwargs: What it is given, with objects in the place of tensors.
        held: The objects among them.

    Raises:
        RemoteError: If it cannot take them.
    """
    if operator.name == "getitem":
        return _judged(operator, args, kwargs, held)
    rows = None
    together = True
    for one in held:
        if one.label.kind is Kind.ROWS:
            together = together and (rows is None or one.label.key == rows)
            rows = one.label.key
    key = (operator.name, together, *map(_key, args), *(kwargs and _key(kwargs)))
    found = _KEPT.get(key)
    if found is None:
        if len(_KEPT) >= _MOST_KEPT:
            _KEPT.clear()
        found = _KEPT[key] = _judged(operator, args, kwargs, held)
    if found.label.kind is Kind.ROWS:
        return found._replace(label=found.label._replace(key=rows))
    return found


def words_of(error: Exception) -> str:
    """Return the first line of what an error says."""
    return str(error).partition("\n")[0] or type(error).__name__


def _judged(
    operator: Operator, args: list[Any], kwargs: dict[str, Any], held: list[Held]
) -> Judgement:
    try:
        outcome = outlines.outcome(operator, args, kwargs)
    except FAILS as error:
        raise RemoteError(words_of(error)) from error
    call = Call(operator.name, args, kwargs, outcome.outlines[0].shape, held)
    label = _overwritten(call) if 0 in operator.writes else label_of(call)
    return Judgement(outcome, label, tuple(sort_of(one, label) for one in outcome.outlines))


def _overwritten(call: Call) -> Label:
    """Return the label of what an operator leaves in its first argument."""
    labels = [one.label for one in call.held]
    if call.name in ("fill_", "zero_"):
        return joined(labels[1:])
    if call.name == "copy_" and len(call.held) == 2:
        target, source = call.held
        whole = source.outline.shape == target.outline.shape
        rows = whole and source.label.kind is Kind.ROWS
        return source.label if rows or is_blend(source.label) else TANGLED
    if call.name == "setitem" or all(map(is_blend, labels)):
        return joined(labels)
    return label_of(call._replace(name=call.name[:-1]))


def _key(value: Any) -> Any:
    kind = type(value)
    if kind is Held:
        return Held, value.sort
    if kind is int or kind is str or value is None:
        return value
    if kind is dict:
        return tuple((name, _key(one)) for name, one in value.items())
    if kind is slice:
        return kind, value.start, value.stop, value.step
    if kind is list or kind is tuple:
        return kind, *map(_key, value)
    # 1, 1.0 and True are equal, and do not give the same dtype.
    return kind, value
