"""One user's session at a worker: runs programs, operation by operation, on objects of its own.

Every operation is judged here before it runs, whatever the user's side has judged: whether it is on
the list, what it may be given, what its result would take. Autograd happens here as well, so a
backward pass and what it leaves in `.grad` are operations like others (`verbs`).
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from folkmoot.core.errors import did_you_mean
from folkmoot.remote.errors import Refused, RemoteError
from folkmoot.remote.judgement import FAILS, judged, words_of
from folkmoot.remote.labels import Kind, Label, joined, summed
from folkmoot.remote.messages import read
from folkmoot.remote.objects import Held, Objects, memory_of
from folkmoot.remote.operators import KEYWORDS, OPERATORS, OVERWRITING, RANDOM, WORDS, Operator
from folkmoot.remote.policy import Policy

Tables = Mapping[str, Mapping[str, Tensor]]
_MOST_ARGUMENTS = 16


class Verb(NamedTuple):
    """What a program may ask beside operators."""

    run: Callable[..., None]
    """`run(session, arrays, numbers of results, *arguments)`."""
    num_outs: int | None
    """None where it gives a result for each of a list."""
    num_args: int


class Session:
    """What one user has at a worker.

    Args:
        tables: The data, by name.
        policy: The owner's rules.
        verbs: What may be asked beside operators, by name.
    """

    def __init__(self, tables: Tables, policy: Policy, verbs: Mapping[str, Verb]) -> None:
        self.objects = Objects(policy)
        self.tables, self._policy, self._verbs = tables, policy, verbs
        self._kept = {memory_of(one) for table in tables.values() for one in table.values()} - {0}
        seed = int.from_bytes(os.urandom(8), "little")
        self.random = torch.Generator().manual_seed(seed).get_state()
        """From which this session's dropout is drawn."""
        self._grad_mode = True

    def run(self, program: Any, free: Any, arrays: Mapping[str, Tensor]) -> None:
        """Run the operations of a message, in order.

        Args:
            program: Each as [name, numbers of its results, arguments, keywords, grad mode].
            free: Lists of a place in the program, and the objects that are let go before it.
            arrays: What came along.

        Raises:
            RemoteError: At the first that fails, by name and number; those before it stand.
        """
        if type(program) is not list or len(program) > self._policy.max_operations:
            raise RemoteError(
                f"A program is a list of at most {self._policy.max_operations:,} operations."
            )
        at, self._grad_mode = 0, True
        freed = _freed(free)
        # Operations set the mode that they want; it is put back behind the last.
        with torch.enable_grad():
            try:
                for at, entry in enumerate(program, 1):
                    if at - 1 in freed:
                        self.objects.free(freed.pop(at - 1))
                    self._one(entry, arrays)
            except RemoteError as error:
                name = str(entry[0])[:64] if type(entry) is list and entry else "?"
                text = f"operation {at} of {len(program)}, {name}: {error}"
                raise type(error)(text) from error
            finally:
                # Also of what was not reached: nobody holds it any more.
                for numbers in freed.values():
                    self.objects.free(numbers)

    def _one(self, entry: Any, arrays: Mapping[str, Tensor]) -> None:
        name, outs, args, kwargs, grad = _parts(entry)
        held: list[Held] = []

        def find(number: int) -> Held:
            found = self.objects.find(number)
            held.append(found)
            return found

        given = [read(one, WORDS, find) for one in args]
        verb = self._verbs.get(name)
        if verb is not None:
            if kwargs or len(given) != verb.num_args or verb.num_outs not in (None, len(outs)):
                raise RemoteError(f"it takes {verb.num_args} arguments and no keywords.")
            verb.run(self, arrays, outs, *given)
            return
        operator = OPERATORS.get(name)
        if operator is None:
            raise RemoteError(
                "it is not on the worker's list of operators."
                f"{did_you_mean(name[:64], OPERATORS, listed=False)}"
            )
        named = {key: read(one, WORDS, find) for key, one in kwargs.items()}
        if grad is not self._grad_mode:
            torch.set_grad_enabled(grad)
            self._grad_mode = grad
        self._apply(operator, outs, given, named, held)

    def _apply(
        self,
        operator: Operator,
        outs: list[int],
        args: list[Any],
        kwargs: dict[str, Any],
        held: list[Held],
    ) -> None:
        outcome, label, sorts = judged(operator, args, kwargs, held)
        written = _written(operator, args) if operator.writes else ()
        inside = 0 in operator.writes
        for one in written:
            if one.memory in self._kept:
                raise Refused("the worker's data are not written to; clone() them first.")
        if len(outs) != (0 if inside else len(outcome.outlines)):
            raise RemoteError(f"it does not give {len(outs)} results.")
        self.objects.refuse_more(outcome.num_bytes + outcome.on_the_way, len(outs))
        stays = label if inside or not written else _of_batch(label, args[0])
        # Where it has a history, its gradients are of that still, and be they 0 times a number.
        keeps = operator.name in OVERWRITING and args[0].tensor.grad_fn is not None
        done = False
        try:
            found = self._run(operator, args, kwargs, held)
            for place, number in enumerate(outs):
                tensor = found if outcome.form is None else found[place]
                for one in held:
                    if tensor is one.tensor:
                        # One tensor is one object: what is known of it stands in one place.
                        tensor = tensor.view_as(tensor)
                outline = outcome.outlines[place]
                if tensor.shape != outline.shape or tensor.dtype != outline.dtype:
                    raise RemoteError("its result is not of the shape that was judged.")
                self.objects.put(number, tensor, label, held, outline, sorts[place])
            done = True
        finally:
            for one in written:
                # What fails midway may have written before.
                whole = inside and done and not keeps
                self.objects.written(one, stays if whole else joined((one.label, stays)), held)

    def _run(
        self, operator: Operator, args: list[Any], kwargs: dict[str, Any], held: list[Held]
    ) -> Any:
        bare = [one.tensor if type(one) is Held else _bare(one) for one in args]
        named = {key: _bare(one) for key, one in kwargs.items()} if kwargs else kwargs
        try:
            if operator.name in RANDOM:
                with self._own_numbers():
                    return operator.run(*bare, **named)
            return operator.run(*bare, **named)
        except FAILS as error:
            raise failed(error, held) from error

    @contextlib.contextmanager
    def _own_numbers(self) -> Iterator[None]:
        """Draw from this session's generator, and leave the process's as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.random)
            yield
            self.random = torch.get_rng_state()


def failed(error: Exception, held: list[Held]) -> RemoteError:
    """Return what a user hears of a failure: torch's words, where nothing private has entered."""
    if all(one.label.rows == math.inf for one in held):
        return RemoteError(words_of(error))
    return RemoteError(
        f"it failed with a {type(error).__name__}, whose words may hold numbers of private rows "
        "and stay at the worker. Try it on the table's mock."
    )


def _freed(free: Any) -> dict[int, list[int]]:
    """Read what is let go: place in the program -> objects."""
    if type(free) is not list:
        raise RemoteError("what is let go is a list.")
    found: dict[int, list[int]] = {}
    for part in free:
        if type(part) is not list or not part or not all(type(one) is int for one in part):
            raise RemoteError("what is let go is a list of places and numbers.")
        found.setdefault(part[0], []).extend(part[1:])
    return found


def _parts(entry: Any) -> tuple[str, list[int], list[Any], dict[str, Any], bool]:
    """Take an operation apart: name, numbers of its results, arguments, keywords, grad mode."""
    if type(entry) is list and len(entry) == 5:
        name, outs, args, kwargs, grad = entry
        lists = type(name) is str and type(outs) is list and type(args) is list
        if lists and type(kwargs) is dict and type(grad) is bool and len(args) <= _MOST_ARGUMENTS:
            for one in outs:
                if type(one) is not int or not 0 < one < 1 << 53:
                    raise RemoteError("numbers of objects are whole and above 0.")
            if kwargs and not kwargs.keys() <= KEYWORDS:
                word = min(kwargs.keys() - KEYWORDS)
                raise RemoteError(f"{word[:64]!r} is no keyword that may be given.")
            return name, outs, args, kwargs, grad
    raise RemoteError(
        "an operation is [name, numbers of its results, arguments, keywords, grad mode]."
    )


def _bare(value: Any) -> Any:
    kind = type(value)
    if kind is Held:
        return value.tensor
    if kind is list or kind is tuple:
        return kind(_bare(one) for one in value)
    return value


def _written(operator: Operator, args: list[Any]) -> list[Held]:
    """Return the objects that an operator writes into."""
    if operator.name == "batch_norm" and not (len(args) > 5 and args[5]):
        return []  # Statistics are read, not written, when a model is evaluated.
    places = [place for place in operator.writes if place < len(args)]
    return [args[place] for place in places if type(args[place]) is Held]


def _of_batch(label: Label, batch: Any) -> Label:
    """Return the label of statistics over a batch, where that of what it was made to is known."""
    rows = label.kind is Kind.ROWS and type(batch) is Held
    return summed(label, batch.outline.shape[0]) if rows else label
