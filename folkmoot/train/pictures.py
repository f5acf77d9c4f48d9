"""What a result can draw: Matplotlib is imported by the first picture, and not before."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folkmoot.core.errors import SettingsError
from folkmoot.train.outcome import Outcome


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Pictured(Outcome):
    """A finished run that draws itself."""

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the run: metrics over rounds, the loss, and clients' values.

        Args:
            path: Where to write the picture; its ending chooses the format: .png, .svg or .pdf.

        Returns:
            The path; without one the Matplotlib `Figure`, which a notebook shows.
        """
        from folkmoot.train.plot import draw, write_picture

        return draw(self) if path is None else write_picture(Path(path), self)

    def plot_privacy(self, path: str | Path | None = None) -> Any:
        """Draw epsilon over rounds, the metric against epsilon, and noise beside signal.

        Args:
            path: Where to write the picture, as for `plot`.

        Raises:
            SettingsError: If the run has promised nothing.
        """
        from folkmoot.train.plot import draw_privacy, write_picture

        if self.privacy is None:
            raise SettingsError(
                "There is no privacy to draw: the run has promised none. Pass "
                "privacy=fm.DP(epsilon=...) to fm.run."
            )
        return draw_privacy(self) if path is None else write_picture(Path(path), self, draw_privacy)

    def plot_efficiency(
        self, path: str | Path | None = None, others: Mapping[str, Outcome] | None = None
    ) -> Any:
        """Draw the metric against rounds, bytes sent up, and virtual time where there is a fleet.

        Args:
            path: Where to write the picture, as for `plot`.
            others: Runs to draw beside this one, by name: {"quantize(8)": other}.

        Raises:
            SettingsError: If a run was not evaluated by the metric of this one.
        """
        from folkmoot.train.plot import draw_efficiency, write_picture

        drawn = functools.partial(draw_efficiency, others=others or {})
        return drawn(self) if path is None else write_picture(Path(path), self, drawn)

    def plot_round(self, path: str | Path | None = None, round: int | None = None) -> Any:
        """Draw what each device did in a round of a fleet: download, training, upload, or its loss.

        Args:
            path: Where to write the picture, as for `plot`.
            round: The first or the last round, which are kept; None is the last.

        Raises:
            SettingsError: If the run had no fleet, or the round was not kept.
        """
        from folkmoot.train.plot import draw_round, write_picture

        drawn = functools.partial(draw_round, round=round)
        return drawn(self) if path is None else write_picture(Path(path), self, drawn)

    def report(self, path: str | Path) -> Path:
        """Write the run as one HTML page that opens without a network, and return its path."""
        from folkmoot.train.report import write_report

        return write_report(Path(path), self)
