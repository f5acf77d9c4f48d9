"""The workloads: what is trained, on whose data, in which cohorts; numpy alone, from fixed seeds.

Every contender reads the same arrays, asks the same clients in the same rounds, and takes rows in
the order in which they lie. Only clients that some cohort asks are generated.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_COHORTS, _SIZES, _SHAPES, _CLIENTS = 1, 2, 3, 4
"""Purposes of the seeds below."""
_SEED = 2026


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One line of the table: plain numbers, so that it travels to a contender's process as JSON."""

    name: str
    model: str
    """A name in `models.MODELS`."""
    clients: int
    """The population."""
    cohort: int
    """Clients of a round."""
    batch_size: int
    lr: float
    examples: int
    """Examples of a client; the mean where sizes vary."""
    spread: float = 0.0
    """Standard deviation of the logarithm of a client's size; 0 for equal sizes."""
    drift: float = 1e-3
    """Largest distance of two contenders' final parameters, over all that training has changed.

    In float32. Rounding alone gives 1e-5, unless a ReLU or a max-pooling stands so near its kink
    that it tips one way here and another way there: in a CNN every few steps.
    """
    warm_up: int
    """Rounds before the timed ones."""
    rounds: int
    """Timed rounds."""

    @property
    def all_rounds(self) -> int:
        """Rounds of one run."""
        return self.warm_up + self.rounds

    def cohorts(self) -> list[list[int]]:
        """Return the clients of each round, ascending."""
        draw = np.random.default_rng((_SEED, _COHORTS))
        return [
            sorted(draw.choice(self.clients, self.cohort, replace=False).tolist())
            for _ in range(self.all_rounds)
        ]

    def sizes(self) -> Array:
        """Return the number of examples of each client of the population."""
        if not self.spread:
            return np.full(self.clients, self.examples)
        # A lognormal law whose mean is `examples`, cut at a tenth and at two and a half times it.
        draw = np.random.default_rng((_SEED, _SIZES))
        logs = draw.normal(np.log(self.examples) - self.spread**2 / 2, self.spread, self.clients)
        cut = np.clip(np.exp(logs), self.examples / 10, self.examples * 2.5)
        return np.round(cut).astype(np.int64)

    def cut(self) -> "Workload":
        """Return two rounds of few small clients: float64 shows there if the work is the same."""
        cohort, examples = min(self.cohort, 3), min(self.examples, 2 * self.batch_size)
        return replace(self, cohort=cohort, examples=examples, warm_up=0, rounds=2)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            name="mlp",
            model="mlp",
            clients=1_000,
            cohort=100,
            batch_size=10,
            lr=0.1,
            examples=60,
            warm_up=2,
            rounds=20,
        ),
        Workload(
            name="femnist-cnn",
            model="cnn",
            clients=1_000,
            cohort=20,
            batch_size=20,
            lr=0.05,
            examples=200,
            spread=0.5,
            drift=0.5,
            warm_up=1,
            rounds=5,
        ),
        Workload(
            name="char-lstm",
            model="lstm",
            clients=200,
            cohort=10,
            batch_size=10,
            lr=0.8,
            examples=100,
            warm_up=1,
            rounds=5,
        ),
        Workload(
            name="tiny",
            model="linear",
            clients=1_000,
            cohort=1_000,
            batch_size=1,
            lr=0.1,
            examples=1,
            warm_up=2,
            rounds=15,
        ),
    )
}


class Pool(NamedTuple):
    """The examples of all clients that are ever asked, client by client."""

    x: Array
    """(rows, ...)."""
    y: Array
    """(rows,), int64."""
    owner: Array
    """(rows,), the client of each row, ascending."""

    def in_float64(self) -> "Pool":
        """Return these examples in double precision; integers stay as they are."""
        return self._replace(x=self.x.astype(np.float64)) if self.x.dtype.kind == "f" else self

    def rows_of(self, client: int) -> slice:
        """Return where a client's rows lie."""
        begin, end = np.searchsorted(self.owner, [client, client + 1])
        return slice(int(begin), int(end))


def generate(workload: Workload) -> Pool:
    """Draw the examples of the clients that some cohort asks; each client has a seed of its own."""
    asked = sorted({client for cohort in workload.cohorts() for client in cohort})
    sizes = workload.sizes()
    examples = EXAMPLES[workload.model]
    drawn = [
        examples(int(sizes[client]), np.random.default_rng((_SEED, _CLIENTS, client)))
        for client in asked
    ]
    return Pool(
        np.concatenate([x for x, _ in drawn]),
        np.concatenate([y for _, y in drawn]).astype(np.int64),
        np.repeat(asked, sizes[asked]),
    )


def write(pool: Pool, folder: Path) -> None:
    """Store a pool, so that contenders map it instead of drawing it again."""
    for name, array in pool._asdict().items():
        np.save(folder / f"{name}.npy", array)


def read(folder: Path) -> Pool:
    """Map a stored pool; pages are read when they are touched."""
    return Pool(*(np.load(folder / f"{name}.npy", mmap_mode="c") for name in Pool._fields))


def _images(
    rows: int, draw: np.random.Generator, kinds: Array, noise: float
) -> tuple[Array, Array]:
    """Draw a class for each row, and the image of its class under noise; variance about 1."""
    y = draw.integers(0, len(kinds), rows)
    x = kinds[y] + noise * draw.standard_normal((rows, kinds.shape[1]), dtype=np.float32)
    return (x / np.float32(np.hypot(1, noise))).astype(np.float32), y


def _mlp(rows: int, draw: np.random.Generator) -> tuple[Array, Array]:
    shapes = np.random.default_rng((_SEED, _SHAPES))
    return _images(rows, draw, shapes.standard_normal((10, 784), dtype=np.float32), 6.0)


def _cnn(rows: int, draw: np.random.Generator) -> tuple[Array, Array]:
    # Patches of 4 by 4 pixels, which survive pooling.
    patches = np.random.default_rng((_SEED, _SHAPES)).standard_normal((62, 7, 7))
    kinds = np.kron(patches, np.ones((4, 4))).reshape(62, 784).astype(np.float32)
    x, y = _images(rows, draw, kinds, 1.0)
    return x.reshape(rows, 1, 28, 28), y


def _lstm(rows: int, draw: np.random.Generator) -> tuple[Array, Array]:
    """80 characters; the next follows from the last by a fixed code, one time in ten by chance."""
    code = np.random.default_rng((_SEED, _SHAPES)).permutation(80)
    x = draw.integers(0, 80, (rows, 80))
    chance = draw.random(rows) < 0.1
    return x, np.where(chance, draw.integers(0, 80, rows), code[x[:, -1]])


def _linear(rows: int, draw: np.random.Generator) -> tuple[Array, Array]:
    x = draw.standard_normal((rows, 10), dtype=np.float32)
    return x, (x[:, 0] > 0).astype(np.int64)


EXAMPLES = {"mlp": _mlp, "cnn": _cnn, "lstm": _lstm, "linear": _linear}
"""`EXAMPLES[model](rows, generator)` draws (x, y)."""
