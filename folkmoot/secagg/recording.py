"""What the servers of secure sums have seen, for audits."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

from folkmoot.secagg.terms import Terms
from folkmoot.secagg.together import Seen


class Record(NamedTuple):
    """One secure sum, as its server saw it."""

    terms: Terms
    seen: list[Seen]


_RECORDS: contextvars.ContextVar[list[Record] | None] = contextvars.ContextVar(
    "folkmoot_transcript", default=None
)


@contextlib.contextmanager
def transcript() -> Iterator[list[Record]]:
    """Record every message that servers get from clients while this is open.

        with fm.secagg.transcript() as records:
            fm.run(..., secure="protocol")

    All masked vectors are kept, so memory grows with rounds and cohort.

    Returns:
        A context whose value is a list that grows by one record a sum.
    """
    records: list[Record] = []
    token = _RECORDS.set(records)
    try:
        yield records
    finally:
        _RECORDS.reset(token)


def begin_record(terms: Terms) -> list[Seen] | None:
    """Return where a sum's messages are recorded; None where nobody asked."""
    records = _RECORDS.get()
    if records is None:
        return None
    records.append(Record(terms, []))
    return records[-1].seen
