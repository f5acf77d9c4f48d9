"""FedSAM: the gradient of every local step is one at the worst model nearby."""

import pytest
import torch
from torch import nn, tensor
from torch.nn import functional as F

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError

F64 = torch.float64


class Bowl(nn.Module):
    """Give w^2 / 2 for each row, coordinate by coordinate: its gradient is w."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=F64))

    def forward(self, x):
        return (self.w.square() / 2 * x).sum(1)


def bowl(*w, **options):
    objective = fm.objective(Bowl(w), lambda outputs, _: outputs, target=None)
    return fm.local.sgd(objective, **{"lr": 0.1, "steps": 1, "batch_size": None, **options})


def ones(columns):
    return {"x": torch.ones(2, columns, dtype=F64)}


def moved(algorithm, data, local_update):
    return local_update(algorithm.works[0], data).value["params"]["w"].tolist()


def test_a_step_follows_the_slope_at_rho_up_the_hill(local_update):
    found = moved(fm.fedsam(bowl(3.0, 4.0), rho=0.5), ones(2), local_update)

    # g = (3, 4) has length 5; the worst model is (3, 4) + 0.5 * (0.6, 0.8) = (3.3, 4.4).
    assert found == pytest.approx([-0.33, -0.44], rel=1e-12)


def test_where_there_is_no_slope_nothing_moves(local_update):
    assert moved(fm.fedsam(bowl(0.0, 0.0), rho=0.5), ones(2), local_update) == [0.0, 0.0]


def test_a_pull_rides_on_the_gradient_and_does_not_enter_the_move(local_update):
    work = fm.local.proximal(bowl(2.0, steps=2), 0.3)

    found = moved(fm.fedsam(work, rho=0.5), ones(1), local_update)

    # 2 - 0.1 * 2.5 = 1.75; then the slope at 2.25, and the pull 0.3 * (1.75 - 2) = -0.075.
    assert found == pytest.approx([-0.25 - 0.1 * (2.25 - 0.075)], rel=1e-12)


def test_training_equals_a_plain_loop_of_two_passes(local_update):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = {"x": torch.randn(6, 3, dtype=F64), "y": torch.randint(0, 2, (6,))}
    work = fm.local.sgd(fm.classifier(model), lr=0.3, epochs=2, batch_size=2, shuffle=False)

    found = local_update(fm.fedsam(work, rho=0.2).works[0], data).value["params"]

    first = [leaf.detach().clone() for leaf in model.parameters()]
    leaves = list(model.parameters())
    for begin in (0, 2, 4) * 2:
        x, y = data["x"][begin : begin + 2], data["y"][begin : begin + 2]
        up = torch.autograd.grad(F.cross_entropy(model(x), y), leaves)
        length = torch.cat([slope.flatten() for slope in up]).norm()
        with torch.no_grad():
            here = [leaf.clone() for leaf in leaves]
            for leaf, slope in zip(leaves, up, strict=True):
                leaf += 0.2 * slope / length
        worst = torch.autograd.grad(F.cross_entropy(model(x), y), leaves)
        with torch.no_grad():
            for leaf, stood, slope in zip(leaves, here, worst, strict=True):
                leaf.copy_(stood - 0.3 * slope)
    for name, sent, leaf in zip(found, first, leaves, strict=True):
        torch.testing.assert_close(found[name], leaf.detach() - sent, rtol=1e-10, atol=1e-12)


def test_a_batch_enters_the_statistics_once(local_update):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    data = {"x": torch.randn(4, 2), "y": tensor([0, 1, 0, 1])}
    work = fm.local.sgd(fm.classifier(model), lr=0.1, steps=1, batch_size=None)

    found, plain = (local_update(b(work).works[0], data) for b in (fm.fedsam, fm.fedavg))

    assert found.counts["1.num_batches_tracked"].item() == 1
    for name, leaf in plain.value["buffers"].items():
        assert torch.equal(found.value["buffers"][name], leaf)


def test_rho_of_zero_is_fedavg_bit_for_bit(one_round):
    work = bowl(3.0, 4.0, steps=3)
    clients = {0: ones(2), 1: ones(2)}

    found, plain, sharp = (
        one_round(algorithm, clients)[0].state
        for algorithm in (fm.fedsam(work, rho=0), fm.fedavg(work), fm.fedsam(work))
    )

    for one, other in zip(trees.leaves(found), trees.leaves(plain), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(sharp["params"]["w"], plain["params"]["w"])


def test_what_cannot_be_built_is_refused():
    with pytest.raises(SettingsError, match=r"fedsam\(\) needs local work"):
        fm.fedsam(Bowl([1.0]))
    with pytest.raises(SettingsError, match="rho must be a finite number of at least 0"):
        fm.fedsam(bowl(1.0), rho=-0.1)
    with pytest.raises(SettingsError, match="writes its own step"):
        fm.fedsam(bowl(1.0)._replace(correct=None))
