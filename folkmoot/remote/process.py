"""A site in a process of its own: forked, one thread of arithmetic, two pipes.

The owner's messages come by a pipe of their own, to a thread of their own. The process dies with
the one that has forked it, and is killed when its worker is closed: a ledger is written before it
is acted on, so nothing that was spent is forgotten.
"""

import contextlib
import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from time import perf_counter
from typing import NoReturn

import torch

from folkmoot.core.errors import InfrastructureError, SettingsError
from folkmoot.engines.worker import end_with, keep_freed_memory
from folkmoot.remote.messages import from_bytes, to_bytes
from folkmoot.remote.outlines import warm
from folkmoot.remote.site import Site

_AWAKE_S = 0.001


class Forked:
    """A site's process, as long as it is open."""

    def __init__(self, name: str, build: Callable[[], Site]) -> None:
        if not hasattr(os, "fork"):
            raise SettingsError(
                "A worker in a process of its own is forked, which this system cannot do. Leave "
                "process=True out."
            )
        self.name, self.pid, self._parent = name, 0, os.getpid()
        self.users, user_end = Pipe()
        self.owners, owner_end = Pipe()
        self._owed: set[Connection] = set()
        """Where an answer is to come that nobody waits for any more."""
        warm()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # Python warns where other threads run; none of ours hold a lock that a site takes.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            _serve(self._parent, build, user_end, owner_end, (self.users, self.owners))
        self.pid = pid
        user_end.close()
        owner_end.close()
        try:
            begun, _ = from_bytes(self._received(self.users))
        except BaseException:
            self.close()
            raise
        if begun != {}:
            self.close()
            raise SettingsError(f"Worker {name!r} could not begin: {begun['text']}")

    def ask(self, connection: Connection, message: bytes) -> bytes:
        """Send a message by one of the pipes and wait for its answer.

        An interrupt (Ctrl-C) while the site computes leaves it computing: the answer is passed over
        when the next is asked for. One in the midst of a message ends the process.
        """
        if not self.pid:
            raise InfrastructureError(
                f"Worker {self.name!r} was closed, and all its objects with it. Make a new Worker."
            )
        if connection in self._owed:
            self._received(connection)
        try:
            # What has died takes nothing, and says why where an answer is waited for.
            with contextlib.suppress(OSError):
                connection.send_bytes(message)
        except BaseException:
            self.close()
            raise
        self._owed.add(connection)
        return self._received(connection)

    def close(self) -> None:
        """Kill the process and wait for it; a fork of the program that made it has no say."""
        if self.pid and os.getpid() == self._parent:
            os.kill(self.pid, signal.SIGKILL)
            self._ended()

    def _received(self, connection: Connection) -> bytes:
        _await(connection)
        try:
            return self._read(connection)
        except (EOFError, OSError) as error:
            pid, how = self.pid, self._ended()
            raise InfrastructureError(
                f"The process of worker {self.name!r} ({pid}) {how}, and all its objects are lost. "
                "Signal 9 mostly means that memory ran out. Make a new Worker and send again."
            ) from error

    def _read(self, connection: Connection) -> bytes:
        try:
            answer = connection.recv_bytes()
        except (EOFError, OSError):
            raise
        except BaseException:
            # Half an answer: what follows could not be told from it.
            self.close()
            raise
        self._owed.discard(connection)
        return answer

    def _ended(self) -> str:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        self.users.close()
        self.owners.close()
        if os.WIFSIGNALED(status):
            return f"was ended by signal {os.WTERMSIG(status)}"
        return f"ended with status {os.WEXITSTATUS(status)}"


class Piped:
    """One of the two ways to a forked site."""

    def __init__(self, forked: Forked, connection: Connection) -> None:
        self._forked, self._connection = forked, connection

    def ask(self, message: bytes) -> bytes:
        """Send a message and wait for its answer."""
        return self._forked.ask(self._connection, message)

    def close(self) -> None:
        """End the process."""
        self._forked.close()


def _serve(
    parent: int,
    build: Callable[[], Site],
    users: Connection,
    owners: Connection,
    others: tuple[Connection, ...],
) -> NoReturn:
    """Answer until nobody is left to ask; a process never returns from here."""
    status = 1
    try:
        end_with(parent)
        for connection in others:
            connection.close()
        # Ctrl-C reaches the whole group of processes; the parent decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        torch.set_num_threads(1)
        keep_freed_memory()
        # What came with the fork is not looked through again, and its pages stay shared.
        gc.freeze()
        _answer_all(build, users, owners)
        status = 0
    finally:
        os._exit(status)


def _await(connection: Connection) -> None:
    """Wait for a message: awake at first, since to fall asleep and wake up takes half a step."""
    until = perf_counter() + _AWAKE_S
    while not connection.poll(0):
        if perf_counter() > until:
            connection.poll(None)
            return
        # Where both share a core, the other one is to have it.
        os.sched_yield()


def _answer_all(build: Callable[[], Site], users: Connection, owners: Connection) -> None:
    try:
        site = build()
    except Exception as error:
        users.send_bytes(to_bytes({"error": "failed", "text": str(error)}))
        return
    users.send_bytes(to_bytes({}))

    def loop(connection: Connection, answer: Callable[[bytes], bytes]) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                _await(connection)
                connection.send_bytes(answer(connection.recv_bytes()))

    threading.Thread(target=loop, args=(owners, site.answer_owner), daemon=True).start()
    loop(users, site.answer)
    site.close()
