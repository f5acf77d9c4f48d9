"""`folkmoot check APP.py`: look at what an app would run, without training."""

import sys

import typer

from folkmoot.cli.app import load
from folkmoot.cli.errors import reported
from folkmoot.cli.run import AppFile, Debug, Json, Set, Workers, own_output
from folkmoot.cli.settings import chosen
from folkmoot.core.errors import FolkmootError

_PROBLEMS = 2


def check(
    app: AppFile,
    set_: Set = None,
    workers: Workers = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check an app's data, model and settings before its first round, and estimate its cost.

    The app runs up to its first fm.run. Problems end with exit code 2, warnings with 0.
    """
    machine = sys.stdout if json else None
    with reported(debug, machine), own_output(machine):
        loaded = load(app)
        values = chosen(loaded, set_ or [])

        from folkmoot.cli.display import write_json
        from folkmoot.train.front import Checked, Front, behind

        try:
            with behind(Front(workers=workers, name=loaded.name, checks=True)):
                loaded.function(**values)
        except Checked as found:
            report = found.report
        else:
            raise FolkmootError(
                f"app() in {app} came to its end without calling fm.run(...), so there is nothing "
                "to check."
            )
        if machine is not None:
            write_json(machine, {"event": "check", **report.facts()})
        else:
            print(report)
        if not report.ok:
            raise typer.Exit(_PROBLEMS)
