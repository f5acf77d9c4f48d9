"""An app: a Python file with one function `app(...)` that returns the run.

    def app(rounds: int = 20, lr: float = 0.1) -> fm.Result:
        ...
        return fm.run(fm.fedavg(work), clients, rounds=rounds, test=test)

Its arguments are the settings, which `--set key=value` changes. The function calls `fm.run` as any
program does; folder, display, workers and resuming are the command line's business
(`train/front.py`).
"""

import hashlib
import importlib.util
import inspect
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from folkmoot.core.errors import SettingsError, did_you_mean

_FUNCTION = "app"
_NAMELESS = ("app", "main", "__init__")
"""Names of files that say nothing; their folder's name does."""


class App(NamedTuple):
    """A loaded app."""

    path: Path
    name: str
    """What its runs are called, unless it names them itself."""
    digest: str
    """sha256 of the file, in hex."""
    function: Callable[..., Any]


def load(path: Path) -> App:
    """Load an app's file, with its folder first on the path of imports.

    The global generators of Python, numpy and torch are seeded with 0 before, so that a model that
    is built anew begins with the same numbers; a run's own randomness comes from `seed=`.

    Raises:
        SettingsError: If there is no such file, or no function `app` in it.
        Exception: What the file itself raises.
    """
    _check_file(path)
    _seed_generators()
    module = _module(path)
    function = getattr(module, _FUNCTION, None)
    if not inspect.isfunction(function):
        found = [name for name, value in vars(module).items() if _is_own(value, module.__name__)]
        near = f" It defines {', '.join(found)}: call it {_FUNCTION}." if found else ""
        raise SettingsError(
            f"{path} has no function {_FUNCTION}(...). An app is a file with one function, "
            f"{_FUNCTION}, that returns what fm.run(...) gives back.{near}"
        )
    stem = path.stem if path.stem not in _NAMELESS else path.resolve().parent.name
    return App(path, stem, hashlib.sha256(path.read_bytes()).hexdigest(), function)


def _check_file(path: Path) -> None:
    if path.is_dir():
        inside = sorted(file.name for file in path.glob("*.py"))
        hint = f" Name a file in it: {path / inside[0]}." if inside else ""
        raise SettingsError(f"{path} is a folder, not the file of an app.{hint}")
    if not path.exists():
        near = [str(file) for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
        hint = did_you_mean(str(path), near) if near else " `folkmoot new NAME` writes an app."
        raise SettingsError(f"There is no file {path}.{hint}")
    if path.suffix != ".py":
        raise SettingsError(f"{path} is no Python file; an app's name ends in .py.")


def _seed_generators() -> None:
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def _module(path: Path) -> Any:
    """Import the file under a name that no library has, and leave no __pycache__ beside it."""
    name = f"folkmoot_app_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise SettingsError(f"{path} cannot be read as a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module


def _is_own(value: Any, module: str) -> bool:
    return inspect.isfunction(value) and value.__module__ == module
