"""Losses and metrics of Keras as ours: values a row, and sums that add up over clients.

A Keras loss is called on (targets, outputs) and reduces a batch to one number; here it is asked
before that, so that rows can be weighed and clipped. A Keras metric adds to variables of its own,
which would be a side door out of a client; those that are a mean of a function over rows become
that function, and all others are refused.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from folkmoot.adapters.keras_library import library
from folkmoot.core.errors import SettingsError
from folkmoot.local.metrics import Metric, ratio
from folkmoot.local.replica import Loss

Each = Callable[[Any, Any], Tensor]
"""`each(targets, outputs)` -> values, (rows, ...), in Keras' order of arguments."""


def loss_of(given: Any) -> Loss:
    """Return a Keras loss as `loss(outputs, targets)` -> (rows,).

    Values of several places a row, such as of a sequence, are averaged over the row, without what
    Keras has masked. A loss that returns one number stays one.

    Args:
        given: A `keras.losses.Loss`, a name that Keras knows, or a function of (targets, outputs).

    Raises:
        SettingsError: If it is none of these, or adds rows up in place of averaging them.
    """
    keras = library()
    if isinstance(given, dict | list | tuple):
        raise SettingsError(
            f"A model is trained on one loss, but {len(given)} were given. For several outputs, "
            "pass loss= a function of (targets, outputs) that adds up theirs."
        )
    found = _known(keras.losses, given, "loss")
    if not callable(found) or isinstance(found, type):
        raise SettingsError(
            f"The loss must be a keras.losses.Loss, its name, or a function of (targets, outputs), "
            f"but is {found!r}."
        )
    if getattr(found, "reduction", None) == "sum":
        raise SettingsError(
            f"The loss {found.name!r} adds rows up, so that a step would grow with its batch. "
            'Build it with reduction="sum_over_batch_size".'
        )
    each = _in_float(found.call, found.dtype) if isinstance(found, keras.losses.Loss) else found

    def loss(outputs: Any, targets: Any) -> Tensor:
        values = _called(each, outputs, targets)
        if values.dim() == 0:
            return values
        total, share = _by_row(values, outputs)
        return total / share.clamp(min=1e-7)

    return loss


def metric_of(given: Any) -> Metric:
    """Return a Keras metric as sums over rows, or a metric of ours as it is.

    Args:
        given: A `keras.metrics.MeanMetricWrapper`, as most of Keras' metrics are, a function of
            (targets, outputs), a name that Keras knows, or a `Metric`.

    Raises:
        SettingsError: If it is none of these; it is named, with what to use in its place.
    """
    keras = library()
    if isinstance(given, Metric):
        return given
    if isinstance(given, str) and given.lower() in ("accuracy", "acc"):
        return _mean(given, _accuracy, "up")
    found = _known(keras.metrics, given, "metric")
    kind = keras.metrics.MeanMetricWrapper
    if isinstance(found, kind) and type(found).update_state is kind.update_state:
        each: Each = _with_options(found._fn, found._fn_kwargs)
        return _mean(found.name, each, getattr(found, "_direction", None))
    if callable(found) and not isinstance(found, type | keras.metrics.Metric):
        return _mean(given if isinstance(given, str) else found.__name__, found, None)
    raise SettingsError(_refusal(found))


def _refusal(found: Any) -> str:
    name = getattr(found, "name", None) or repr(found)
    kind = type(found).__name__
    cure = {
        "RootMeanSquaredError": "fm.metrics.rmse()",
        "F1Score": "fm.metrics.f1()",
        "FBetaScore": "fm.metrics.f1()",
    }.get(kind, "fm.metrics.whole(name, function)")
    return (
        f"The Keras metric {name!r} ({kind}) is no mean over rows, so its value over clients does "
        f"not follow from theirs. Use {cure} in its place."
    )


def _known(room: Any, given: Any, noun: str) -> Any:
    """Look a name up where Keras has its own."""
    if not isinstance(given, str):
        return given
    try:
        return room.get(given)
    except ValueError as error:
        raise SettingsError(
            f"Keras knows no {noun} named {given!r}. Pass a name such as "
            '"sparse_categorical_crossentropy", or an instance.'
        ) from error


def _mean(name: str, each: Each, direction: str | None) -> Metric:
    """Build a metric from a function of (targets, outputs); `direction` is Keras' word, if any."""
    is_share = "accuracy" in name.lower() or name.lower() == "acc"
    better = direction or ("up" if is_share else "down")

    def measure(outputs: Any, targets: Any) -> Tensor:
        values = _called(each, outputs, targets)
        if values.dim() == 0:
            raise SettingsError(
                f"The metric {name!r} returned one number for all rows. Let it return one a row."
            )
        return torch.stack(_by_row(values, outputs), dim=1)

    return Metric(
        name,
        measure,
        ratio,
        "higher" if better == "up" else "lower",
        most=1.0 if is_share else None,
    )


def _called(each: Each, outputs: Any, targets: Any) -> Tensor:
    """Call a function of (targets, outputs) on tensors whose ranks are alike."""
    if isinstance(outputs, Tensor) and isinstance(targets, Tensor):
        # Outputs (rows, 1) against targets (rows,) would broadcast to (rows, rows) in silence.
        if outputs.dim() == targets.dim() + 1 and outputs.shape[-1] == 1:
            targets = targets.unsqueeze(-1)
        elif targets.dim() == outputs.dim() + 1 and targets.shape[-1] == 1:
            targets = targets.squeeze(-1)
    with library().device("cpu"):
        return each(targets, outputs)


def _by_row(values: Tensor, outputs: Any) -> tuple[Tensor, Tensor]:
    """Return (rows,), the mean of each row's values that count, times their share, and the share.

    Keras hangs the mask of a sequence on the outputs that it belongs to.
    """
    rows = values.flatten(1) if values.dim() > 1 else values[:, None]
    mask = getattr(outputs, "_keras_mask", None)
    if mask is None or mask.shape != values.shape:
        return rows.mean(dim=1), torch.ones_like(rows[:, 0])
    counts = mask.flatten(1).to(rows.dtype) if mask.dim() > 1 else mask[:, None].to(rows.dtype)
    return (rows * counts).mean(dim=1), counts.mean(dim=1)


def _in_float(each: Each, dtype: str) -> Each:
    """Give a loss its targets as Keras does, in its own precision."""
    convert = library().ops.convert_to_tensor
    return lambda targets, outputs: each(
        _converted(convert, targets, dtype), _converted(convert, outputs, dtype)
    )


def _converted(convert: Callable[..., Any], given: Any, dtype: str) -> Any:
    if isinstance(given, dict):
        return {name: _converted(convert, leaf, dtype) for name, leaf in given.items()}
    return convert(given, dtype=dtype)


def _with_options(each: Any, options: dict[str, Any]) -> Each:
    return lambda targets, outputs: each(targets, outputs, **options)


def _accuracy(targets: Tensor, outputs: Tensor) -> Tensor:
    """Choose between Keras' three accuracies as Keras does: by the shapes."""
    metrics = library().metrics
    if outputs.shape[-1] == 1:
        return metrics.binary_accuracy(targets, outputs)
    if targets.dim() < outputs.dim() or targets.shape[-1] == 1:
        return metrics.sparse_categorical_accuracy(targets, outputs)
    return metrics.categorical_accuracy(targets, outputs)
