"""Fewer bytes: recipes of compression beside each other, on digits and on Shakespeare."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import folkmoot as fm
from chapters.jobs import CORES, deviation, mean, over, run, table
from chapters.pictures import PICTURES
from chapters.recipes import CHARACTERS, DIGITS, NONE, Recipe

PICTURE = "results-bytes.png"
LOST, FEWER = 1.0, 20.0
"""Points below uncompressed training that the target allows, and bytes that are to be fewer."""
_LAST = 3
"""Evaluations at the end whose mean is called the final accuracy."""


class Size(NamedTuple):
    """How much is run."""

    seeds: Sequence[int] = range(3)
    rounds: int = 60
    rounds_of_characters: int = 40
    every: int = 2
    """Rounds between evaluations."""
    rows: int | None = None
    """Of a test set; None is all."""
    cores: int = CORES
    recipes: int | None = None
    """How many of them; None is all."""


FULL = Size()
QUICK = Size((0,), 2, 1, 1, 200, 1, 3)


class Learning(NamedTuple):
    """What is learnt, by whom."""

    clients: Any
    test: fm.Tree
    work: Callable[[int], fm.LocalWork]
    """From a seed."""
    rounds: int
    cohort: int


class Found(NamedTuple):
    """What one run gives."""

    rounds: list[int]
    """Those that were evaluated."""
    accuracy: list[float]
    up: list[float]
    """Bytes until then, of all clients."""
    down: list[float]
    bits: float
    """Sent up for a number of the model."""
    outcome: Any
    """The run itself, where it is drawn."""

    @property
    def final(self) -> float:
        """The mean of the last evaluations."""
        return mean(self.accuracy[-_LAST:])

    def reached(self, target: float) -> int | None:
        """Return the place of the first evaluation that has a target."""
        return next((at for at, value in enumerate(self.accuracy) if value >= target), None)


class Speaker(nn.Module):
    """Logits of the next character at every place: (rows, length) -> (rows, length, 82)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(82, 8)
        self.memory = nn.GRU(8, 96, batch_first=True)
        self.output = nn.Linear(96, 82)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.output(self.memory(self.embedding(x))[0])


def perceptron(seed: int) -> nn.Module:
    """Return a perceptron 784-128-10 (101,770 parameters) as a seed begins it."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def digits(seed: int) -> fm.LocalWork:
    """Return one local epoch over a writer's digits."""
    return fm.local.sgd(fm.classifier(perceptron(seed)), lr=0.2, epochs=1, batch_size=20)


def _characters(seed: int) -> fm.LocalWork:
    torch.manual_seed(seed)
    return fm.local.sgd(fm.language_model(Speaker()), lr=1.0, batch_size=10, clip_gradient=5.0)


def section(size: Size = FULL, pictures: Path = PICTURES) -> str:
    """Return the section on digits, and draw its picture."""
    clients, test = fm.data.load("mnist_writers")
    learning = Learning(clients, _cut(test, size.rows), digits, size.rounds, 50)
    recipes = DIGITS[: size.recipes]
    found = over(recipes, size.seeds, _job(size, learning), size.cores)
    drawn = {
        recipe.name: runs[0].outcome
        for recipe, runs in zip(recipes, found, strict=True)
        if recipe.drawn
    }
    base = drawn.pop(NONE.name)
    base.plot_efficiency(pictures / PICTURE, others=drawn)
    return _digits_text(size, recipes, found)


def characters(size: Size = FULL) -> str:
    """Return the section on Shakespeare."""
    clients, test = fm.data.load("shakespeare")
    windows = {name: leaf[:: len(leaf) // 400][: size.rows] for name, leaf in test.items()}
    learning = Learning(clients, windows, _characters, size.rounds_of_characters, 10)
    recipes = CHARACTERS[: size.recipes]
    seeds = size.seeds[:2]
    found = over(recipes, seeds, _job(size, learning), size.cores)
    return f"""### 5.2 shakespeare: the next character

978 roles, 10 of them a round, {learning.rounds} rounds of one epoch of batches of 10 at rate 1,
gradients clipped at 5. An embedding, a GRU of 96 units and a linear layer (39,138 parameters);
accuracy on 400 held-out windows of 80 characters; {len(seeds)} seeds. Columns as in 5.1.

{_table(recipes, found)}

{_verdict(recipes, found)} A role comes back once in about 98 rounds, so a memory of what was lost
is hardly ever sent. After {learning.rounds} rounds training is far from its end.
"""


def _job(size: Size, learning: Learning) -> Callable[[Recipe, int], Found]:
    def job(recipe: Recipe, seed: int) -> Found:
        result = run(
            recipe.algorithm(learning.work(seed)),
            learning.clients,
            rounds=learning.rounds,
            cohort=learning.cohort,
            compress=recipe.up,
            compress_down=recipe.down,
            test=learning.test,
            seed=seed,
            evaluate_every=size.every,
            client_tests=False,
            monitor=False,
            name=recipe.name,
        )
        return found_of(result, drawn=recipe.drawn and seed == size.seeds[0])

    return job


def found_of(result: fm.Result, *, drawn: bool) -> Found:
    """Return what a run has moved by each of its evaluations."""
    up = down = answers = 0
    rows = []
    for row in result.history:
        up, down = up + row["upload_bytes"], down + row["download_bytes"]
        answers += row["answered"]
        if row["evaluated"]:
            rows.append((row["round"], row["test_accuracy"], up, down))
    numbers = sum(leaf.numel() for leaf in result.state_dict.values())
    bits = 8 * up / max(answers, 1) / numbers
    return Found(*map(list, zip(*rows, strict=True)), bits, light(result) if drawn else None)


def light(result: fm.Result) -> fm.Result:
    """Return a run's history alone, which goes from one process to another."""
    return dataclasses.replace(
        result,
        modules=None,
        program=None,
        roll=None,
        clients={},
        state={},
        state_dict={},
        best_state_dict={},
    )


def _cut(test: fm.Tree, rows: int | None) -> fm.Tree:
    return {name: leaf[:rows] for name, leaf in test.items()}


class Costs(NamedTuple):
    """What a recipe costs until the target, over seeds, and what it loses in the end."""

    up: float | None
    """Bytes; None where a seed never has the target."""
    down: float | None
    rounds: float | None
    lost: list[float]
    """Points of accuracy to the uncompressed run of the same seed; below 0 is worse."""
    seeds: int
    """Of how many the target was reached."""


def _costs(found: Sequence[Found], bases: Sequence[Found]) -> Costs:
    pairs = list(zip(found, bases, strict=True))
    ats = [one.reached(base.final - LOST / 100) for one, base in pairs]
    lost = [100 * (one.final - base.final) for one, base in pairs]
    reached = [(one, at) for one, at in zip(found, ats, strict=True) if at is not None]
    if len(reached) < len(found):
        return Costs(None, None, None, lost, len(reached))
    up, down, rounds = (
        mean([getattr(one, name)[at] for one, at in reached]) for name in ("up", "down", "rounds")
    )
    return Costs(up, down, rounds, lost, len(reached))


def _table(recipes: Sequence[Recipe], found: Sequence[Sequence[Found]]) -> str:
    head = ["recipe", "bits up", "rounds", "MB up", "fewer", "MB down", "fewer both ways"]
    head += ["final accuracy", "to uncompressed"]
    base = _costs(found[0], found[0])
    return table(
        head, [_row(one, runs, found[0], base) for one, runs in zip(recipes, found, strict=True)]
    )


def _row(recipe: Recipe, runs: Sequence[Found], bases: Sequence[Found], base: Costs) -> list[str]:
    costs = _costs(runs, bases)
    spent = [f"never ({costs.seeds} of {len(runs)} seeds)", "", "", "", ""]
    if costs.up and costs.down and costs.rounds and base.up and base.down:
        both = (base.up + base.down) / (costs.up + costs.down)
        spent = [f"{costs.rounds:.0f}", f"{costs.up / 1e6:,.3g}", f"{base.up / costs.up:.1f}"]
        spent += [f"{costs.down / 1e6:,.0f}", f"{both:.2f}"]
    final = f"{mean([one.final for one in runs]):.4f}"
    lost = "" if recipe == NONE else f"{mean(costs.lost):+.2f} ({deviation(costs.lost):.2f})"
    name = recipe.name if recipe == NONE else f"`{recipe.name}`"
    return [name, f"{runs[0].bits:.3g}", *spent, final, lost]


def _verdict(recipes: Sequence[Recipe], found: Sequence[Sequence[Found]]) -> str:
    """Say which recipes save bytes up and lose hardly anything, and which lose."""
    base, good, bad = _costs(found[0], found[0]), [], []
    for recipe, runs in list(zip(recipes, found, strict=True))[1:]:
        costs = _costs(runs, found[0])
        if costs.up and base.up and base.up / costs.up >= FEWER and mean(costs.lost) > -LOST:
            factor = f"{base.up / costs.up:.0f} times, {mean(costs.lost):+.2f} points"
            good.append(f"`{recipe.name}` ({factor})")
        if mean(costs.lost) <= -LOST:
            bad.append(f"`{recipe.name}` ({mean(costs.lost):+.1f})")
    return (
        f"At least {FEWER:g} times fewer bytes up to the target with less than {LOST:g} point lost "
        f"in the end: {', '.join(good) or 'none'}. {LOST:g} point or more is lost by "
        f"{', '.join(bad) or 'none'}."
    )


def _digits_text(size: Size, recipes: Sequence[Recipe], found: Sequence[Sequence[Found]]) -> str:
    return f"""### 5.1 mnist_writers: digits

539 writers, 50 of them a round, {size.rounds} rounds of one epoch of batches of 20 at rate 0.2, a
perceptron 784-128-10 (101,770 parameters), means in which every client counts the same; accuracy on
MNIST's test digits, by people who are no clients, every {size.every} rounds; {len(size.seeds)}
seeds. The rate is the one of the uncompressed run, for all. Recipes are those of `fm.codecs`, by
`fm.run(..., compress=)`; `feedback` is `fm.local.feedback`, `ef21` the algorithm, and behind "down"
stands `compress_down=`. `drive()` is `eden(1)`.

The target is {LOST:g} point below the uncompressed run's accuracy at the end, seed by seed; the end
is the mean of the last {_LAST} evaluations. Bits up are measured, for each number of the model.
Rounds and MB, of all clients, are those until the target.

{_table(recipes, found)}

{_verdict(recipes, found)}

![Accuracy against rounds and bytes up of some recipes, seed 0](pictures/{PICTURE})

A writer comes back once in about 11 rounds. Who holds a broadcast of then needs 11 differences: at
8 bits each the whole model is mostly shorter and is sent instead, at 1 bit they are a third of it.
What a client remembers is as old, and EF21, whose server adds up such memories, is made for clients
that come more often. FetchSGD and PowerSGD are not built: rows without a memory and in one exchange
already leave the way down as nearly all that is sent, and PowerSGD takes two exchanges and a memory
at each client.
"""
