"""`folkmoot new NAME`: a first app, that runs at once and is short enough to be read."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from folkmoot.cli.errors import reported
from folkmoot.core.errors import SettingsError

_APP = '''\
"""Find heart disease from records that stay in four hospitals:  folkmoot run {path}"""

import folkmoot as fm
from torch import nn


def app(rounds: int = 30, lr: float = 0.05, epochs: int = 1, seed: int = 0) -> fm.Result:
    """Return the run; `--set rounds=50` changes a setting."""
    clients, test = fm.data.load("heart_disease")  # Here your own data come in.
    model = nn.Sequential(nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 2))
    work = fm.local.sgd(fm.classifier(model), lr=lr, epochs=epochs, batch_size=16)
    return fm.run(fm.fedavg(work), clients, rounds=rounds, test=test, seed=seed)
'''

_README = """\
# {name}

A model learns across clients whose data stay where they are. In this folder:

    folkmoot check {path}                  look at data, memory and time first
    folkmoot run {path}                    train; all of it is kept in runs/<time>-{name}/
    folkmoot run {path} --set rounds=60    change a setting of app()

Your own data: put one of these in place of fm.data.load in app.py.

    clients = fm.data.from_frame(frame, client="hospital", target="label")   a table
    clients = fm.data.from_arrays({{"x": x, "y": y}}, client=owner_of_each_row)  arrays
    clients = {{"oslo": (x, y), "york": (x, y)}}                               tensors
"""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The folder to make.")],
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback.")] = False,
) -> None:
    """Write a folder with an app that runs at once, offline, and a page on what to do next."""
    with reported(debug):
        folder = Path(name)
        if not folder.name or folder.name.startswith((".", "-")):
            raise SettingsError(f"{name!r} cannot name a folder. Take a name such as digits.")
        if folder.exists():
            raise SettingsError(f"{folder} is already there and stays as it is. Take another name.")
        folder.mkdir(parents=True)
        app = folder / "app.py"
        typed = shlex.quote(str(app))
        app.write_text(_APP.format(path=typed), encoding="utf-8")
        readme = _README.format(name=folder.name, path=typed)
        (folder / "README.md").write_text(readme, encoding="utf-8")
        typer.echo(f"{folder}/ holds app.py and README.md. Now: folkmoot run {typed}")
