"""The owner's half of a worker: data, rules, sessions, requests and a ledger behind one function.

`answer(bytes) -> bytes` is all that a user reaches, wherever it runs: in the user's process, in one
of its own, or one day behind a real site's connection. `answer_owner` is the owner's, and never
shares a channel with it.
"""

import logging
import math
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from folkmoot.core.errors import BudgetError, FolkmootError
from folkmoot.privacy.ledger import Ledger
from folkmoot.remote.errors import Refused, RemoteError
from folkmoot.remote.labels import Kind, Label
from folkmoot.remote.messages import from_bytes, read, to_bytes
from folkmoot.remote.objects import Held
from folkmoot.remote.policy import Policy
from folkmoot.remote.requests import Requests
from folkmoot.remote.session import Session
from folkmoot.remote.statistics import released
from folkmoot.remote.verbs import VERBS

_log = logging.getLogger(__name__)
_MOST_NUMBERS = 100_000
Answer = tuple[dict[str, Any], dict[str, Tensor]]


class Site:
    """Where the data are.

    Args:
        name: The worker's.
        tables: Data by name: each a dict of columns, whose axis 0 are the same rows.
        policy: The owner's rules.
    """

    def __init__(
        self, name: str, tables: Mapping[str, Mapping[str, Tensor]], policy: Policy
    ) -> None:
        self.name, self.policy = name, policy
        self._tables = {table: dict(columns) for table, columns in tables.items()}
        self._sessions: dict[str, Session] = {}
        self._requests = Requests()
        # A user's message and an owner's may come at once.
        self._lock = threading.Lock()
        self._ledger: Ledger | None = None
        if policy.epsilon is not None:
            self._ledger = Ledger(
                policy.ledger, unit="example", epsilon=policy.epsilon, delta=policy.delta
            )
        self._wants: dict[str, Callable[..., Answer]] = {
            "collect": self._collect,
            "get": self._get,
            "item": self._item,
            "request": self._request,
            "statistic": self._statistic,
        }

    def answer(self, message: bytes) -> bytes:
        """Answer a user's message."""
        return self._safely(self._answered, message)

    def answer_owner(self, message: bytes) -> bytes:
        """Answer the owner's message."""
        return self._safely(self._answered_owner, message)

    def close(self) -> None:
        """Let go of the ledger's file."""
        if self._ledger is not None:
            self._ledger.close()

    def _safely(self, answered: Callable[[bytes], Answer], message: bytes) -> bytes:
        with self._lock:
            try:
                return to_bytes(*answered(message))
            except FolkmootError as error:
                kind = next((k for k, of in _KINDS.items() if isinstance(error, of)), "failed")
                return to_bytes({"error": kind, "text": str(error)})
            except Exception:
                # A stranger's message must not end the worker, nor show its insides.
                _log.exception("worker %s could not answer a message", self.name)
                text = "The worker could not answer this message; its owner finds why in the log."
                return to_bytes({"error": "failed", "text": text})

    def _answered(self, message: bytes) -> Answer:
        if len(message) > self.policy.max_message_bytes:
            raise Refused(
                f"A message of {len(message):,} bytes is longer than the worker reads, "
                f"{self.policy.max_message_bytes:,}. Send in parts."
            )
        header, arrays = from_bytes(message)
        if header == {"hello": 1}:
            return self._hello(), {}
        token = header.get("session")
        session = self._sessions.get(token) if type(token) is str else None
        if session is None:
            raise RemoteError("The worker knows no such session; a Worker begins one.")
        assert type(token) is str
        if header.get("bye") == 1:
            del self._sessions[token]
            return {}, {}
        if set(header) != {"session", "program", "free", "want"}:
            raise RemoteError("A message has a session, a program, a list to free, and a want.")
        session.run(header["program"], header["free"], arrays)
        return self._wanted(token, session, header["want"])

    def _hello(self) -> dict[str, Any]:
        if len(self._sessions) >= self.policy.max_sessions:
            raise Refused(f"The worker has {len(self._sessions)} sessions; no more may begin.")
        token = secrets.token_hex(16)
        self._sessions[token] = Session(self._tables, self.policy, VERBS)
        schema = [
            [name, [[key, *_shown(x)] for key, x in columns.items()]]
            for name, columns in self._tables.items()
        ]
        return {"session": token, "tables": schema}

    def _wanted(self, token: str, session: Session, want: Any) -> Answer:
        if want is None:
            return {}, {}
        if type(want) is not list or not want or type(want[0]) is not str:
            raise RemoteError("A want is a list that begins with its name.")
        name, *rest = want
        if name not in self._wants:
            raise RemoteError(f"{name[:64]!r} is nothing that can be wanted of a worker.")
        arity = {"get": 1, "item": 1, "request": 2, "collect": 1, "statistic": 3}[name]
        if len(rest) != arity:
            raise RemoteError(f"{name} takes {arity} arguments.")
        return self._wants[name](token, session, *rest)

    def _leaving(self, session: Session, number: Any) -> Tensor:
        """Return an object's numbers, where the owner's rules let them leave."""
        held = _object(session, number)
        self._refuse(held.label)
        return held.tensor.detach()

    def _refuse(self, label: Label) -> None:
        least = self.policy.min_rows
        if label.kind is Kind.PUBLIC:
            return
        if label.kind is Kind.MIXED and least is not None and label.rows >= least:
            return
        if label.kind is Kind.MIXED and least is not None:
            why = f"it rests on {int(label.rows)} private rows, and must on {least} at least"
        elif label.kind is Kind.MIXED:
            why = "it is made of private rows, and statistics with noise alone may leave"
        else:
            why = f"it is {label}, and data never leave"
        raise Refused(
            f"Worker {self.name!r} does not let this object leave: {why}. Ask its owner "
            f"(worker.request(pointer, why)), or for a statistic with noise."
        )

    def _get(self, token: str, session: Session, numbers: Any) -> Answer:
        if type(numbers) is not list or len(numbers) > _MOST_NUMBERS:
            raise RemoteError("What to get is a list of objects.")
        if len({str(number) for number in numbers}) < len(numbers):
            # An answer is then no longer than what a session may hold.
            raise RemoteError("What to get names an object twice.")
        found = [self._leaving(session, number) for number in numbers]
        return {}, {str(place): tensor for place, tensor in enumerate(found)}

    def _item(self, token: str, session: Session, number: Any) -> Answer:
        tensor = self._leaving(session, number)
        if tensor.numel() != 1:
            raise RemoteError(f"A tensor of {tensor.numel()} numbers is no single one; get() it.")
        value = tensor.item()
        odd = type(value) is float and not math.isfinite(value)
        return {"item": {"f": str(value)} if odd else value}, {}

    def _request(self, token: str, session: Session, number: Any, why: Any) -> Answer:
        return {"request": self._requests.ask(token, _object(session, number), why)}, {}

    def _collect(self, token: str, session: Session, number: Any) -> Answer:
        return {}, {"0": self._requests.collect(token, number)}

    def _statistic(self, token: str, session: Session, kind: Any, n: Any, options: Any) -> Answer:
        return {}, {"0": released(kind, _object(session, n), options, self._ledger)}

    def _answered_owner(self, message: bytes) -> Answer:
        header, _ = from_bytes(message)
        asked, number = header.get("asked"), header.get("number")
        if asked == "requests":
            return {"requests": self._requests.listed()}, {}
        if asked == "look":
            return {}, {"0": self._requests.value(number)}
        if asked == "decide":
            self._requests.decide(number, header["approved"], header["reason"])
            return {}, {}
        if asked == "spent":
            return {"spent": self._ledger.spent if self._ledger else 0.0}, {}
        raise RemoteError("The owner asked what nobody knows how to answer.")


def _object(session: Session, value: Any) -> Held:
    found = read(value, (), session.objects.find)
    if type(found) is not Held:
        raise RemoteError("An object is wanted by its number.")
    return found


def _shown(tensor: Tensor) -> tuple[list[int], str]:
    return list(tensor.shape), str(tensor.dtype).removeprefix("torch.")


_KINDS: dict[str, type[FolkmootError]] = {"refused": Refused, "budget": BudgetError}
