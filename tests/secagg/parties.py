"""Secure sums for tests: inputs, plain sums, and all parties with somebody on the line."""

import numpy as np

from folkmoot.core.errors import QuorumError, SecureError
from folkmoot.secagg.client import client
from folkmoot.secagg.messages import Complaint
from folkmoot.secagg.primitives import public, signing_key
from folkmoot.secagg.server import server
from folkmoot.secagg.terms import terms
from folkmoot.secagg.together import together

SMALL = ((5, 32),)


def inputs(agreed, seed=0):
    """Full-range vectors for everybody: every sum wraps around."""
    generator = np.random.default_rng(seed)
    return {
        name: tuple(
            generator.integers(0, 1 << bits, size=length, dtype=f"u{bits // 8}")
            for length, bits in agreed.vectors
        )
        for name in agreed.clients
    }


def plain_sum(agreed, given, names):
    """The sum modulo 2^bits, in Python's integers."""
    return [
        [sum(int(given[name][i][at]) for name in names) % 2**bits for at in range(length)]
        for i, (length, bits) in enumerate(agreed.vectors)
    ]


def is_exact(agreed, given, opened):
    found = [vector.tolist() for vector in opened.vectors]
    return found == plain_sum(agreed, given, opened.survivors)


def opens(agreed, drops=None, seed=0):
    """Run a sum: what was opened, checked to the bit, or None where it was given up."""
    given = inputs(agreed, seed)
    try:
        opened = together(agreed, given, drops=drops)
    except QuorumError:
        return None
    assert is_exact(agreed, given, opened)
    return opened


def parties(agreed, given=None, keys=None, **options):
    """Everybody's generator, the server's, and the signing keys; fresh ones unless given."""
    given = given or inputs(agreed)
    keys = keys or {name: signing_key() for name in agreed.clients}
    roster = {name: public(key) for name, key in keys.items()}
    clients = {
        name: client(agreed, name, given[name], identity=keys[name], roster=roster, **options)
        for name in agreed.clients
    }
    return clients, server(agreed, roster), keys


def play(clients, lead, *, down=None, up=None):
    """Drive a sum with somebody on the line.

    Args:
        clients: Generators by id.
        lead: The server's generator.
        down: Changes what a client hears: (phase, id, message) to a message.
        up: Changes what the server hears of one client: (phase, id, message) to a list of answers,
            each a pair.

    Returns:
        What was opened, and what clients refused: {id: SecureError}.
    """
    refused, asked = {}, next(lead)
    while True:
        answers: list = []
        for name, message in asked.messages.items():
            try:
                heard = message if down is None else down(asked.phase, name, message)
                answer = clients[name].send(heard)
                answers += [(name, answer)] if up is None else up(asked.phase, name, answer)
                if isinstance(answer, Complaint):
                    clients[name].send(None)  # It leaves.
            except SecureError as error:
                refused[name] = error
        try:
            asked = lead.send(answers)
        except StopIteration as done:
            return done.value, refused
        except QuorumError as error:
            return error, refused


def five(vectors=SMALL, threat="honest", **options):
    """Terms of five clients of whom two may drop out."""
    asked = {"dropped": 0.4, "run": b"a run", "round": 7, "model": b"m" * 32, **options}
    return terms(5, vectors, threat=threat, **asked)
