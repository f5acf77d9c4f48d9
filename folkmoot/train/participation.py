"""Who took part in a run, and what each moved: a result's counts, by client and by round."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from folkmoot.core.engine import ClientId
from folkmoot.train.tally import Tally


class Roll(NamedTuple):
    """The whole population, with what was counted of it."""

    ids: Sequence[ClientId]
    """Ascending, as the counts are."""
    tally: Tally

    def asked_and_answered(self) -> dict[ClientId, tuple[int, int]]:
        """Return how often each client was asked, and how often its answer counted."""
        pairs = zip(self.tally.asked.tolist(), self.tally.answered.tolist(), strict=True)
        return dict(zip(self.ids, pairs, strict=True))

    def up_and_down(self) -> dict[ClientId, tuple[int, int]]:
        """Return each client's bytes up and down."""
        tally = self.tally
        pairs = zip(tally.upload_bytes.tolist(), tally.download_bytes.tolist(), strict=True)
        return dict(zip(self.ids, pairs, strict=True))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return a row a client, for a table."""
        columns = [column.tolist() for column in self.tally]
        for client, *counts in zip(self.ids, *columns, strict=True):
            yield {"id": client, **dict(zip(Tally._fields, counts, strict=True))}

    def never_heard(self) -> "NeverHeard":
        """Return the clients of which no answer counted."""
        silent = (self.tally.answered == 0).nonzero().reshape(-1).tolist()
        unasked = int((self.tally.asked == 0).sum())
        return NeverHeard([self.ids[place] for place in silent], unasked)


class NeverHeard(NamedTuple):
    """Clients of which the model knows nothing."""

    clients: list[ClientId]
    """Ids of those of which no answer counted, ascending."""
    unasked: int
    """How many of them were not even asked."""


class _Moved(NamedTuple):
    upload_bytes: int
    download_bytes: int


class Traffic(_Moved):
    """Bytes that a deployment would have moved, packed as they travel: (up, down)."""

    by_round: list[dict[str, int]]
    """For each round its number, upload and download, and the cumulative_upload until then."""
    by_client: dict[ClientId, tuple[int, int]] | None
    """Bytes (up, down) by id; None where they were not counted, as in a private run."""

    def __new__(cls, history: Sequence[Mapping[str, Any]], roll: Roll | None) -> "Traffic":
        rounds, up, down = [], 0, 0
        for row in history:
            up, down = up + row["upload_bytes"], down + row["download_bytes"]
            rounds.append(
                {
                    "round": row["round"],
                    "upload": row["upload_bytes"],
                    "download": row["download_bytes"],
                    "cumulative_upload": up,
                }
            )
        return cls._listed((up, down), rounds, roll.up_and_down() if roll else None)

    def __reduce__(self) -> tuple[Any, ...]:
        return Traffic._listed, (tuple(self), self.by_round, self.by_client)

    @classmethod
    def _listed(
        cls,
        moved: tuple[int, int],
        by_round: list[dict[str, int]],
        by_client: dict[ClientId, tuple[int, int]] | None,
    ) -> "Traffic":
        made = cls._make(moved)
        made.by_round, made.by_client = by_round, by_client
        return made
