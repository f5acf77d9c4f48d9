"""The picture of a partition: how much each client has, and of what."""

import getpass
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLOURS = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f",
    "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#bab0ac",
)  # fmt: skip
_FEW = 60  # up to so many clients keep their order and have gaps between them
_NAMED = 30  # up to so many have their ids written below


def keep_out_of_home() -> None:
    """Let Matplotlib keep its list of fonts with the temporary files, unless it was told where.

    The folder stays, so that the list is made once and not in every run.
    """
    if "MPLCONFIGDIR" in os.environ:
        return
    folder = Path(tempfile.gettempdir()) / f"folkmoot-matplotlib-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ["MPLCONFIGDIR"] = str(folder)


def draw(
    ids: Sequence[Any],
    sizes: NDArray[np.int64],
    counts: NDArray[np.int64] | None,
    classes: NDArray[Any] | None,
    title: str,
) -> Any:
    """Return a figure with two panels on one axis of clients: rows, and shares of the classes.

    Args:
        ids: Clients.
        sizes: Rows of each client, (clients,).
        counts: Rows of each client and class, (clients, classes); None without labels.
        classes: The classes' names, (classes,); None without labels.
        title: What stands above.
    """
    keep_out_of_home()
    from matplotlib.figure import Figure

    order = _order(sizes, counts)
    figure = Figure(figsize=(10, 5.2 if counts is not None else 2.8), dpi=140, layout="constrained")
    if counts is None or classes is None:
        amount = figure.subplots()
        below = amount
    else:
        amount, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
        _shares(below, counts[order], classes, figure)
    _sizes(amount, sizes[order])
    _axis_of_clients(below, [ids[place] for place in order], counts is not None)
    figure.align_ylabels()
    figure.suptitle(title, fontsize=12)
    return figure


def _order(sizes: NDArray[np.int64], counts: NDArray[np.int64] | None) -> NDArray[np.int64]:
    if len(sizes) <= _FEW:
        return np.arange(len(sizes))
    if counts is None:
        return np.argsort(-sizes, kind="stable")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Empty clients stand last.
    return np.lexsort((-shares.max(axis=1), counts.argmax(axis=1), sizes == 0))


def _sizes(axes: Any, sizes: NDArray[np.int64]) -> None:
    _bars(axes, sizes, np.zeros(len(sizes)), color="#5f6b7a")
    axes.axhline(np.median(sizes), color="#c0392b", linewidth=1)
    axes.text(
        1.005, np.median(sizes), "median", transform=axes.get_yaxis_transform(), color="#c0392b",
        fontsize=8, va="center",
    )  # fmt: skip
    axes.set_ylabel("examples")
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _shares(axes: Any, counts: NDArray[np.int64], classes: NDArray[Any], figure: Any) -> None:
    from matplotlib import colormaps

    many = len(classes) > len(_COLOURS)
    ramp = colormaps["turbo"](np.linspace(0.03, 0.97, len(classes)))
    totals = np.maximum(counts.sum(axis=1), 1)
    bottom = np.zeros(len(counts))
    for code, name in enumerate(classes):
        share = counts[:, code] / totals
        colour = ramp[code] if many else _COLOURS[code]
        _bars(axes, share, bottom, color=colour, label=str(name))
        bottom = bottom + share
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of each class")
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    # A legend of 100 classes would be longer than the picture: show about ten of them.
    step = max(1, -(-len(classes) // 12))
    figure.legend(
        handles[::step][::-1],
        labels[::step][::-1],
        title="class",
        loc="outside right center",
        frameon=False,
        fontsize=8,
        title_fontsize=9,
    )


def _axis_of_clients(axes: Any, ids: list[Any], classes: bool) -> None:
    if len(ids) > _FEW:
        axes.set_xticks([])
        axes.set_xlabel(
            "clients, sorted by their most frequent class" if classes else "clients, by size"
        )
    else:
        step = 1 if len(ids) <= _NAMED else 5
        named = ids[::step]
        slanted = max(len(str(client)) for client in named) > 4
        turn = {"rotation": 40, "ha": "right"} if slanted else {}
        axes.set_xticks(range(0, len(ids), step), [str(client) for client in named], **turn)
        axes.set_xlabel("client")
    axes.set_xlim(-0.6, len(ids) - 0.4)
    axes.tick_params(axis="x", length=0)


def _bars(
    axes: Any, heights: NDArray[Any], bottom: NDArray[Any], *, color: Any, label: str | None = None
) -> None:
    if len(heights) <= _FEW:
        places = np.arange(len(heights))
        axes.bar(places, heights, bottom=bottom, width=0.84, color=color, linewidth=0, label=label)
    else:
        # One shape for all clients: thousands of single bars would take seconds.
        edges = np.arange(len(heights) + 1) - 0.5
        axes.stairs(bottom + heights, edges, baseline=bottom, fill=True, color=color, label=label)
