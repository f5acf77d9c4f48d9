"""Messages by hand that would part an object from its label, and honest use that labels allow."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import folkmoot as fm

ROW = [
    ["data", [90], [0, 0]],
    ["getitem", [91], [{"p": 90}, {"s": [7, 8, None]}]],
    ["getitem", [92], [{"p": 90}, 7]],
]
"""Objects 91 and 92: row 7 alone, as (1, 12) and as (12,)."""
TWICE = [
    ["unsqueeze", [93], [{"p": 91}, 2]],
    ["expand", [94], [{"p": 93}, 1, 12, 2]],
]
"""Object 94: (1, 12, 2), whose mean over a batch is row 7."""
ARRAYS = {
    "0": torch.zeros(12),
    "1": torch.ones(12),
    "2": torch.ones(1),
    "3": torch.tensor([1, 2]),
    "4": torch.ones(5, 2),
}


def send(number, name, wants_grad=False):
    return ["send", [number], [name, wants_grad]]


def batch_norm(out, mean, var):
    refs = [None if one is None else {"p": one} for one in (mean, var)]
    return ["batch_norm", [out], [{"p": 94}, None, None, *refs, True, 1.0, 1e-5, False]]


def sum_backward(leaf, out):
    return [["sum", [out], [{"p": leaf}]], ["backward", [], [{"p": out}, None, False]]]


# torch leaves the sign of what a gradient of 0 is multiplied with, and all of it without history.
OVERWRITTEN = {
    "by zeros": [["zero_", [], [{"p": 2}]]],
    "by a number": [["fill_", [], [{"p": 2}, 1.0]]],
    "by a copy": [["copy_", [], [{"p": 2}, {"p": 3}]]],
    "without history": [["zero_", [], [{"p": 2}], {}, False]],
    "in parts": [
        *(["getitem", [part + 4], [{"p": 2}, part]] for part in range(2)),
        *(["zero_", [], [{"p": part + 4}], {}, False] for part in range(2)),
        ["zero_", [], [{"p": 2}]],
    ],
}

ATTEMPTS = {
    "statistics beside a number that is taken": [
        *(*ROW, *TWICE, send(1, 0), send(2, 1)),
        batch_norm(1, 1, 2),
    ],
    "statistics of which one cannot be written": [
        *(*ROW, *TWICE, send(1, 0), send(2, 2), ["expand", [3], [{"p": 2}, 12]]),
        batch_norm(4, 1, 3),
    ],
    "a gradient beside one that is sparse": [
        *(*ROW, send(2, 4, True), send(3, 3), send(1, 0, True)),
        ["embedding", [5], [{"p": 2}, {"p": 3}, -1, False, True]],
        ["sum", [6], [{"p": 5}]],
        ["mul", [7], [{"p": 1}, {"p": 92}]],
        ["sum", [8], [{"p": 7}]],
        ["add", [9], [{"p": 6}, {"p": 8}]],
        ["backward", [], [{"p": 9}, None, False]],
        ["grad", [10], [[{"p": 1}]]],
    ],
    "a gradient of what wants none": [
        *(*ROW, send(1, 0), ["set_grad", [], [{"p": 1}, {"p": 1}]]),
        *(send(2, 1, True), *sum_backward(2, 3)),
        ["grad", [4], [[{"p": 1}]]],
        ["copy_", [], [{"p": 4}, {"p": 92}]],
        ["grad", [10], [[{"p": 1}]]],
    ],
    "a gradient of what wants none any more": [
        *(*ROW, send(1, 0, True), *sum_backward(1, 2), ["grad", [4], [[{"p": 1}]]]),
        ["requires_grad", [], [{"p": 1}, False]],
        *(send(5, 1, True), *sum_backward(5, 6)),
        ["copy_", [], [{"p": 4}, {"p": 92}]],
        ["grad", [10], [[{"p": 1}]]],
    ],
    "a gradient of what a part was written into": [
        *(*ROW, send(1, 0, True), ["mul", [2], [{"p": 1}, {"p": 92}]], send(3, 1)),
        ["getitem", [4], [{"p": 3}, {"s": [0, 12, None]}]],
        ["copy_", [], [{"p": 4}, {"p": 2}]],
        ["zero_", [], [{"p": 3}]],
        *(*sum_backward(3, 9), ["grad", [10], [[{"p": 1}]]]),
    ],
    **{
        f"a gradient of what was overwritten, {how}": [
            *(*ROW, send(1, 0, True), ["mul", [2], [{"p": 1}, {"p": 92}]], send(3, 1)),
            *write,
            *(*sum_backward(2, 9), ["grad", [10], [[{"p": 1}]]]),
        ]
        for how, write in OVERWRITTEN.items()
    },
}
"""Each would leave row 7 in object 10, or else in object 1."""


@pytest.mark.parametrize("program", ATTEMPTS.values(), ids=ATTEMPTS)
def test_a_label_stays_with_its_numbers(by_hand, program):
    # One by one, so that what fails is passed over.
    for one in program:
        by_hand.run(one, arrays=ARRAYS)

    last = program[-1][1][0] if program[-1][0] == "grad" else 1
    # Refused, or never made.
    assert by_hand.run(want=["get", [{"p": last}]])["error"] in ("refused", "failed")


def test_running_statistics_come_in_pairs(by_hand):
    program = [*ROW, *TWICE, send(1, 0), send(2, 1, True), ["mul", [3], [{"p": 1}, {"p": 2}]]]
    by_hand.run(*program, ["sum", [4], [{"p": 3}]], arrays=ARRAYS)

    # One alone would be written by torch without counting, and flow into a gradient of before.
    answer = by_hand.run(batch_norm(5, 1, None))

    assert "come together" in answer["text"]


def test_masks_on_masks_leave_fewer_rows(alice):
    x = alice.data["digits"].x

    with pytest.raises(fm.remote.Refused, match="rests on 16 private rows"):
        # Of 256 rows, each is in a sum with a chance of 1/2 four times.
        (F.dropout(x) * F.dropout(x) * F.dropout(x) * F.dropout(x)).sum(0).get()


def test_masks_of_many_steps_do_not_add_up(alice, digits, perceptron):
    model = alice.send(perceptron(nn.BatchNorm1d(8), nn.Dropout(0.5)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = alice.data["digits"]

    for begin in range(0, 256, 64):
        optimizer.zero_grad()
        F.cross_entropy(model(x[begin : begin + 64]), y[begin : begin + 64]).backward()
        optimizer.step()

    # 64 rows, half of them in each entry, in each step.
    assert isinstance(model.get()[1], nn.BatchNorm1d)


def test_who_has_let_go_of_a_gradient_does_not_care_what_becomes_of_it(alice):
    weight = alice.send(torch.zeros(12, requires_grad=True))
    weight.sum().backward()
    before = weight.grad

    weight.grad = None
    before.copy_(alice.data["digits"].x[7])
    weight.sum().backward()

    assert weight.grad.tolist() == [1.0] * 12
