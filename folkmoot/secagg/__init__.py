"""Secure aggregation: a server adds up what clients send, and learns the sum and nothing else.

    agreed = terms(clients, vectors=[(1_000_000, 32)])
    opened = together(agreed, vectors)                       # all parties in one process
    mine = client(agreed, "ghent", vectors)                  # or one of them: a generator of
    lead = server(agreed)                                    # messages, without any I/O

Nothing here imports torch: a protocol must be checkable by reading it.
"""

from folkmoot.secagg.book import PHASES, Answers, Ask, Opened
from folkmoot.secagg.client import client
from folkmoot.secagg.graph import degree_and_threshold
from folkmoot.secagg.messages import ClientMessage, ServerMessage, decode, encode
from folkmoot.secagg.recording import Record, transcript
from folkmoot.secagg.secure import Secure
from folkmoot.secagg.server import server
from folkmoot.secagg.terms import Demands, Terms, terms, weakness
from folkmoot.secagg.together import Seen, together

__all__ = [
    "PHASES",
    "Answers",
    "Ask",
    "ClientMessage",
    "Demands",
    "Opened",
    "Record",
    "Secure",
    "Seen",
    "ServerMessage",
    "Terms",
    "client",
    "decode",
    "degree_and_threshold",
    "encode",
    "server",
    "terms",
    "together",
    "transcript",
    "weakness",
]
