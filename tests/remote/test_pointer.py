"""A pointer looks like a tensor, computes nothing here, and says what it cannot do."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import folkmoot as fm


@pytest.fixture
def there(alice):
    """Public numbers at alice: 0, ..., 11 as (3, 4)."""
    return alice.send(torch.arange(12.0).reshape(3, 4))


HERE = torch.arange(12.0).reshape(3, 4)

PROGRAMS = {
    "arithmetic": lambda x: (1 - x) / 2 + 3 * x - x**2 + 1 / (x + 1) + 2 ** (x / 10) - (-x) % 3,
    "matrices": lambda x: x @ x.T + torch.mm(x, x.t()) - torch.matmul(x, x.transpose(0, 1)),
    "comparisons": lambda x: ((x > 3) & (x <= 8) | ~(x != 2)).float(),
    "indices": lambda x: x[1:, ::2] + x[0, 1] - x[..., -1:][1] + x[None, 0, 1:3],
    "shapes": lambda x: x.reshape(4, 3).permute(1, 0).unsqueeze(1).expand(3, 2, 4).flatten(1),
    "more shapes": lambda x: torch.stack([x, x.view(3, -1)], dim=2).squeeze().sum((0, 2)),
    "reductions": lambda x: x.sum() + x.mean(1).max() + x.amax(0).min() + x.std() + x.norm(),
    "choices": lambda x: x.max(dim=1).values + x.topk(2, dim=1).indices[:, 0] + x.argmin(1),
    "parts": lambda x: sum(part.sum() for part in x.split(2)) + x.chunk(2, dim=1)[1].prod(),
    "loops": lambda x: sum(row * place for place, row in enumerate(x)),
    "dtypes": lambda x: x.long().double() + x.to(torch.float64) + (x // 2).int(),
    "functions": lambda x: F.softmax(x, dim=1) + F.leaky_relu(x - 5, 0.1) + F.silu(x) + F.elu(x),
    "wheres": lambda x: torch.where(x > 4, x, -x).clamp(min=-2, max=7).masked_fill(x == 6, 0.5),
    "losses": lambda x: F.mse_loss(x, x * 2) + F.huber_loss(x, -x) + F.l1_loss(x, x + 1),
    "embeddings": lambda x: F.embedding(x[:, 0].long() % 3, x) @ F.one_hot(x.long(), 12)[0].float(),
    "padding": lambda x: F.pad(x, (1, 2), value=3.0).cumsum(1),
    "results given": lambda x: torch.maximum(x, 5 - x, out=x.clone()) + torch.full_like(x, 2),
    "writing": lambda x: x.clone().add_(1).mul_(2).clamp_(max=9),
    "norms": lambda x: F.layer_norm(x, (4,)) + F.batch_norm(x, None, None, training=True),
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_on_pointers_gives_what_it_gives_here(there, program):
    assert torch.equal(program(there).get(), program(HERE))


def test_a_single_number_meets_rows_from_the_left(alice, digits):
    two = alice.send(torch.tensor(2.0))

    assert torch.equal((two * alice.data["digits"].x).sum(0).get(), (2 * digits[0]).sum(0))


def test_a_shell_can_complete_a_pointers_names(there):
    assert {"backward", "shape", "get"} <= set(dir(there))


def test_shape_and_dtype_need_no_message(alice, there, watched):
    product = there @ there.T

    assert (product.shape, product.dtype, product.dim(), len(product)) == (
        (3, 3),
        torch.float32,
        2,
        3,
    )
    assert repr(there) == f"Pointer(alice:{there.ticket.number}, [3, 4], float32)"
    assert isinstance(there, torch.Tensor)
    assert watched.sent == []


def test_a_value_is_fetched_where_one_is_needed(there):
    assert float(there[1, 2]) == 6.0
    assert int(there.argmax()) == 11
    assert bool((there >= 0).all())
    assert f"{there.mean():.2f}" == "5.50"
    assert there[0].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert there.numpy().sum() == 66.0
    assert (there[0, 1] / 0).item() == float("inf")


def test_gradients_flow_at_the_worker(alice):
    weight = alice.send(torch.tensor([2.0, 3.0], requires_grad=True))

    assert weight.is_leaf and weight.requires_grad and weight.grad is None
    (weight**2).sum().backward()
    assert weight.grad.get().tolist() == [4.0, 6.0]
    (weight**2).sum().backward()
    assert weight.grad.get().tolist() == [8.0, 12.0]
    weight.grad = None
    assert weight.grad is None
    with torch.no_grad():
        assert not (weight * 2).requires_grad
    assert not (weight * 2).detach().requires_grad


def test_what_has_no_graph_cannot_flow_back(there):
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        there.sum().backward()
    with pytest.raises(RuntimeError, match="implicitly created only for scalar"):
        (there.requires_grad_() * 2).backward()


def test_a_tensor_of_here_is_told_to_go_there(there):
    with pytest.raises(
        fm.remote.RemoteError, match=r"of this process meets .*'alice'.*worker.send"
    ):
        there + torch.ones(4)
    with pytest.raises(fm.remote.RemoteError, match="of this process"):
        there[torch.tensor([0, 1])]


def test_tensors_of_two_workers_do_not_meet(there):
    with fm.Worker("bob") as bob, pytest.raises(fm.remote.RemoteError, match="'bob' meets one of"):
        there + bob.send(torch.ones(4))


def test_a_session_of_the_same_worker_is_another_one(alice, there):
    with pytest.raises(fm.remote.RemoteError, match="another session"):
        there + alice.connect().send(torch.ones(4))


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda x: x.cuda(), "cannot go to cuda"),
        (lambda x: x.to("cpu"), "cannot go to cpu"),
        (lambda x: torch.linalg.svd(x), "linalg_svd is not on the list"),
        (lambda x: torch.fft.fft(x), "fft_fft is not on the list"),
        (lambda x: x.register_hook(print), "register_hook is not on the list"),
        (lambda x: x.storage(), "storage is not on the list"),
        (lambda x: pickle.dumps(x), "get"),
        (lambda x: torch.ones_like(x, device="cpu"), "takes no device="),
        (lambda x: setattr(x, "data", x), "copy_"),
        (lambda x: list(x.repeat(2000, 1)), "loop over slices"),
        (lambda x: F.softmax(x), "dim="),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_a_pointer_cannot_do_it_says(there, ask, words):
    with pytest.raises(fm.remote.RemoteError, match=words):
        ask(there)


def test_shapes_that_do_not_fit_are_told_where_they_meet(there):
    with pytest.raises(RuntimeError, match=r"\[3, 4\] X \[3, 4\]"):
        there @ there


def test_a_module_of_pointers_can_be_copied(alice, perceptron):
    there = alice.send(perceptron())

    copied = copy.deepcopy(there)
    with torch.no_grad():
        copied[0].weight.zero_()

    assert isinstance(copied[0].weight, nn.Parameter)
    assert there[0].weight.abs().sum().item() > 0
