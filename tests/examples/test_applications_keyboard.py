"""The keyboard ends as it promises, and suggests the words that its model finds likeliest."""

import io
import itertools
import math
import runpy
import sys

import pytest
import torch
from promises import EXAMPLES, form, promised, tidy

from folkmoot.data.sets.shakespeare import VOCABULARY

FOLDER = EXAMPLES / "keyboard"
WAYS = [
    "federated",
    "federated, eden(1) up",
    "federated, private",
    "private among a million",
    "pooled",
    "each alone",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("keyboard")


@pytest.fixture
def started(monkeypatch, place, capsys):
    """A function that runs the program, and returns its variables and the lines it printed."""
    others = set(sys.modules)
    monkeypatch.setenv("FOLKMOOT_QUICK", "1")
    monkeypatch.chdir(place)

    def start(*arguments, keys=""):
        monkeypatch.setattr(sys, "argv", ["keyboard", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(keys))
        left = runpy.run_path(str(FOLDER))
        return left, tidy(capsys.readouterr().out)

    yield start
    for name in set(sys.modules) - others:
        # Other applications call their files alike.
        if str(FOLDER) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def test_the_keyboard_compares_six_ways_within_their_budgets_and_types_along(started, place):
    left, lines = started()
    table = left["table"]

    assert list(table.found) == WAYS
    assert form(lines[-1]) == form(promised(FOLDER / "__main__.py"))
    assert 0 < table.interval("federated, private", "epsilon").mean <= 8
    sent = [table.interval(way, "MB up").mean for way in WAYS[:2]]
    # One bit in 32, and 4 bytes of scale for each of few leaves.
    assert sent[0] / sent[1] == pytest.approx(32, rel=0.02)
    assert (place / "keyboard.png").stat().st_size > 0

    _, lines = started("--type", keys="To be\nO")
    told = [line.partition(" [")[0] for line in lines]
    # What is typed stands before its suggestions; a return begins anew.
    assert told == ["T", "To", "To", "To b", "To be", "O"]
    assert all(line.count("|") == 2 and line.endswith("%]") for line in lines)


class Bigram(torch.nn.Module):
    """The next character by the last one alone, with chances that are drawn once."""

    def __init__(self, letters):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.logits = torch.full((82, 82), -50.0)
        allowed = [VOCABULARY.index(sign) for sign in letters + " "]
        self.logits[:, allowed] = torch.randn(82, len(allowed), generator=draw)

    def follow(self, x, state=None):
        return self.logits[x], (torch.zeros(1, len(x), 1),)


def test_suggestions_are_the_likeliest_of_all_ends(started, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    suggest = __import__("suggest")
    model = Bigram("abc")
    chance = model.logits.log_softmax(1)
    code = {sign: VOCABULARY.index(sign) for sign in "abc "}
    every = {}
    for length in range(7):
        for end in itertools.product("abc", repeat=length):
            signs = ["c", *end, " "]
            pairs = itertools.pairwise(signs)
            every["".join(end)] = sum(float(chance[code[a], code[b]]) for a, b in pairs)

    found = suggest.suggest(model, "ac")

    best = sorted(every, key=every.get, reverse=True)[:3]
    assert [end for end, _ in found] == best
    assert [value for _, value in found] == pytest.approx([math.exp(every[end]) for end in best])


def test_characters_have_the_codes_of_the_set(started, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    data = __import__("data")

    assert data.CHARACTERS == VOCABULARY
    # An umlaut is none of Shakespeare's.
    assert data.encode("a\nü").tolist() == [[VOCABULARY.index("a"), 0, 1]]
