"""`folkmoot list`: what there is, each with the first sentence of its docstring."""

import enum
import importlib
import inspect
import json as machine_form
import shutil
import textwrap
from typing import Annotated, Any

import typer

from folkmoot.cli.errors import reported
from folkmoot.cli.run import Debug, Json


class Kind(enum.StrEnum):
    """What can be listed."""

    ALGORITHMS = "algorithms"
    CODECS = "codecs"
    AGGREGATORS = "aggregators"
    DATA = "data"
    OPTIMIZERS = "optimizers"
    ENGINES = "engines"


def listing(
    kind: Annotated[Kind, typer.Argument(help="What to list.", show_default=False)],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List what there is of a kind, each with one sentence."""
    with reported(debug):
        rows = found(kind)
        if json:
            for name, sentence in rows:
                typer.echo(machine_form.dumps({"name": name, "sentence": sentence}))
        else:
            _print_table(rows)


def found(kind: Kind) -> list[tuple[str, str]]:
    """Return names and first sentences, sorted by name."""
    functions = _sets() if kind is Kind.DATA else _builders(kind)
    if kind is Kind.ALGORITHMS:
        # One paper a file: what an algorithm is stands at the head of it.
        functions = {name: inspect.getmodule(function) for name, function in functions.items()}
    return sorted((name, _sentence(described)) for name, described in functions.items())


def _sets() -> dict[str, Any]:
    return importlib.import_module("folkmoot.data.load").SETS


def _builders(kind: Kind) -> dict[str, Any]:
    """Return the public functions of a folder that build what it is named after."""
    from folkmoot.core.aggregator import Aggregator
    from folkmoot.core.algorithm import Algorithm
    from folkmoot.core.codec import Codec
    from folkmoot.core.engine import Opener
    from folkmoot.optimizers import Optimizer

    built = {
        Kind.ALGORITHMS: Algorithm,
        Kind.CODECS: Codec,
        Kind.AGGREGATORS: Aggregator,
        Kind.OPTIMIZERS: Optimizer,
        Kind.ENGINES: Opener,
    }[kind]
    module = importlib.import_module(f"folkmoot.{kind}")
    public = {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    return {
        name: value
        for name, value in public.items()
        if inspect.signature(value).return_annotation == built
    }


def _sentence(function: Any) -> str:
    """Return the first sentence of a docstring, on one line."""
    text = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
    first, stop, _ = text.partition(". ")
    return first + "." * bool(stop)


def _print_table(rows: list[tuple[str, str]]) -> None:
    """Print names and sentences in two columns, as wide as the terminal."""
    width = max((len(name) for name, _ in rows), default=0) + 2
    for name, sentence in rows:
        lines = textwrap.wrap(
            sentence,
            max(60, shutil.get_terminal_size().columns),
            initial_indent=f"{name:{width}}",
            subsequent_indent=" " * width,
        )
        typer.echo("\n".join(lines))
