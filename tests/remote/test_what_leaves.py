"""Nobody gets alice's rows: what is tried here is refused where they are, and honest use is not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from remote.hand import ByHand
from torch import nn

import folkmoot as fm

ROWS = 256


def gradient_of_an_input(alice, x, y):
    """The gradient of what is added to each row tells each row's own."""
    added = alice.send(torch.zeros(ROWS, 12)).requires_grad_()
    ((x + added) ** 2).sum().backward()
    return added.grad


def overwritten(alice, x, y):
    """A parameter that is no longer one."""
    layer = alice.send(nn.Linear(12, ROWS, bias=False))
    with torch.no_grad():
        layer.weight.copy_(x)
    return layer.weight


def through_a_view(alice, x, y):
    """What is written into a part is in the whole."""
    weight = alice.send(torch.zeros(4, 12))
    weight[2].copy_(x[7])
    return weight


def written_by_index(alice, x, y):
    weight = alice.send(torch.zeros(4, 12))
    weight[1] = x[7]
    return weight


def one_hot(alice, x, y):
    """A mask that is zero for all rows but one."""
    mask = torch.zeros(ROWS, 1)
    mask[7] = 1
    return (x * alice.send(mask)).sum(0)


def weights_of_rows(alice, x, y):
    return alice.send(torch.eye(ROWS)[:1]) @ x


def step_on_one_row(alice, x, y):
    """A parameter that one row alone has moved."""
    layer = alice.send(nn.Linear(12, 4))
    F.cross_entropy(layer(x[7:8]), y[7:8]).backward()
    with torch.no_grad():
        layer.weight.add_(layer.weight.grad, alpha=-1)
    return layer.weight


def statistics_of_one_row(alice, x, y):
    norm = alice.send(nn.BatchNorm1d(12, momentum=1.0))
    F.batch_norm(x[7:9], norm.running_mean, norm.running_var, training=True, momentum=1.0)
    return norm.running_mean


def gradient_exchanged(alice, x, y):
    """A gradient is what was put there, under whichever name it is asked for."""
    weight = alice.send(torch.zeros(ROWS, 12, requires_grad=True))
    same = weight.contiguous()
    weight.sum().backward()
    weight.grad = x
    return same.sum() * 0 + weight.grad


def gradient_added_in_place(alice, x, y):
    """Who holds a gradient sees what a later pass adds to it."""
    weight = alice.send(torch.zeros(12, requires_grad=True))
    weight.sum().backward()
    held = weight.grad
    (x[7] * weight).sum().backward()
    return held


def gradients_in_one_memory(alice, x, y):
    """Gradients of what was concatenated share memory: what is written into one, and asked anew."""
    a, b = (alice.send(torch.zeros(12, requires_grad=True)) for _ in range(2))
    torch.cat([a, b]).sum().backward()
    first, _ = a.grad, b.grad
    first.copy_(x[7])
    a._arrived = None
    return a.grad


def gradient_given(alice, x, y):
    """A gradient that was given, and written into after it had flowed."""
    weight = alice.send(torch.zeros(3, 4, requires_grad=True))
    given = alice.send(torch.ones(12))
    weight.view(12).backward(given)
    given.copy_(x[7])
    return weight.grad + given.sum()


def a_bias_of_each_row(alice, x, y):
    """A bias that has one number for each row has a gradient for each row."""
    bias = alice.send(torch.zeros(ROWS, 4, requires_grad=True))
    outputs = F.linear(x, alice.send(torch.ones(4, 12)), bias)
    (outputs**2).sum().backward()
    return bias.grad


def weighed_loss(alice, x, y):
    """A loss with a weight of its own for each row."""
    weights = torch.zeros(ROWS, 12)
    weights[7, 3] = 1
    goal = alice.send(torch.zeros(1, 12)).expand(ROWS, 12)
    return F.binary_cross_entropy_with_logits(x, goal, weight=alice.send(weights))


def sideways(alice, x, y):
    """The sum over what are rows no longer."""
    return x.t().sum(0)


ATTEMPTS = {
    "the data": lambda alice, x, y: x,
    "labels": lambda alice, x, y: y,
    "a copy": lambda alice, x, y: x.clone().detach() * 1.0,
    "one row": lambda alice, x, y: x[7],
    "one number": lambda alice, x, y: x[7, 3],
    "a sum of one row": lambda alice, x, y: x[7:8].sum(0),
    "a mean of few rows": lambda alice, x, y: x[:31].mean(0),
    "the largest": lambda alice, x, y: x.max(0).values,
    "where it is": lambda alice, x, y: x.argmax(0),
    "sorted columns": lambda alice, x, y: x.sort(dim=0).values[0],
    "the median": lambda alice, x, y: x.median(0).values,
    "running sums": lambda alice, x, y: x.cumsum(0)[ROWS - 1],
    "a product": lambda alice, x, y: x.prod(0),
    "one row many times": lambda alice, x, y: x[7:8].expand(64, 12).sum(0),
    "a row repeated": lambda alice, x, y: x[7:8].repeat(64, 1).mean(0),
    "a row stacked": lambda alice, x, y: torch.cat([x[7:8]] * 64).mean(0),
    "a row picked often": lambda alice, x, y: x[alice.send(torch.full((64,), 7))].mean(0),
    "rows picked twice": lambda alice, x, y: x[alice.send(torch.tensor([7, 7 - ROWS] * 32))].sum(),
    "a mask": one_hot,
    "weights of rows": weights_of_rows,
    "other weights": lambda alice, x, y: alice.send(torch.eye(ROWS)[0]) @ x,
    "a row among the noise": lambda alice, x, y: F.dropout(x, 63 / 64).sum(0),
    "a sum over columns": sideways,
    "folded rows": lambda alice, x, y: x.reshape(ROWS * 12 // 4, 4).sum(0),
    "rows as classes": lambda alice, x, y: F.cross_entropy(x[:, 0], y[0]),
    "softmax over rows": lambda alice, x, y: torch.softmax(x * 1e6, 0).sum(1),
    "a part of each": lambda alice, x, y: torch.tril(x[:12]).sum(0),
    "a row times a sum": lambda alice, x, y: (x * x[7:8].sum(0)).sum(0),
    "a table looked up": lambda alice, x, y: alice.send(torch.eye(4))[y],
    "a loss of each row": lambda alice, x, y: F.cross_entropy(x, y, reduction="none"),
    "a weighed loss": weighed_loss,
    "shifted rows": lambda alice, x, y: (x[1:65] - x[:64]).sum(0),
    "a gradient of an input": gradient_of_an_input,
    "a parameter that is data": overwritten,
    "a view": through_a_view,
    "an index": written_by_index,
    "a step on one row": step_on_one_row,
    "running statistics": statistics_of_one_row,
    "a gradient exchanged": gradient_exchanged,
    "a gradient added to": gradient_added_in_place,
    "gradients in one memory": gradients_in_one_memory,
    "a gradient given": gradient_given,
    "a bias of each row": a_bias_of_each_row,
}


def test_many_ways_are_tried():
    assert len(ATTEMPTS) >= 10


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_the_worker_lets_no_row_leave(alice, attempt):
    with pytest.raises(fm.remote.Refused, match="does not let this object leave"):
        attempt(alice, *alice.data["digits"]).get()


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_a_policy_without_sums_lets_nothing_leave_of_all_that(digits, attempt):
    alice = fm.Worker("alice", {"digits": digits}, fm.remote.Policy(min_rows=None))

    with pytest.raises(fm.remote.Refused, match="does not let this object leave"):
        attempt(alice, *alice.data["digits"]).get()


def test_a_message_by_hand_gets_no_row_either(by_hand):
    got = by_hand.run(["data", [1], [0, 0]], want=["get", [{"p": 1}]])
    item = by_hand.run(
        ["getitem", [2], [{"p": 1}, {"t": [7, 3]}]],
        want=["item", {"p": 2}],
    )

    assert got["error"] == item["error"] == "refused"


def test_every_way_to_ask_for_a_number_is_judged(alice):
    one = alice.data["digits"].x[7, 3]

    asks = (float, int, bool, "{:.3f}".format, lambda x: x.item(), lambda x: x.tolist(), np.asarray)
    for ask in asks:
        with pytest.raises(fm.remote.Refused):
            ask(one)


def test_words_of_a_failure_hold_no_number(alice):
    layer = alice.send(torch.randn(12, 2))

    with pytest.raises(fm.remote.RemoteError) as failed:
        # Labels go up to 3: torch would say which label is out of bounds.
        F.cross_entropy(alice.data["digits"].x @ layer, alice.data["digits"].y).item()

    assert "stay at the worker" in str(failed.value)
    assert "Target" not in str(failed.value)


def test_sums_over_enough_rows_leave(alice, digits):
    x, y = alice.data["digits"]

    assert torch.equal(x[:32].mean(0).get(), digits[0][:32].mean(0))
    assert torch.equal(x.std(0).get(), digits[0].std(0))
    assert (y == 3).sum().item() == int((digits[1] == 3).sum())
    assert float((x.argmax(1) == y).float().mean()) == pytest.approx(
        float((digits[0].argmax(1) == digits[1]).float().mean())
    )


def test_rows_in_an_order_of_ones_own_still_belong_together(alice, digits):
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))
    there = alice.send(order)
    x, y = alice.data["digits"]

    loss = F.cross_entropy(x[there[:64]], y[there[:64]] * 2)

    expected = F.cross_entropy(digits[0][order[:64]], digits[1][order[:64]] * 2)
    assert loss.item() == expected.item()


def test_what_a_user_has_sent_comes_back(alice):
    sent = alice.send(torch.arange(3.0))

    assert (sent * 2)[1].item() == 2.0


def test_data_are_not_written_to(alice, digits):
    before = digits[0].clone()

    with pytest.raises(fm.remote.Refused, match="clone"):
        alice.data["digits"].x.add_(1).sum().item()

    assert torch.equal(digits[0], before)


def test_statistics_that_have_changed_since_let_no_gradient_flow(alice):
    x, _ = alice.data["digits"]
    mean, var = alice.send(torch.zeros(12)), alice.send(torch.ones(12))
    weight = alice.send(torch.ones(2, 12, requires_grad=True))
    loss = F.batch_norm(weight, mean, var).sum()

    # Of two rows, whose variance would be in the gradient of a loss that is public.
    F.batch_norm(x[7:9], mean, var, training=True, momentum=1.0)
    loss.backward()

    with pytest.raises(fm.remote.RemoteError, match="modified by an inplace operation"):
        weight.grad.get()


def test_data_are_no_memory_for_gradients(alice, digits):
    before = digits[0].clone()
    weight = alice.send(torch.zeros(256, 12, requires_grad=True))

    for _ in range(2):
        weight.view(-1).view(256, 12).backward(alice.data["digits"].x)
    alice.flush()

    assert torch.equal(digits[0], before)


def test_another_session_has_no_object_of_this_one(alice):
    secret = alice.send(torch.ones(3))
    alice.flush()
    other = ByHand(alice)

    answer = other.run(want=["get", [{"p": secret.ticket.number}]])

    assert "there is no object" in answer["text"]
    assert alice.connect().send(torch.zeros(2)).get().tolist() == [0.0, 0.0]
