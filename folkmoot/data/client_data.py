"""Clients and what they hold: a mapping from client id to a client whose examples load when asked.

A million clients cost nothing until they are asked: ids may be a `range`, a `Client` is two
references, and examples are not kept. Examples of in-memory sets are views of pooled tensors, so
writing into them changes the set for everyone.
"""

import hashlib
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from folkmoot.core.errors import DataError, did_you_mean
from folkmoot.core.tree import Tree
from folkmoot.data.arrays import describe
from folkmoot.data.examples import count

Id = int | str
"""A client's id: within one set, all integers or all strings."""

_MOST_NAMES = 10_000  # a near miss is searched among so many names at most


class UnknownClientError(DataError, KeyError):
    """A client was asked for that is not in the set."""

    __str__ = Exception.__str__  # KeyError's would show the sentence in quotes


class Client:
    """One client: its id, and its examples, read anew each time they are asked for.

    `len(client)` is the number of train examples; where no size is known the examples are read to
    count them.
    """

    __slots__ = ("_data", "id")

    def __init__(self, client_id: Id, data: "ClientData") -> None:
        self.id = client_id
        self._data = data

    @property
    def train(self) -> Tree:
        """The client's train examples, leaves (n, ...)."""
        return self._data._train(self.id)

    @property
    def test(self) -> Tree | None:
        """The client's own held-out examples, or None where it has none."""
        return self._data._test(self.id) if self._data._test else None

    def __len__(self) -> int:
        return self._data._size(self.id)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        size = "" if self._data.sizes() is None else f", {len(self):,} examples"
        return f"Client({self.id!r}{size})"


class ClientData(Mapping[Id, Client]):
    """The clients of a federation, by ascending id.

    Usually made by `from_arrays`, `from_function`, `from_datasets` or `load`, not by hand.

    Args:
        ids: All integers or all strings, each once, in any order. A `range` is never materialised.
        train: Gives a client's train examples; called each time they are asked for.
        test: Gives a client's own test examples or None; None where no client has any.
        sizes: Numbers of train examples, in the order of `ids` as passed; None where they are not
            known.
        name: What the set is called in tables and errors.
        num_classes: Number of classes of the leaf "y", where it is a class.
        content: Gives a digest of everything the clients hold, for `fingerprint`; called once, when
            needed.

    Raises:
        DataError: If there is no client, an id is repeated, or ids are of mixed or other types.
    """

    def __init__(
        self,
        ids: Iterable[Id],
        train: Callable[[Id], Tree],
        *,
        test: Callable[[Id], Tree | None] | None = None,
        sizes: Sequence[int] | NDArray[Any] | None = None,
        name: str = "clients",
        num_classes: int | None = None,
        content: Callable[[], str] | None = None,
    ) -> None:
        given = plain_ids(ids)
        self._ids, order = sorted_ids(given)
        self._sizes = None if sizes is None else np.asarray(sizes, dtype=np.int64)[order]
        # Both a range and a dict answer `in` at once.
        self._places: range | dict[Id, int] = (
            self._ids
            if isinstance(self._ids, range)
            else {client_id: place for place, client_id in enumerate(self._ids)}
        )
        self._train = train
        self._test = test
        self._content = content
        self._digest: str | None = None
        self.name = name
        self.num_classes = num_classes
        if not self._ids:
            raise DataError(f"{name}: there is no client. A federation needs at least one.")

    @property
    def ids(self) -> Sequence[Id]:
        """Client ids, ascending."""
        return self._ids

    @property
    def has_tests(self) -> bool:
        """Whether clients have test examples of their own."""
        return self._test is not None

    def sizes(self) -> NDArray[np.int64] | None:
        """Return each client's number of train examples, in the order of `ids`; None if unknown."""
        return self._sizes

    def size_of(self, client_id: Id) -> int | None:
        """Return one client's number of train examples; None where it is not known unread."""
        known = self._sizes is not None and client_id in self._places
        return self._size(client_id) if known else None

    def subset(self, ids: Iterable[Id]) -> "ClientData":
        """Keep only the clients with these ids; nothing is loaded or copied."""
        kept = plain_ids(ids)
        unknown = next((client_id for client_id in kept if client_id not in self), None)
        if unknown is not None:
            self._refuse(unknown)
        sizes = None if self._sizes is None else [self._size(client_id) for client_id in kept]
        return ClientData(
            kept,
            self._train,
            test=self._test,
            sizes=sizes,
            name=self.name,
            num_classes=self.num_classes,
            content=self._content_digest,
        )

    def fingerprint(self) -> str:
        """Return sha256 (hex) over what tells one set from another.

        It covers the set's name, all ids, and the sizes where they are known. For sets that lie in
        memory it also covers every byte of every example (read once, about 0.6 s a GiB, then
        remembered). What a function or a Dataset would return is not covered.
        """
        digest = hashlib.sha256(f"{self.name};{_canonical(self._ids)};".encode())
        if self._sizes is not None:
            digest.update(self._sizes.astype("<i8").tobytes())
        digest.update(self._content_digest().encode())
        return digest.hexdigest()

    def __getitem__(self, client_id: Id) -> Client:
        if type(client_id) is not int and type(client_id) is not str:
            client_id = plain_id(client_id)
        if client_id not in self._places:
            self._refuse(client_id)
        return Client(client_id, self)

    def __contains__(self, client_id: object) -> bool:
        try:
            plain = plain_id(client_id)
        except DataError:
            return False
        # A range would search one by one for anything but an int.
        return plain in self._places if type(plain) is type(self._ids[0]) else False

    def __iter__(self) -> Iterator[Id]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        total = "" if self._sizes is None else f", {int(self._sizes.sum()):,} train examples"
        tests = ", each with tests" if self.has_tests else ""
        return f"ClientData({self.name!r}, {len(self):,} clients{total}{tests})"

    def _size(self, client_id: Id) -> int:
        if self._sizes is None:
            return count(self._train(client_id))
        return int(self._sizes[self._place(client_id)])

    def _place(self, client_id: Id) -> int:
        places = self._places
        return places.index(int(client_id)) if isinstance(places, range) else places[client_id]

    def _content_digest(self) -> str:
        if self._digest is None:
            self._digest = self._content() if self._content else ""
        return self._digest

    def _refuse(self, client_id: Id) -> NoReturn:
        first = self._ids[0]
        hint = ""
        if type(client_id) is not type(first):
            kind = "integers" if isinstance(first, int) else "strings"
            hint = f" Ids of this set are {kind}, not {type(client_id).__name__}."
        elif isinstance(client_id, str):
            names = [str(known) for known in self._ids[:_MOST_NAMES]]
            hint = did_you_mean(client_id, names, listed=False)
        shown = ", ".join(repr(known) for known in self._ids[:5])
        more = f", ... up to {self._ids[-1]!r}" if len(self) > 5 else ""
        raise UnknownClientError(
            f"{self.name} has no client {client_id!r}.{hint} Its {len(self):,} ids are "
            f"{shown}{more}."
        )


def plain_id(value: Any) -> Id:
    """Turn numpy's and torch's integers and strings into Python's; refuse what is no id."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | np.bool_):
        raise DataError(f"A client id is an integer or a string, but {value!r} is a truth value.")
    try:
        return int(operator.index(value))
    except TypeError:
        raise DataError(
            f"A client id is an integer or a string, but {value!r} is {describe(value)}."
        ) from None


def plain_ids(ids: Iterable[Any]) -> range | list[Id]:
    """Return ids as Python integers or strings, in order; refuse a mixture and repeated ids."""
    if isinstance(ids, range):
        return ids
    if isinstance(ids, str | int):
        raise DataError(
            f"ids must be a sequence such as range(10) or a list of names, but is {ids!r}."
        )
    plain = [plain_id(value) for value in ids]
    if len({type(value) for value in plain}) > 1:
        number = next(value for value in plain if isinstance(value, int))
        text = next(value for value in plain if isinstance(value, str))
        raise DataError(
            f"Client ids are all integers or all strings, but these hold both {number!r} and "
            f"{text!r}. Convert them to one type."
        )
    if len(set(plain)) < len(plain):
        twice = next(value for value, times in Counter(plain).items() if times > 1)
        raise DataError(f"Client id {twice!r} is there more than once. Give each client one id.")
    return plain


def sorted_ids(ids: range | list[Id]) -> tuple[range | tuple[Id, ...], Any]:
    """Return ids in ascending order, and the index that brings their sizes into it."""
    if isinstance(ids, range):
        return (ids, slice(None)) if ids.step > 0 else (ids[::-1], slice(None, None, -1))
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return tuple(ids[index] for index in order), order


def _canonical(ids: range | tuple[Id, ...]) -> str:
    # A range and the same integers as a list are one set of ids; a run of integers is written by
    # its ends.
    first, last = ids[0], ids[-1]
    if isinstance(first, int) and isinstance(last, int) and last - first + 1 == len(ids):
        return f"{first}..{last}"
    return ",".join(map(repr, ids))
