"""The command line: `folkmoot demo`, `new`, `run`, `check` and more, one command a file.

What a command does not need for its help is imported inside of it, so help and version load neither
torch nor numpy.
"""

from collections.abc import Callable
from typing import Annotated

import typer

from folkmoot.cli import audit, bench, check, demo, listing, new, privacy, run
from folkmoot.core import VERSION

EXIT_CODES = (
    "Exit codes: 0 good; 2 usage, settings or data; 3 your code; 4 too few clients, or divergence; "
    "5 infrastructure; 130 Ctrl-C."
)

commands = typer.Typer(
    help="Federated learning: train models across data that stays where it is.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,  # Its installation writes into the home folder.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo.demo,
    "new": new.new,
    "run": run.run,
    "check": check.check,
    "privacy": privacy.privacy,
    "audit": audit.audit,
    "list": listing.listing,
    "bench": bench.bench,
}
for name, command in _COMMANDS.items():
    commands.command(name, epilog=EXIT_CODES)(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"folkmoot {VERSION}")
        raise typer.Exit


@commands.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Take what stands before a command."""


def main() -> None:
    """Run the command that was typed, and exit with its code."""
    commands()
