"""Channels that are watched, and messages that are written by hand."""

import json

from folkmoot.remote import messages


class Watched:
    """A channel that keeps what passes."""

    def __init__(self, channel):
        self.channel, self.sent, self.came = channel, [], []

    def ask(self, message):
        self.sent.append(message)
        self.came.append(self.channel.ask(message))
        return self.came[-1]

    def close(self):
        self.channel.close()


class ByHand:
    """A session at a worker whose messages are written by hand: no check of ours is before it."""

    def __init__(self, worker):
        self.channel = worker._channel
        self.session = self.ask({"hello": 1})["session"]

    def ask(self, header, arrays=None):
        answer, _ = messages.from_bytes(self.channel.ask(messages.to_bytes(header, arrays)))
        return answer

    def run(self, *program, want=None, arrays=None, free=()):
        """Send operations, each a short form or a whole one: returns the answer's header."""
        full = [[*one, *([{}, True][len(one) - 5 :] if len(one) < 5 else [])] for one in program]
        header = {"session": self.session, "program": full, "free": list(free), "want": want}
        return self.ask(header, arrays)


def header_of(message):
    """The JSON of a message, read without our own reader."""
    return json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])
