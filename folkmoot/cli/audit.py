"""`folkmoot audit APP.py`: run an app with canaries, and show what can be told of them."""

import sys
from typing import Annotated, Any

import typer

from folkmoot.cli.app import load
from folkmoot.cli.errors import reported
from folkmoot.cli.run import AppFile, Debug, Json, Set, own_output
from folkmoot.cli.settings import chosen
from folkmoot.core.errors import FolkmootError

_BROKEN = 2


def audit(
    app: AppFile,
    set_: Set = None,
    canaries: Annotated[
        int | None,
        typer.Option("--canaries", min=2, help="Clients to plant; 1,000 where they find room."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="Rounds, in place of the app's.")
    ] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", help="How sure the lower bound is, below 1.")
    ] = 0.95,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Bound an app's epsilon from below, by guessing which canaries took part.

    The app's first fm.run is run once, with canaries among its clients. A stated epsilon that is
    refuted ends with exit code 2.
    """
    machine = sys.stdout if json else None
    with reported(debug, machine), own_output(machine):
        loaded = load(app)
        values = chosen(loaded, set_ or [])

        from folkmoot.audit import audit as audited
        from folkmoot.cli.display import write_json
        from folkmoot.train.front import Front, Handed, behind

        try:
            with behind(Front(name=loaded.name, hands_over=True)):
                loaded.function(**values)
        except Handed as handed:
            asked: dict[str, Any] = handed.options
            asked |= {} if rounds is None else {"rounds": rounds}
            report = audited(
                handed.algorithm, handed.clients, canaries=canaries, confidence=confidence, **asked
            )
        else:
            raise FolkmootError(
                f"app() in {app} came to its end without calling fm.run(...), so there is nothing "
                "to audit."
            )
        if machine is not None:
            write_json(machine, {"event": "audit", **report.facts()})
        else:
            print(report)
        if not report.holds:
            raise typer.Exit(_BROKEN)
