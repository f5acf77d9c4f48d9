"""What an algorithm or a transform is composed of: local work, and nothing else."""

from typing import Any

from folkmoot.core.algorithm import LocalWork
from folkmoot.core.errors import SettingsError


def refuse_no_work(verb: str, work: Any) -> None:
    """Refuse, by kind, what is no local work: a module, an objective, an algorithm.

    Raises:
        SettingsError: Where the parts are composed, before any client is asked.
    """
    if not isinstance(work, LocalWork):
        raise SettingsError(
            f"{verb}() needs local work, such as fm.local.sgd(fm.classifier(model), lr=0.1), but "
            f"was given {kind_of(work)}."
        )


def kind_of(value: Any) -> str:
    """Return what a value is, with its article: a Linear, an int, the class Linear."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeioAEIO' else 'a'} {kind}"
