"""The proximal term is a pull towards what was sent, nothing else."""

import math

import pytest
import torch
from torch import nn, tensor
from torch.nn import functional as F

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError


def test_the_pull_is_mu_times_the_distance(line, pull, local_update):
    work = fm.local.proximal(fm.local.sgd(line(5.0), lr=0.5, steps=2), 0.2)

    update = local_update(work, pull(1.0))

    # First step -0.5 (no distance yet); then -0.5 * (1 + 0.2 * -0.5) = -0.45.
    assert update.value["params"]["w"].item() == pytest.approx(-0.95, rel=1e-6)


def test_training_equals_a_plain_loop_whose_loss_has_the_term(local_update):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    draw = torch.Generator().manual_seed(1)
    data = {
        "x": torch.randn(6, 3, generator=draw, dtype=torch.float64),
        "y": torch.randint(0, 2, (6,), generator=draw),
    }
    work = fm.local.sgd(fm.classifier(model), lr=0.3, epochs=3, batch_size=2, shuffle=False)

    found = local_update(fm.local.proximal(work, 0.7), data).value["params"]

    anchor = [leaf.detach().clone() for leaf in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    for start in (0, 2, 4) * 3:
        optimizer.zero_grad()
        rows = slice(start, start + 2)
        loss = F.cross_entropy(model(data["x"][rows]), data["y"][rows])
        for leaf, sent in zip(model.parameters(), anchor, strict=True):
            loss = loss + 0.7 / 2 * (leaf - sent).square().sum()
        loss.backward()
        optimizer.step()
    for leaf, sent, delta in zip(model.parameters(), anchor, trees.leaves(found), strict=True):
        torch.testing.assert_close(delta, leaf.detach() - sent, rtol=1e-12, atol=1e-14)


def test_mu_of_zero_is_the_work_itself(line):
    work = fm.local.sgd(line(), lr=0.1)

    assert fm.local.proximal(work, 0.0) is work


def test_two_pulls_add_up(line, pull, local_update):
    work = fm.local.sgd(line(5.0), lr=0.5, steps=3)

    twice = fm.local.proximal(fm.local.proximal(work, 0.25), 0.5)
    once = fm.local.proximal(work, 0.75)

    found = [local_update(each, pull(1.0)).value["params"]["w"].item() for each in (twice, once)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_the_pull_rides_on_whatever_transform_was_there(line, pull, local_update):
    def doubled(gradient, params, sent, own):
        return trees.scale(2.0, gradient)

    work = fm.local.sgd(line(), lr=0.5, steps=2)._replace(correct=doubled)

    update = local_update(fm.local.proximal(work, 0.2), pull(1.0))

    # -0.5 * 2, then -0.5 * (2 + 0.2 * -1); the pull itself is not doubled.
    assert update.value["params"]["w"].item() == pytest.approx(-1.0 - 0.9, rel=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"clip_gradient": 99.0}, {"weight_decay": 1e-9}], ids=["plain", "clip", "decay"]
)
@pytest.mark.parametrize("doubled_first", [True, False])
def test_transforms_act_in_the_order_in_which_they_were_put_on_whatever_steps(
    doubled_first, options, line, pull, local_update
):
    def doubled(work):
        before = work.correct

        def correct(gradient, params, sent, own):
            return trees.scale(2.0, before(gradient, params, sent, own))

        return work.changed(correct=correct)

    def pulled(work):
        return fm.local.proximal(work, 0.2)

    first, then = (doubled, pulled) if doubled_first else (pulled, doubled)
    work = then(first(fm.local.sgd(line(), lr=0.5, steps=2, **options)))

    update = local_update(work, pull(1.0))

    # -0.5 * 2, then -0.5 * (2 - 0.2), or -0.5 * 2 * (1 - 0.2).
    expected = -1.9 if doubled_first else -1.8
    assert update.value["params"]["w"].item() == pytest.approx(expected, rel=1e-6)


def of_its_own(lr):
    """Write the step of a work anew, as a user does who knows the seam."""

    def step(work, sent, carry, batch):
        params = carry["params"]
        gradient, _ = work.objective.grad(params, carry["buffers"], carry["counts"], batch)
        gradient = work.correct(gradient, params, sent, carry["own"])
        trees.axpy_(params, -lr, gradient)
        return carry

    return step


@pytest.mark.parametrize("optimizer", [None, fm.optimizers.sgd(0.5)], ids=["none", "sgd"])
def test_a_step_of_the_user_s_own_that_calls_the_seam_is_pulled(
    optimizer, line, pull, local_update
):
    work = fm.local.sgd(line(), lr=0.5, steps=2)
    work = work.changed(step=of_its_own(0.5), optimizer=optimizer)

    update = local_update(fm.local.proximal(work, 0.2), pull(1.0))

    # -0.5, then -0.5 * (1 - 0.2 * 0.5).
    assert update.value["params"]["w"].item() == pytest.approx(-0.95, rel=1e-6)


def test_in_place_and_in_the_gradient_the_pull_is_the_same(local_update):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = {"x": torch.randn(6, 3, dtype=torch.float64), "y": tensor([0, 1, 0, 1, 1, 0])}
    # A pull of 0.3 * 4 goes beyond what was sent, which is as legal as a step of SGD.
    works = [
        fm.local.personal(fm.local.proximal(work, 4.0), "2.*")
        for options in ({}, {"clip_gradient": 1e9})
        for work in [fm.local.sgd(fm.classifier(model), lr=0.3, steps=4, batch_size=2, **options)]
    ]
    sent = {**works[0].init(), "round": tensor(1)}

    left, right = (local_update(work, data, sent).value["params"] for work in works)

    assert set(left) == {"0.weight", "0.bias"}
    for name, leaf in left.items():
        torch.testing.assert_close(leaf, right[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mu", [-0.1, math.nan, math.inf])
def test_a_mu_out_of_range_is_refused(mu, line):
    with pytest.raises(SettingsError, match="mu must be a finite number of at least 0"):
        fm.local.proximal(fm.local.sgd(line(), lr=0.1), mu)


def test_a_work_that_writes_its_own_step_is_refused(line):
    with pytest.raises(SettingsError, match=r"'evaluate' writes its own step.*local\.sgd"):
        fm.local.proximal(fm.local.evaluate(line()), 0.1)


def test_buffers_and_integers_are_not_pulled(local_update):
    model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))
    data = {"x": tensor([[1.0], [2.0], [4.0]]), "y": tensor([0, 1, 0])}
    plain = fm.local.sgd(fm.classifier(model), lr=0.1, steps=3, batch_size=None)

    left, right = (local_update(work, data) for work in (plain, fm.local.proximal(plain, 2.0)))

    assert left.counts["1.num_batches_tracked"].item() == 3
    assert right.counts["1.num_batches_tracked"].item() == 3
    assert trees.norm(right.value["params"]) < trees.norm(left.value["params"])
