"""Hostile programs are refused by the worker, which is as it was before: its next step shows it."""

import pytest
import torch
import torch.nn.functional as F

import folkmoot as fm
from folkmoot.remote.operators import OPERATORS
from folkmoot.remote.policy import Policy
from folkmoot.remote.session import Session
from folkmoot.remote.verbs import VERBS

SEND = ["send", [1], [0, True]]
OBJECT = {"p": 1}
DEEP = 1
for _ in range(50):
    DEEP = [DEEP]

HOSTILE = {
    "an operator that is not listed": ["load", [2], [OBJECT]],
    "a function by its path": ["torch.load", [2], [OBJECT]],
    "a method with underscores": ["__reduce_ex__", [2], [OBJECT, 2]],
    "a hook": ["register_hook", [], [OBJECT, OBJECT]],
    "storage": ["untyped_storage", [2], [OBJECT]],
    "a word of one's own": ["sum", [2], [OBJECT], {"dtype": "os.system"}, True],
    "a class": ["add", [2], [OBJECT, {"class": "os"}]],
    "a keyword that writes": ["add", [2], [OBJECT, 1], {"out": OBJECT}, True],
    "a device": ["to", [2], [OBJECT, "cuda"]],
    "somebody else's object": ["add", [2], [{"p": 999}, 1]],
    "a number below 0": ["add", [-2], [OBJECT, 1]],
    "the number 0": ["add", [0], [OBJECT, 1]],
    "a number that is taken": ["add", [1], [OBJECT, 1]],
    "a number that is none": ["add", ["2"], [OBJECT, 1]],
    "one number twice": ["max", [2, 2], [OBJECT, 0]],
    "too few results": ["max", [2], [OBJECT, 0]],
    "too many results": ["add", [2, 3], [OBJECT, 1]],
    "no arguments": ["add", [2], []],
    "too many arguments": ["add", [2], [OBJECT] * 9],
    "a thousand arguments": ["cat", [2], [OBJECT] * 1000],
    "no list": {"name": "add"},
    "a short one": ["add", [2]],
    "deep nesting": ["cat", [2], [DEEP]],
    "a shape bomb": ["expand", [2], [OBJECT, 1 << 40, 3]],
    "a shape bomb of 2^63": ["expand", [2], [OBJECT, 1 << 62, 1 << 62, 3]],
    "a repeated one": ["repeat", [2], [OBJECT, 1 << 20, 1 << 20]],
    "an outer product": ["pad", [2], [OBJECT, [1 << 30, 1 << 30]]],
    "classes without end": ["one_hot", [2], [{"p": 2}, 1 << 40]],
    "sizes that are NaN": ["expand", [2], [OBJECT, {"f": "nan"}, 3]],
    "sizes below 0": ["expand", [2], [OBJECT, -7, 3]],
    "a division that ends processes": ["div", [2], [OBJECT, -1], {"rounding_mode": "trunc"}, True],
    "a hostile slice": ["getitem", [2], [OBJECT, {"s": [0, 1, 0]}]],
    "a verb with too much": ["backward", [], [OBJECT, None, False, 1]],
    "a verb without objects": ["backward", [], [1, 2, 3]],
    "an array that is not there": ["send", [2], [7, True]],
    "a table that is not there": ["data", [2], [9, 0]],
    "a table below 0": ["data", [2], [-1, 0]],
    "a gradient of another shape": ["set_grad", [], [OBJECT, {"p": 2}]],
    "a gradient that never came": ["grad", [2], [[OBJECT]]],
    "a seed that is none": ["seed", [], [[1]]],
}


def honest(alice):
    """One step of training: its loss and what it leaves."""
    weight = alice.send(torch.ones(12, 4, requires_grad=True))
    x, y = alice.data["digits"]
    loss = F.cross_entropy(x[:64] @ weight, y[:64])
    loss.backward()
    with torch.no_grad():
        weight -= 0.1 * weight.grad
    return loss.item(), weight.get()


@pytest.mark.parametrize("attempt", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_operation_is_refused_and_the_worker_unharmed(alice, by_hand, attempt):
    before = honest(alice)

    answer = by_hand.run(SEND, attempt, arrays={"0": torch.ones(2, 3)})

    assert answer["error"] in ("failed", "refused")
    assert "operation 2 of 2" in answer["text"]
    assert "could not answer" not in answer["text"]
    after = honest(alice)
    assert after[0] == before[0] and torch.equal(after[1], before[1])
    # Its own session goes on, too.
    assert by_hand.run(want=["item", {"p": 1}])["text"].startswith("A tensor of 6 numbers")


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"session": "of somebody"},
        {"session": None, "program": [], "free": [], "want": None},
        [],
    ],
)
def test_a_message_of_no_session_is_refused(by_hand, header):
    assert by_hand.ask(header)["error"] == "failed"


@pytest.mark.parametrize(
    "change",
    [
        {"program": "add"},
        {"program": [[]] * 10_001},
        {"free": [["0", 1]]},
        {"free": 3},
        {"want": "get"},
        {"want": ["get"]},
        {"want": ["owner", 1]},
        {"want": ["get", [7]]},
        {"want": ["get", 7]},
        {"want": ["item", {"p": 0}]},
        {"want": ["request", {"p": 1}, 3]},
        {"want": ["collect", [1]]},
        {"want": ["statistic", "mean", {"p": 1}, "all"]},
        {"more": 1},
    ],
    ids=str,
)
def test_a_malformed_message_is_refused(by_hand, change):
    by_hand.run(SEND, arrays={"0": torch.ones(2, 3)})

    answer = by_hand.ask(
        {"session": by_hand.session, "program": [], "free": [], "want": None} | change
    )

    assert answer["error"] in ("failed", "refused")
    assert "could not answer" not in answer["text"]


def test_a_long_message_is_not_read(digits):
    with fm.Worker("alice", {"digits": digits}, Policy(max_message_bytes=1000)) as alice:
        alice.send(torch.ones(10_000))
        with pytest.raises(fm.remote.Refused, match=r"longer than the worker reads, 1,000"):
            alice.flush()


def test_a_session_has_so_much_memory_and_no_more():
    policy = Policy(max_bytes=10_000, max_objects=5)
    with fm.Worker("alice", policy=policy) as alice:
        held = [alice.send(torch.ones(1000))]
        alice.flush()
        with pytest.raises(fm.remote.Refused, match=r"4,000 of 10,000 bytes"):
            held[0].repeat(2).sum().item()
        with pytest.raises(fm.remote.Refused, match="may hold 5"):
            held += [held[0][:1] for _ in range(5)]
            alice.flush()
        del held
        alice.flush()
        assert alice.send(torch.ones(2000)).sum().item() == 2000


@pytest.mark.parametrize(
    ("run", "shapes"),
    [
        (F.mse_loss, [(40_000, 1), (1, 40_000)]),
        (F.conv2d, [(1, 1, 400, 400), (1, 1, 100, 100)]),
        (F.conv1d, [(1, 1, 60_000), (1, 1, 9000)]),
        (torch.matmul, [(600, 1, 1, 4000), (600, 4000, 1)]),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_memory_on_the_way_to_a_small_result_is_counted(run, shapes):
    with fm.Worker("alice") as alice:
        given = [alice.send(torch.zeros(shape, dtype=torch.float64)) for shape in shapes]
        with pytest.raises(fm.remote.Refused, match="would not fit"):
            run(*given).sum().item()


def test_an_answer_names_each_object_once(by_hand):
    answer = by_hand.run(SEND, want=["get", [{"p": 1}] * 3], arrays={"0": torch.ones(2, 3)})

    assert "names an object twice" in answer["text"]


def test_tensors_of_other_dtypes_do_not_come_in(by_hand):
    for dtype in (torch.complex64, torch.float8_e4m3fn, torch.uint16):
        answer = by_hand.run(SEND, arrays={"0": torch.ones(2).to(dtype)})

        assert "none that a worker computes with" in answer["text"]


def test_memory_that_a_graph_keeps_is_counted():
    with fm.Worker("alice", policy=Policy(max_bytes=100_000)) as alice:
        x = alice.send(torch.zeros(1000, requires_grad=True))

        def long():
            y = x
            for _ in range(30):
                # Nobody holds the one before, but the way back does.
                y = y.exp()
            return y

        with pytest.raises(fm.remote.Refused, match="append loss"):
            long().sum().item()
        with torch.no_grad():
            assert long()[0].item() > 0


def test_a_session_cannot_be_guessed_and_there_are_not_too_many():
    with fm.Worker("alice", policy=Policy(max_sessions=2)) as alice:
        other = alice.connect()
        assert other._outbox._session != alice._outbox._session
        with pytest.raises(fm.remote.Refused, match="no more may begin"):
            alice.connect()
        other.leave()
        alice.connect()


def test_an_error_names_the_operation_and_the_session_goes_on(alice):
    x = alice.send(torch.ones(3))
    index = alice.send(torch.tensor([7]))

    lost = x[index] * 2
    with pytest.raises(fm.remote.RemoteError, match=r"'alice': operation 3 of 4, getitem: index 7"):
        lost.tolist()

    assert (x * 3).sum().item() == 9.0
    with pytest.raises(fm.remote.RemoteError, match="was never made"):
        lost.get()


def test_operators_that_do_not_say_so_write_into_nothing():
    for operator in OPERATORS.values():
        x = torch.linspace(0.1, 0.9, 6).reshape(2, 3)
        before = x.clone()
        try:
            operator.run(x)
        except (TypeError, RuntimeError, ValueError, AttributeError):
            continue
        assert torch.equal(x, before) or operator.writes == (0,), operator.name


def test_a_session_draws_from_a_generator_of_its_own(digits):
    session = Session({}, Policy(), VERBS)
    state = torch.get_rng_state()

    program = [
        ["send", [1], [0, False], {}, True],
        ["dropout", [2], [{"p": 1}, 0.5, True], {}, True],
    ]
    session.run(program, [], {"0": torch.ones(50)})

    assert torch.equal(torch.get_rng_state(), state)


def test_memory_that_a_small_part_keeps_is_counted():
    with fm.Worker("alice", policy=Policy(max_bytes=1_000_000)) as alice:
        parts = []

        with pytest.raises(fm.remote.Refused, match="would not fit"):
            for _ in range(4):
                # One number of 400,000 bytes, of which nobody holds the rest.
                parts.append(alice.send(torch.zeros(100_000))[:1])
                alice.flush()

        parts.clear()
        alice.flush()
        assert alice.send(torch.zeros(200_000)).sum().item() == 0
