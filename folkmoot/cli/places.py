"""The folders of runs: `runs/<time>-<name>/` where the user stands, or the one that was named."""

import itertools
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from folkmoot.core.errors import SettingsError
from folkmoot.train.folders import refuse_unwritable

ROOT = Path("runs")


class Places:
    """Gives each run of an app its folder, and remembers them.

    Nothing is created here, so a run that is refused leaves no empty folder. Runs of one app share
    the time in their names; a second one of the same name ends in -2.

    Args:
        out: The folder of the first run; None for one of the moment.
        resume: Whether runs go on in folders that are there, the newest where none is named.
        clock: The time, for names.

    Raises:
        SettingsError: If `out` is a file, or holds something and is not to be resumed.
        InfrastructureError: If nothing can be written there.
    """

    def __init__(
        self, out: Path | None, resume: bool = False, clock: Callable[[], datetime] = datetime.now
    ) -> None:
        self.used: list[Path] = []
        self.out = out
        self._resume = resume
        self._clock = clock
        self._time: str | None = None
        if out is not None and out.exists() and not out.is_dir():
            raise SettingsError(f"--out {out} is a file. Name a folder.")
        if out is not None and not resume:
            _check_empty(out)
        refuse_unwritable("--out", out or ROOT)

    def __call__(self, name: str) -> Path:
        """Return the folder of a run with this name.

        Raises:
            SettingsError: If the folder that was asked for holds another run, or there is none to
                go on from.
        """
        name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
        place = self._place(name)
        self.used.append(place)
        return place

    def kept(self) -> list[Path]:
        """Return the folders from which a run can go on."""
        return [place for place in self.used if any(place.glob("checkpoints/*"))]

    def _place(self, name: str) -> Path:
        if self._time is None:
            newest = self._resume and self.out is None
            self._time = _newest(name) if newest else f"{self._clock():%Y%m%d-%H%M%S}"
        first = self.out or ROOT / f"{self._time}-{name}"
        numbered = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
        for place in itertools.chain([first], numbered):
            taken = self.out is None and not self._resume and place.exists()
            if place not in self.used and not taken:
                break
        if not self._resume:
            _check_empty(place)
        return place


def _newest(name: str) -> str:
    """Return the time of the newest run of this name that has a checkpoint."""
    pattern = re.compile(rf"(\d{{8}}-\d{{6}})-{re.escape(name)}")
    found = [
        match[1]
        for place in ROOT.glob("*")
        if (match := pattern.fullmatch(place.name)) and any(place.glob("checkpoints/*"))
    ]
    if not found:
        raise SettingsError(
            f"There is no run of {name!r} with a checkpoint in {ROOT}/ to go on from. Leave out "
            "--resume to begin one, or name its folder by --out."
        )
    return max(found)


def _check_empty(place: Path) -> None:
    """Refuse to write a run over another, or among other things."""
    if place.is_dir() and any(place.iterdir()):
        raise SettingsError(
            f"{place} is not empty. Name another folder, or add --resume to go on with the run "
            "that is in it."
        )
