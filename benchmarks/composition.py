"""Make docs/composition.md: what composes with what, as the package itself answers.

    python benchmarks/composition.py            # writes the page
    python benchmarks/composition.py --print    # shows it instead

Each cell is built as a program would build it, and goes as far as the first task of round 1. What
is refused has a number, under which its sentence stands.
"""

import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import folkmoot as fm
from folkmoot.cli.bench.bars import BARS
from folkmoot.core.aggregator import EACH
from folkmoot.local.personal import personalize
from folkmoot.train.asking import refuse_several
from folkmoot.train.compression import compressing
from folkmoot.train.loop import begun, check_task
from folkmoot.train.private import private

PAGE = Path(__file__).parents[1] / "docs" / "composition.md"
HEAD = """# What composes with what

Every algorithm, with one argument more. `python benchmarks/composition.py` asks the package and
makes this page. The tests hold the whole table, {algorithm} x {personal} x {server} x {aggregator}
x {codec} x {privacy} x {secure} x {compress} x {clock} x {engine}: each cell is accepted or refused
before round 1, and a thousand are trained (`tests/laws/table.py`).

- **yes**: it runs; **-**: the algorithm has no such argument; a number: refused, with the sentence
  below.
- "each update" stands for a rule that must see single updates, as robust ones do.
- All run in the engines sequential, parallel and vectorized, and take codecs wherever they take an
  aggregator.
"""
BESIDE = """
What travels, and when, beside what is promised; each was run:
"""
_OF_A_RUN = ("personal", "privacy", "compress", "buffer")
COLUMNS = {
    'personal="2.*"': {"personal": "2.*"},
    "server": {"server": fm.optimizers.adam(0.1)},
    "weighted mean": {"aggregator": fm.aggregators.weighted_mean(fm.codecs.clip(1.0))},
    "uniform mean": {"aggregator": fm.aggregators.uniform_mean(fm.codecs.clip(1.0))},
    "total": {"aggregator": fm.aggregators.total()},
    "privacy=": {"privacy": fm.DP(noise_multiplier=0.1)},
    "compress=": {"compress": fm.codecs.eden(1)},
    "buffer=": {"buffer": 2},
    "each update": {"aggregator": fm.aggregators.uniform_mean()._replace(name="median", sees=EACH)},
}


def answer(build: Callable[..., fm.Algorithm], options: dict[str, Any], more: Any) -> str | None:
    """Return None if an algorithm can be had with one argument more, else why not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    work = fm.local.sgd(fm.classifier(model), lr=0.1)
    personal, privacy = more.get("personal"), more.get("privacy")
    compress, buffer = more.get("compress"), more.get("buffer")
    rest = {name: value for name, value in more.items() if name not in _OF_A_RUN}
    if not set(rest) <= set(inspect.signature(build).parameters):
        return "-"
    try:
        algorithm = build(work, **options, **rest)
        algorithm = personalize(algorithm, personal) if personal else algorithm
        algorithm = private(privacy, algorithm, range(100), 1).algorithm if privacy else algorithm
        algorithm = compressing(algorithm, compress) if compress else algorithm
        if buffer:
            refuse_several(algorithm, 100)
        check_task(algorithm, next(begun(algorithm, algorithm.init())))
    except fm.SettingsError as error:
        return str(error)
    return None


PROMISES: dict[str, dict[str, Any]] = {
    "privacy=": {"privacy": fm.DP(noise_multiplier=0.1, simulation=True)},
    "trust=local": {"privacy": fm.DP(noise_multiplier=0.1, trust="local", simulation=True)},
    "unit=example": {"privacy": fm.DP(noise_multiplier=1.0, unit="example", simulation=True)},
    "secure=": {"secure": True},
}
TRAVELS: dict[str, dict[str, Any]] = {
    "compress=eden(1)": {"compress": fm.codecs.eden(1)},
    "compress=random_k(0.1)": {"compress": fm.codecs.random_k(0.1)},
    "compress=chain(qsgd(4), entropy_coded())": {
        "compress": fm.chain(fm.codecs.qsgd(4), fm.codecs.entropy_coded())
    },
    "compress_down=quantize(8)": {"compress_down": fm.codecs.quantize(8)},
    "fleet=, deadline_s=": {"deadline_s": 60.0},
    "fleet=, over_select=": {"over_select": 1.3, "deadline_s": 60.0},
    "fleet=, quorum=": {"quorum": 2, "deadline_s": 60.0},
    "fleet=, buffer=": {"buffer": 2},
}


def beside(options: dict[str, Any]) -> str | None:
    """Return None if a run of FedAvg takes these options together, else why not."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=draw)
    clients = {client: (x, x.sum(1)) for client in range(8)}
    timed = options.keys() - {"privacy", "secure", "compress", "compress_down"}
    if timed:
        options = options | {"fleet": fm.Fleet(devices=fm.Device(examples_per_s=10.0))}
    work = fm.local.sgd(fm.regressor(nn.Linear(3, 1)), lr=0.01)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fm.run(fm.fedavg(work), clients, rounds=1, cohort=4, progress=False, **options)
    except fm.SettingsError as error:
        return str(error)
    return None


def page() -> str:
    """Return the whole page."""
    said: dict[str, int] = {}
    lines = [f"| algorithm | {' | '.join(COLUMNS)} |", "| --- " * (1 + len(COLUMNS)) + "|"]
    for name in fm.algorithms.__all__:
        cells = []
        for more in COLUMNS.values():
            options = {**(BARS[name].options if name in BARS else {}), **_LEAVES.get(name, {})}
            why = answer(getattr(fm, name), options, more)
            if why in (None, "-"):
                cells.append(why or "yes")
            else:
                general = str(why).replace(f"{name}()", "The algorithm")
                cells.append(f"{said.setdefault(general, len(said) + 1)}")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += [BESIDE, f"| option | {' | '.join(PROMISES)} |", "| --- " * (1 + len(PROMISES)) + "|"]
    for travels, options in TRAVELS.items():
        cells = []
        for promise in PROMISES.values():
            why = beside(options | promise)
            cells.append("yes" if why is None else f"{said.setdefault(why, len(said) + 1)}")
        lines.append(f"| `{travels}` | {' | '.join(cells)} |")
    notes = [f"{number}. {sentence}" for sentence, number in said.items()]
    return "\n".join([HEAD, *lines, "", *notes, ""])


_LEAVES: dict[str, dict[str, Any]] = {
    "ef21": {"codec": fm.codecs.top_k(0.5)},
    "fedper": {"personal": "2.*"},
    "fedrep": {"personal": "2.*"},
    "lg_fedavg": {"shared": "2.*"},
    "moon": {"features": "1"},
}


if __name__ == "__main__":
    if "--print" in sys.argv[1:]:
        print(page())
    else:
        PAGE.write_text(page(), "utf-8")
