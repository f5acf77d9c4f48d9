"""What each algorithm may cost beside FedAvg, by its mathematics, and why.

The unit of time is what a client of FedAvg does in a round, about one gradient a step; that of
bytes is FedAvg's model. Nearly all parameters of the bench's model are in its first layer, whose
gradient is a forward product and another of the same size: a forward pass is half of it. A pass
over the parameters may take a tenth, and five hundredths are left for what is in no formula. An
operation on ten rows of a layer's output takes about 2 of a step's 230 µs, most of it the call. A
batch is copied for a second pass, for a model may write into its inputs: about 8 µs.

An algorithm without a bar is measured all the same if it needs nothing but local work, and skipped
if it needs more.
"""

from typing import Any, NamedTuple

from folkmoot.codecs import top_k

EPOCHS = 5
"""Of local work in a round; what is done in the first one alone costs a fifth of it."""
FORWARD = 0.5
CALL = 0.009
COPY = 0.035


class Bar(NamedTuple):
    """One algorithm's arguments, and the most that a round of it may be of FedAvg's."""

    why: str
    """What it does beside FedAvg's work."""
    time: float = 1.05
    """Seconds of processor time."""
    up: float = 1.0
    down: float = 1.0
    options: dict[str, Any] = {}  # noqa: RUF012  (a NamedTuple's default; nobody writes into it)
    """Arguments beside the work."""
    norm: bool = False
    """Whether the model, of both, has a BatchNorm layer."""


SERVER = "the server's optimizer alone is another"
BARS = {
    "agnostic": Bar(
        "a forward pass a step of the first epoch",
        1.05 + (FORWARD + COPY) / EPOCHS, options={"lambda_lr": 0.1},
    ),
    "apfl": Bar("a step of a second model, and four passes over the parameters to mix", 2.45),
    "ditto": Bar("a step of a second model a step", 2.1, options={"lam": 0.1}),
    "ef21": Bar(
        "a client's numbers are compared with those that the server knows, and a tenth is packed",
        1.15, up=0.13, options={"codec": top_k(0.1)},
    ),
    "fedadagrad": Bar(SERVER, options={"lr": 0.01}),
    "fedadam": Bar(SERVER, options={"lr": 0.01}),
    "fedasync": Bar(SERVER),
    "fedavgm": Bar(SERVER),
    "fedbn": Bar("less travels", norm=True),
    "feddyn": Bar("two passes over the parameters a step", 1.2, options={"alpha": 0.01}),
    "fedexp": Bar("one norm a client"),
    "fednova": Bar("one pass over the delta a client"),
    "fedper": Bar("less travels", options={"personal": "out.*"}),
    "fedprox": Bar("a pass over the parameters a step", 1.1, options={"mu": 0.01}),
    "fedrep": Bar(
        "an epoch for the head before the body's",
        1.1 + 1 / EPOCHS, options={"personal": "out.*", "head": 1},
    ),
    "fedsam": Bar(
        "a second gradient a step, a pass for its norm and one for the move", 2.2 + COPY
    ),
    "fedyogi": Bar(SERVER, options={"lr": 0.01}),
    "ifca": Bar(
        "an epoch of forward passes of three models, and their sums; three travel, twice down",
        1.1 + 3 * FORWARD / EPOCHS, up=3.0, down=6.0, options={"clusters": 3},
    ),
    "lg_fedavg": Bar(
        "less travels: 1,290 of 101,770 numbers", up=0.02, down=0.02, options={"shared": "out.*"}
    ),
    "mime": Bar(
        "an epoch of gradients, then two a step; models, gradient and delta travel",
        2.15 + 1 / EPOCHS + COPY, up=2.0, down=3.0,
    ),
    "mimelite": Bar(
        "a second gradient a step of the first epoch; gradient and delta travel",
        1.1 + (1 + COPY) / EPOCHS, up=2.0,
    ),
    "moon": Bar(
        "two forward passes a step, and 35 operations on rows for the contrast and its gradient",
        1.05 + 2 * FORWARD + 2 * COPY + 35 * CALL, options={"features": "relu"},
    ),
    "pfedme": Bar(
        "five inner steps a step, each with a pass over the parameters",
        5.5, options={"lam": 15.0, "lr": 0.01, "inner_steps": 5},
    ),
    "qfedavg": Bar(
        "a forward pass a step of the first epoch; a norm and a pass over the delta a client",
        1.1 + (FORWARD + COPY) / EPOCHS, options={"q": 0.1},
    ),
    "scaffold": Bar(
        "a pass over the parameters a step; model and control travel", 1.15, up=2.0, down=2.0
    ),
}  # fmt: skip
