"""`folkmoot run APP.py`: run an app, and keep the run in one folder."""

import contextlib
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from folkmoot.cli.app import App, load
from folkmoot.cli.errors import reported
from folkmoot.cli.places import Places
from folkmoot.cli.settings import chosen
from folkmoot.core.errors import CheckpointError, FolkmootError, SettingsError

AppFile = Annotated[
    Path,
    typer.Argument(
        metavar="APP.py", help="A file with one function, app(...), that returns the run."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one of the app's settings; may be repeated."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Streams of clients; one a core where not given."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The run's folder, in place of runs/<time>-<name>/."),
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON object a line, for machines.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]


def run(
    app: AppFile,
    set_: Set = None,
    workers: Workers = None,
    out: Out = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the run in --out, or from the newest in runs/."),
    ] = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing but errors.")] = False,
    debug: Debug = False,
) -> None:
    """Run an app: train, show how it goes, and keep everything in one folder."""
    machine = sys.stdout if json else None
    places: list[Places] = []
    typed = _typed(app, set_ or [], workers, out)
    with (
        reported(debug, machine, lambda error: _how_to_go_on(places, typed, error)),
        own_output(machine),
    ):
        places.append(Places(out, resume))
        result = _train(app, set_ or [], places[0], workers, resume, machine, quiet)
        if machine is not None:
            _write_result(machine, result, places[0])
        elif not quiet:
            print(result)
            for place in places[0].used:
                print(f"\nThe run is kept in {place}: {contents(place)}")


def _train(
    path: Path,
    given: list[str],
    places: Places,
    workers: int | None,
    resume: bool,
    machine: TextIO | None,
    quiet: bool,
) -> Any:
    """Load the app, stand in front of its runs, and return what it returns."""
    loaded = load(path)
    values = chosen(loaded, given)

    from folkmoot.cli.display import display
    from folkmoot.train.front import Front, behind
    from folkmoot.train.result import Result

    front = Front(
        workers=workers,
        progress=display(machine, quiet),
        name=loaded.name,
        place=places,
        resume=resume,
        app=facts_of(loaded, values),
    )
    with behind(front):
        result = loaded.function(**values)
    if not isinstance(result, Result):
        raise FolkmootError(
            f"app() in {path} must return the run, what fm.run(...) gives back, but returned "
            f"{'nothing' if result is None else f'a {type(result).__name__}'}. End it with: "
            "return fm.run(...)"
        )
    return result


def facts_of(app: App, values: dict[str, Any]) -> dict[str, Any]:
    """Return what a run's settings say of its app."""
    settings = {
        key: str(value) if isinstance(value, Path) else value for key, value in values.items()
    }
    return {"app": {"file": app.path.name, "digest": app.digest, "set": settings}}


@contextlib.contextmanager
def own_output(machine: TextIO | None) -> Any:
    """Keep stdout for JSON alone: what an app prints goes to stderr then."""
    if machine is None:
        yield
    else:
        with contextlib.redirect_stdout(sys.stderr):
            yield


def contents(place: Path) -> str:
    """Name what lies in a run's folder, that which people open first."""
    found = sorted(path.name for path in place.iterdir() if not path.name.startswith("."))
    return ", ".join(sorted(found, key=lambda name: not name.endswith((".html", ".png"))))


def _write_result(machine: TextIO, result: Any, places: Places) -> None:
    from folkmoot.cli.display import write_json

    write_json(
        machine,
        {
            "event": "result",
            "folders": [str(place) for place in places.used],
            "rounds": result.rounds,
            "metrics": result.metrics,
            "best": result.best._asdict(),
            "ended": result.ended,
            "times": result.times._asdict(),
            "traffic": result.traffic._asdict(),
        },
    )


def _typed(app: Path, given: list[str], workers: int | None, out: Path | None) -> str:
    """Return what was typed, without --resume."""
    words = ["folkmoot", "run", str(app)]
    words += [word for text in given for word in ("--set", text)]
    words += ["--workers", str(workers)] if workers else []
    words += ["--out", str(out)] if out else []
    return shlex.join(words)


def _how_to_go_on(places: list[Places], typed: str, error: BaseException) -> str | None:
    """Return the sentence that tells how to go on with a run that was cut off, if it can."""
    kept = places[0].kept() if places else []
    # The same command would be refused again: other settings or another folder are the cure.
    if not kept or isinstance(error, SettingsError | CheckpointError):
        return None
    return f"The rounds that were done are kept in {kept[-1]}. To go on: {typed} --resume"
