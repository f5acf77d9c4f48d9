"""The table in which everything composes: {algorithm} x {personal} x {server} x {rule} x {codec}
x {privacy} x {secure} x {compress} x {clock} x {engine}, what each cell must answer before round 1,
and a covering set to train.

A later option extends a column, or adds one; every cell that it opens is then checked.
"""

import functools
import itertools
import random
from typing import Any, NamedTuple

import torch
from laws.cards import CARDS, takes
from torch import nn

import folkmoot as fm
from folkmoot import aggregators, codecs, engines, optimizers
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import EACH, Aggregator


def middle(*stages):
    """A rule that looks at each update: the middle one of each coordinate."""

    def init(example, clients):
        return aggregators.uniform_mean(*stages).init(example, clients)

    def encode(state, update, key):
        return aggregators.uniform_mean().encode(state, update, key)

    def decode(state, updates, key):
        values = [update.value for update in updates]
        value = trees.map(lambda *leaves: torch.stack(leaves).median(dim=0).values, *values)
        return value, updates[0].counts, state

    return Aggregator("middle", init, encode, decode, EACH)


def promise(**options):
    """A budget whose noise follows from the seed, so that engines can agree."""
    options = {"clip": 0.5} | options
    return fm.DP(noise_multiplier=1.0, delta=1e-4, simulation=True, **options)


class Cell(NamedTuple):
    """One combination, by the names of its parts."""

    algorithm: str
    personal: str
    server: str
    rule: str
    codec: str
    privacy: str
    secure: str
    compress: str
    clock: str
    engine: str


COLUMNS: dict[str, dict[str, Any]] = {
    "algorithm": dict.fromkeys(CARDS),
    "personal": {
        "nothing": None,
        "pattern": "2.*",
        "types": nn.BatchNorm1d,
        "everything": "*",
    },
    "server": {
        "its own": None,
        "sgd": optimizers.sgd(0.7, momentum=0.5, nesterov=True),
        "scheduled": optimizers.sgd(lambda round: 1.0 / round),
        "adagrad": optimizers.adagrad(0.1),
        "adam": optimizers.adam(0.1),
        "yogi": optimizers.yogi(0.1),
    },
    "rule": {
        "its own": None,
        "weighted": aggregators.weighted_mean,
        "uniform": aggregators.uniform_mean,
        "expected": functools.partial(aggregators.uniform_mean, divisor=4),
        "total": aggregators.total,
        "middle": middle,
    },
    "codec": {"none": (), "clip": (codecs.clip(0.5),)},
    "privacy": {
        "none": None,
        "central": promise(),
        "adaptive": promise(clip=codecs.adaptive_clip(0.3)),
        "by layer": promise(clip=codecs.clip_by_layer(0.5)),
        "tree": promise(mechanism=fm.privacy.Tree(restart=2)),
        "banded": promise(mechanism=fm.privacy.Banded(bands=2)),
        "local": promise(trust="local"),
        "larger": promise(population=1000, cohort=10),
    },
    "secure": {
        "none": None,
        "sums": fm.Secure(),
        "protocol": fm.Secure(threat="active", noise="skellam", protocol=True),
    },
    "compress": {
        "none": None,
        "packed": fm.chain(codecs.rotate(), codecs.quantize(8)),
        "shared": codecs.random_k(0.5),
    },
    "clock": dict.fromkeys(("none", "deadline", "buffer")),
    "engine": {
        "sequential": engines.sequential(),
        "processes": engines.parallel(2, threads=False),
        "threads": engines.parallel(2, threads=True),
        "vectorized": engines.vectorized(),
        "compiled": engines.compiled(1, unrolled=2),
    },
}


def cells():
    """Every cell whose parts exist: not all algorithms have a `server` or an `aggregator`."""
    plain = COLUMNS | {"compress": ("none",), "clock": ("none",)}
    for parts in itertools.product(*plain.values()):
        cell = Cell(*parts)
        if cell.server != "its own" and not takes(cell.algorithm, "server"):
            continue
        if cell.rule != "its own" and not takes(cell.algorithm, "aggregator"):
            continue
        if cell.rule == "its own" and cell.codec != "none":
            continue
        # What privacy rebuilds is the rule; server and personal leaves beside it are few.
        if cell.privacy != "none" and not _beside_privacy(cell):
            continue
        # So do secure sums, which know nothing of where clients run.
        if cell.secure != "none" and not _beside_sums(cell):
            continue
        # A vectorized engine says when it is asked that clients pack one by one.
        if cell.engine == "vectorized" and cell.algorithm == "ef21":
            continue
        # What is compiled has no layer of this type.
        if cell.engine == "compiled" and cell.personal == "types":
            continue
        yield cell
        if cell.codec == "none" and cell.server == "its own":
            yield from _travelling(cell)


def _travelling(plain):
    """The same cell with what travels compressed, or late."""
    for compress, clock in itertools.product(COLUMNS["compress"], COLUMNS["clock"]):
        cell = plain._replace(compress=compress, clock=clock)
        if compress != "none" and not _beside_compression(cell):
            continue
        if clock != "none" and not _beside_a_clock(cell):
            continue
        if cell != plain:
            yield cell


def _beside_privacy(cell):
    return (
        cell.server in ("its own", "adam")
        and cell.personal in ("nothing", "types")
        and cell.rule != "expected"
        and (cell.codec == "none" or cell.rule == "uniform")
        and cell.engine != "compiled"
    )


def _beside_sums(cell):
    engines = (
        ("sequential", "processes", "vectorized") if cell.secure == "sums" else ("sequential",)
    )
    return _beside_privacy(cell) and cell.server == "its own" and cell.engine in engines


def _beside_compression(cell):
    # Of what is rounded, last bits choose: vectorized arithmetic has others.
    engines = ("sequential", "processes", *(("vectorized",) if cell.compress == "shared" else ()))
    return (
        cell.server == "its own"
        and cell.personal in ("nothing", "pattern")
        and cell.rule in ("its own", "uniform", "middle")
        and cell.codec == "none"
        and cell.privacy in ("none", "central", "local")
        and cell.secure != "protocol"
        and cell.engine in engines
    )


def _beside_a_clock(cell):
    return (
        cell.server == "its own"
        and cell.personal in ("nothing", "pattern")
        and cell.rule in ("its own", "uniform", "middle")
        and cell.codec == "none"
        and cell.secure != "protocol"
        and cell.privacy in ("none", "central", "local")
        # What is compressed late is so beside nothing else.
        and (cell.compress == "none" or cell.privacy == cell.secure == "none")
        and cell.engine in ("sequential", "processes", "vectorized")
    )


# What must be answered


def answer(cell):
    """What a cell must say before round 1: a piece of the sentence that refuses it, or None."""
    keeps = cell.personal != "nothing"
    if cell.clock == "buffer" and cell.secure != "none":
        return "fixes its cohort before the first message"
    if cell.clock == "buffer" and cell.privacy == "local":
        return "adds its noise before anyone knows how stale"
    if cell.rule == "total" and cell.algorithm not in SUMS:
        return "needs the mean over clients"
    if keeps and cell.algorithm in OWN_MODELS:
        return "have one already"
    if cell.privacy != "none" and cell.secure != "none" and cell.privacy not in INSIDE:
        return "has clients add noise inside the sum"
    if cell.rule == "middle" and (keeps or cell.algorithm in STATEFUL):
        return "would lose: it looks at single updates"
    if cell.compress == "packed" and cell.privacy == "local" and cell.secure == "none":
        return "adds its noise before anything leaves it"
    if cell.privacy != "none" and unprivate(cell):
        return unprivate(cell)
    if cell.secure != "none" and cell.rule == "middle":
        return "looks at single updates, which a secure sum hides"
    if cell.clock == "buffer" and cell.algorithm in SEVERAL:
        return "times a round"
    return untravelled(cell)


def untravelled(cell):
    """Why what a cell sends cannot be compressed, or None."""
    if cell.compress == "packed" and cell.secure != "none":
        return "cannot be added"
    if cell.compress != "none" and cell.algorithm == "ef21":
        return "packs its updates already"
    return None


SEVERAL = {"ifca", "mime"}
"""Algorithms that ask more than once in the first round."""


INSIDE = ("central", "adaptive", "by layer")
"""Promises whose noise clients can add inside a secure sum."""


def unprivate(cell):
    """Why a cell cannot be private, or None."""
    if cell.rule == "middle":
        return "looks at single updates, which privacy hides"
    if cell.rule == "total" or cell.algorithm == "ifca":
        return "adds what is neither clipped nor divided"
    if cell.rule == "weighted" or cell.algorithm == "agnostic":
        return "weighs clients, and a weight has no bound"
    return None


# Plain steps along whatever comes back; all others divide by it, or add it to a mean.
SUMS = {
    "fedavg",
    "cyclic",
    "fedasync",
    "fedprox",
    "fedavgm",
    "fedadagrad",
    "fedadam",
    "fedyogi",
    "fedsam",
    "moon",
} | {
    "fedper",
    "fedrep",
    "fedbn",
    "lg_fedavg",
    "ditto",
    "apfl",
    "pfedme",
}
OWN_MODELS = {"fedper", "fedrep", "fedbn", "lg_fedavg", "ditto", "pfedme", "apfl", "ifca"}
STATEFUL = OWN_MODELS | {"scaffold", "ef21", "feddyn", "moon", "agnostic"}


def covering(most=None):
    """Cells that can be trained, chosen so that each algorithm meets every pair of other parts."""
    chosen = []
    for name in CARDS:
        possible = [
            cell
            for cell in trainable()
            if cell.algorithm == name and cell.engine not in ("sequential", "compiled")
        ]
        # The same order on every machine, and for each algorithm another one.
        random.Random(rng.label(name)).shuffle(possible)
        left = {pair for cell in possible for pair in pairs(cell)}
        while left:
            best = max(possible, key=lambda cell: len(left & pairs(cell)))
            chosen.append(best)
            left -= pairs(best)
    return chosen if most is None else chosen[:most]


@functools.cache
def trainable():
    """Every cell that nothing refuses."""
    return [cell for cell in cells() if answer(cell) is None]


@functools.cache
def pairs(cell):
    """The pairs of parts, beside the algorithm, that a cell shows."""
    return frozenset(itertools.combinations(enumerate(cell[1:]), 2))
