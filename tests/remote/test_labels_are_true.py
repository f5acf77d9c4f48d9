"""Labels keep what they promise, under random calls of every operator.

Of rows in another order, what is labelled as rows comes in that order, and what is labelled as
sums, or flows back to public numbers from them, is the same. Whatever treats one row otherwise than
another breaks that.
"""

import random

import pytest
import torch

from folkmoot.remote import judgement, rules
from folkmoot.remote.errors import RemoteError
from folkmoot.remote.labels import Kind
from folkmoot.remote.operators import OPERATORS
from folkmoot.remote.policy import Policy
from folkmoot.remote.session import Session
from folkmoot.remote.verbs import VERBS

ROWS = 8
# Picked rows are others in another order, what is drawn is another each time, and what is written
# is judged by the operator that gives the same.
LEFT_OUT = {"dropout", "getitem", "setitem", "index_select"}
LEFT_OUT |= {name for name, operator in OPERATORS.items() if 0 in operator.writes}
CALLS = 80


def numbers(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SHAPES = [(ROWS,), (ROWS, 3), (ROWS, ROWS), (ROWS, 1), (ROWS, 2, 4, 4), (ROWS, 3, 5)]
COLUMNS = [numbers(shape, seed) for seed, shape in enumerate(SHAPES)]
COLUMNS += [numbers((ROWS,), 7) > 0, numbers((ROWS, 3), 8).abs().long()]
COLUMNS += [torch.tensor([0, 2, 1, 1, 0, 2, 2, 0])]
# Of as many entries as there are rows, too, in each axis.
PUBLIC = [(ROWS,), (ROWS, ROWS), (3,), (1, 3), (3, 3), (ROWS, 3), (3, ROWS), (2, 2, 3, 3), (1,)]
PUBLIC = [numbers(shape, seed + 20) for seed, shape in enumerate(PUBLIC)]
ORDER = torch.tensor([3, 0, 6, 1, 7, 5, 2, 4])


COUNT = len(COLUMNS) + len(PUBLIC)
FORMS = [
    "o",
    "o",
    "oo",
    "oo",
    "oo",
    "ooo",
    "ooo",
    "on",
    "onn",
    "ol",
    "oln",
    "ono",
    "Ln",
    "olb",
    "ooN",
]
"""Objects, whole numbers, lists of them, lists of objects, truth values, options with an object."""
EXACT = {
    "batch_norm": ["oooootff0", "oNNNNtff0"],
    "conv1d": ["ooN"],
    "conv2d": ["oo", "ooo"],
    "layer_norm": ["ol", "olo", "oloo"],
    "group_norm": ["on", "onoo"],
    "max_pool2d": ["on", "onn"],
    "avg_pool2d": ["on", "onn"],
    "linear": ["oo", "ooo"],
}


def argument(token, lot):
    """An argument: an object, or a plain value."""
    if token == "o":
        return {"p": lot.randrange(1, COUNT + 1)}
    if token == "L":
        return [{"p": lot.randrange(1, COUNT + 1)}] * 2
    if token == "l":
        return [lot.choice([-1, 0, 1, 2, 3, 5, 8]) for _ in range(lot.randrange(1, 4))]
    plain = {"n": [-2, -1, 0, 1, 1, 2, 3, 8], "t": [True, False], "f": [0.5], "b": [True, False]}
    return lot.choice(plain.get(token, [None] if token == "N" else [False]))


def call(name, lot):
    """What an operator is given: in places, and by name."""
    args = [argument(token, lot) for token in lot.choice(EXACT.get(name, FORMS))]
    words = {"reduction": lot.choice(["none", "sum", "mean"])} if "loss" in name else {}
    words |= {"reduction": "sum"} if "entropy" in name and lot.randrange(2) else {}
    words |= {"weight": argument("o", lot)} if "entropy" in name and lot.randrange(2) else {}
    return args, words


def session_of(columns):
    """A session with columns from number 1 on, and public numbers behind them."""
    session = Session({"t": dict(enumerate(columns))}, Policy(), VERBS)
    program = [["data", [at + 1], [0, at], {}, True] for at in range(len(columns))]
    for at, tensor in enumerate(PUBLIC):
        program.append(["send", [at + 1 + len(columns)], [at, tensor.dim() > 1], {}, True])
    session.run(program, [], {str(at): tensor for at, tensor in enumerate(PUBLIC)})
    return session


def run(session, name, args, words):
    """Do one call: returns its first result, or None."""
    session.objects.free([100, 101])
    for outs in ([100], [100, 101]):
        try:
            session.run([[name, outs, args, words, True]], [], {})
            return session.objects.find(100)
        except RemoteError as error:
            if "does not give" not in str(error):
                return None
    return None


def gradients(session, result):
    """Let the square of a result flow back: returns what comes to public numbers."""
    leaves = [session.objects.find(at + 1).tensor for at in range(len(COLUMNS), COUNT)]
    for leaf in leaves:
        leaf.grad = None
    result.tensor.nan_to_num(0, 0, 0).square().sum().backward()
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


def judged(name, calls=CALLS):
    """Compare calls on rows with those on rows in another order: returns labels that were seen."""
    lot, seen = random.Random(name), []
    sessions = [session_of(COLUMNS), session_of([column[ORDER] for column in COLUMNS])]
    for _ in range(calls):
        args, words = call(name, lot)
        first, second = (run(session, name, args, words) for session in sessions)
        if first is None or second is None:
            continue
        seen.append(first.label.kind)
        if first.label.kind in (Kind.PUBLIC, Kind.TANGLED):
            continue
        told = f"{name} {args} {words}: {first.label}"
        expected = first.tensor[ORDER] if first.label.kind is Kind.ROWS else first.tensor
        torch.testing.assert_close(second.tensor, expected, equal_nan=True, msg=told)
        if first.tensor.grad_fn is None:
            continue
        try:
            flown = [gradients(*pair) for pair in zip(sessions, (first, second), strict=True)]
        except RuntimeError:
            continue  # Some have no derivative.
        for mine, theirs in zip(*flown, strict=True):
            torch.testing.assert_close(theirs, mine, equal_nan=True, msg=told)
    return seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(name for name in OPERATORS if name not in LEFT_OUT))
def test_an_operator_treats_rows_alike_where_its_label_says_so(name):
    judged(name)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(name for name in OPERATORS if name not in LEFT_OUT))
def test_many_more_calls_treat_rows_alike(name):
    judged(name, 5000)


@pytest.mark.filterwarnings("ignore")
def test_calls_are_many_enough_to_see_a_mask_of_rows(monkeypatch):
    def careless(call):
        return Kind.ROWS if call.shape[:1] == (ROWS,) else None

    monkeypatch.setitem(rules._RULES, "mul", careless)
    monkeypatch.setattr(judgement, "_KEPT", {})

    with pytest.raises(AssertionError, match="mul"):
        judged("mul", 1000)
