"""What was released stays released: noisy sums are stored before they are used.

A run that is killed between the draw of a round's noise and its checkpoint would, gone on from the
checkpoint before, draw other noise for the same sum, and two noisy views of one sum are worth twice
the budget. So each decoded sum is written down first; a round that is done again takes it from
there. The checkpoint that holds the round makes the file superfluous.
"""

from pathlib import Path
from typing import NamedTuple

from folkmoot.core import wire
from folkmoot.core.errors import CheckpointError
from folkmoot.core.tree import Tree
from folkmoot.train.folders import write_atomically

_NAMES = "release-*.safetensors"


class Decoded(NamedTuple):
    """What an aggregator has made of a sum."""

    value: Tree
    counts: Tree
    codec: Tree
    """The codecs' next state."""


class Releases:
    """The noisy sums of rounds that no checkpoint holds yet, in a run's folder, or nowhere."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def find(self, round: int, exchange: int) -> Decoded | None:
        """Return what was released in an exchange, if it was.

        Raises:
            CheckpointError: If it cannot be read: it must not be drawn anew.
        """
        path = self._path(round, exchange)
        if path is None or not path.exists():
            return None
        try:
            tree, _ = wire.from_bytes(path.read_bytes())
        except (CheckpointError, OSError) as error:
            raise CheckpointError(
                f"{path} holds the noisy sum of round {round}, but cannot be read: {error}. Noise "
                "is never drawn twice for one sum, so the run ends here; begin a new one, whose "
                "budget is its own."
            ) from error
        return Decoded(tree["value"], tree["counts"], tree["codec"])

    def keep(self, round: int, exchange: int, decoded: Decoded) -> None:
        """Write what is about to be released."""
        path = self._path(round, exchange)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, wire.to_bytes(decoded._asdict()))

    def any(self) -> bool:
        """Tell whether something was released that no checkpoint holds."""
        return self.folder is not None and any(self.folder.glob(_NAMES))

    def forget(self, round: int | None = None) -> None:
        """Remove what a checkpoint of this round holds; of None, all that another run has left."""
        for path in self.folder.glob(_NAMES) if self.folder is not None else ():
            if round is None or int(path.stem.split("-")[1]) <= round:
                path.unlink(missing_ok=True)

    def _path(self, round: int, exchange: int) -> Path | None:
        name = f"release-{round:07d}-{exchange}.safetensors"
        return None if self.folder is None else self.folder / name
