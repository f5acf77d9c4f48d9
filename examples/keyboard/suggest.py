"""Suggestions as one types: the likeliest ends of the word, by a search over the model's answers.

On a terminal the line is drawn anew with each key; tab takes the first suggestion, backspace takes
a character back, return begins anew, and control-D ends. From a pipe each character gives a line.
"""

import contextlib
import sys

import torch

from data import CHARACTERS, encode

REACH = 14
"""Characters that a suggestion adds at most."""
WIDTH = 16
"""Beginnings that are followed at once."""
MEMORY = 120
"""Characters before the cursor that are looked at."""
LETTERS = torch.tensor([sign.isalpha() or sign == "'" for sign in CHARACTERS])


@torch.no_grad()
def suggest(model, text, count=3):
    """Return the likeliest continuations of the word at the end of a text, and their chances.

    A chance is that of these characters and then of one that ends a word; a word that may end here
    has the continuation "".
    """
    # A speech begins after a line feed.
    logits, state = model.follow(encode("\n" + text[-MEMORY:]))
    beams, scores, done = [""], torch.zeros(1), {}
    for length in range(REACH + 1):
        chances = logits[:, -1].log_softmax(1)
        ends = scores + chances[:, ~LETTERS].logsumexp(1)
        # Between words nothing is no suggestion.
        if length or text[-1:].isalpha():
            done |= dict(zip(beams, ends.tolist(), strict=True))
        longer = (scores[:, None] + chances).masked_fill(~LETTERS, -torch.inf).flatten()
        best = sorted(done.values(), reverse=True)[:count]
        scores, places = longer.topk(min(WIDTH, int(LETTERS.sum())))
        # What is less likely than all that is found cannot become likelier.
        if len(best) == count and scores[0] < best[-1]:
            break
        parents, signs = places // len(CHARACTERS), places % len(CHARACTERS)
        beams = [beams[p] + CHARACTERS[s] for p, s in zip(parents, signs, strict=True)]
        state = tuple(part[:, parents] for part in state)
        logits, state = model.follow(signs[:, None], state)
    ranked = sorted(done, key=done.get, reverse=True)[:count]
    return [(end, float(torch.tensor(done[end]).exp())) for end in ranked]


def shown(model, text):
    """Return a line: the text, and the words that it may become."""
    line = text.rpartition("\n")[2]
    word = line.rpartition(" ")[2]
    ends = [f"{word}{end} {chance:.0%}" for end, chance in suggest(model, text)]
    return f"{line}  [{' | '.join(ends)}]"


def type_along(model):
    """Read characters and show suggestions until the input ends."""
    if sys.stdin.isatty():
        with keys() as read:
            on_terminal(model, read)
    else:
        text = ""
        for sign in iter(lambda: sys.stdin.read(1), ""):
            text += sign
            if sign != "\n":
                print(shown(model, text), flush=True)


@contextlib.contextmanager
def keys():
    """Give a function that returns one key at a time, and leave the terminal as it was."""
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield lambda: sys.stdin.read(1)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def on_terminal(model, read):
    """Draw one line anew with each key."""
    text = ""
    print("Type; tab takes the first suggestion, control-D ends.")
    for key in iter(read, ""):
        if key == "\x04":
            break
        if key in ("\x7f", "\b"):
            text = text[:-1]
        elif key == "\t":
            text += suggest(model, text)[0][0] + " "
        else:
            text += key
        end = "\n" if key == "\n" else ""
        print(f"\r\x1b[K{shown(model, text) if not end else ''}", end=end, flush=True)
    print()
