"""One gradient on plain and on mapped tensors."""

import pytest
import torch
from torch import tensor

from folkmoot.core import tree as trees
from folkmoot.local.grad import differentiate, grad, is_ordinary, plus


def quadratic(params, scale):
    """Half of scale * |u|^2: the gradient by u is scale * u; v is not used."""
    loss = 0.5 * scale * params["in"]["u"].square().sum()
    return loss, loss.detach() * 10


def test_the_gradient_is_as_worked_by_hand_and_an_unused_leaf_gets_zeros():
    params = {"in": {"u": tensor([1.0, -2.0])}, "v": torch.ones(2, 3)}

    gradient, loss, rest = grad(quadratic, params, 3.0)

    assert gradient["in"]["u"].tolist() == [3.0, -6.0]
    assert gradient["v"].tolist() == torch.zeros(2, 3).tolist()
    assert (loss.item(), rest.item()) == (7.5, 75.0)  # 3 / 2 * (1 + 4)
    assert not loss.requires_grad


def test_params_are_neither_changed_nor_marked():
    params = {"in": {"u": tensor([1.0, -2.0])}, "v": torch.ones(1)}

    grad(quadratic, params, 3.0)

    assert params["in"]["u"].tolist() == [1.0, -2.0]
    assert all(not leaf.requires_grad and leaf.grad is None for leaf in trees.leaves(params))


def test_a_gradient_may_be_taken_where_gradients_are_switched_off():
    with torch.no_grad():
        gradient, _, _ = grad(quadratic, {"in": {"u": tensor([2.0])}}, 1.0)

    assert gradient["in"]["u"].tolist() == [2.0]


def test_a_loss_that_depends_on_nothing_has_a_gradient_of_zeros():
    gradient, loss, _ = grad(lambda params: (tensor(4.0), None), {"u": tensor([1.0, 2.0])})

    assert gradient["u"].tolist() == [0.0, 0.0]
    assert loss.item() == 4.0


def network(params, x, y):
    """A two-layer network with a leaf that it never reads."""
    hidden = torch.tanh(x @ params["one"]["w"] + params["one"]["b"])
    return (hidden @ params["two"] - y).square().mean(), hidden.sum()


def clients(count=5):
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(count, *shape, generator=draw, dtype=torch.float64)

    params = {"one": {"w": normal(3, 4), "b": normal(4)}, "two": normal(4), "idle": normal(2)}
    return params, normal(6, 3), normal(6)


def test_mapped_over_clients_it_gives_each_client_s_own_gradient():
    params, x, y = clients()

    mapped, losses, rests = torch.func.vmap(lambda *given: grad(network, *given))(params, x, y)

    for place in range(5):
        own = trees.map(lambda leaf, place=place: leaf[place].clone(), params)
        gradient, loss, rest = grad(network, own, x[place], y[place])
        for found, expected in zip(trees.leaves(mapped), trees.leaves(gradient), strict=True):
            torch.testing.assert_close(found[place], expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(losses[place], loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(rests[place], rest, rtol=1e-12, atol=0)
    assert mapped["idle"].tolist() == [[0.0, 0.0]] * 5


def test_the_plain_gradient_is_that_of_finite_differences():
    params, x, y = (trees.map(lambda leaf: leaf[0], part) for part in _as_trees(*clients(1)))
    gradient, _, _ = grad(network, params, x["x"], y["y"])
    step = 1e-6

    for path, leaf in trees.items(params):
        for place in range(leaf.numel()):
            ends = []
            for sign in (1, -1):
                moved = trees.clone(params)
                dict(trees.items(moved))[path].view(-1)[place] += sign * step
                ends.append(network(moved, x["x"], y["y"])[0].item())
            slope = (ends[0] - ends[1]) / (2 * step)
            assert abs(dict(trees.items(gradient))[path].view(-1)[place].item() - slope) < 1e-8


def _as_trees(params, x, y):
    return params, {"x": x}, {"y": y}


def test_only_mapped_tensors_are_not_ordinary():
    found = []

    torch.func.vmap(lambda leaf: found.append(is_ordinary(leaf)) or leaf)(torch.ones(2))

    assert found == [False]
    assert is_ordinary(torch.ones(2))


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_adding_to_one_gradient_does_not_change_the_next(shape):
    # The gradient of a sum of one number is the very 1 with which autograd begins.
    slopes = []
    for _ in range(2):
        w = torch.zeros(shape).requires_grad_()
        (slope,) = differentiate(w.sum(), [w])
        slopes.append(plus({"w": slope}, {"w": torch.full(shape, 5.0)})["w"].item())

    assert slopes == [6.0, 6.0]


def test_adding_to_leaves_whose_gradients_overlap_adds_to_each_once():
    whole, part = torch.zeros(4).requires_grad_(), torch.zeros(2).requires_grad_()
    joined = whole + torch.cat([torch.zeros(2), part])
    slopes = differentiate((joined * tensor([1.0, 1.0, 1.0, 1.0])).sum(), [whole, part])
    gradient = dict(zip(("w", "p"), slopes, strict=True))

    found = plus(gradient, {"w": torch.full((4,), 10.0), "p": torch.full((2,), 100.0)})

    assert found["w"].tolist() == [11.0] * 4
    assert found["p"].tolist() == [101.0] * 2


def test_adding_writes_into_a_gradient_that_is_nobody_else_s():
    gradient = {"w": torch.ones(3), "b": torch.ones(1)}

    found = plus(gradient, {"w": torch.ones(3), "b": torch.ones(1)}, -3.0)

    assert found["w"].data_ptr() == gradient["w"].data_ptr()
    assert found["w"].tolist() == [-2.0] * 3
