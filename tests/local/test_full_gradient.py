"""The full gradient is the mean over all examples, at the model with which the work begins."""

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError
from folkmoot.local import full_gradient as full


class Value(nn.Module):
    """Give w, so that the loss of a row y is (w - y)^2 / 2 and its gradient w - y."""

    def __init__(self, w=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([w], dtype=torch.float64))

    def forward(self, x):
        return self.w.expand(len(x))


def half_square(outputs, targets):
    return (outputs - targets).square() / 2


def value(w=0.0):
    return fm.objective(Value(w), half_square)


def rows(*targets):
    y = torch.tensor(targets, dtype=torch.float64)
    return {"x": torch.zeros_like(y), "y": y}


def shown(work):
    """Make `full_gradient.mean` of work that takes it beside its steps the update's value."""
    beside = full.beside(work)

    def finish(sent, carry, seen):
        update, own = beside.finish(sent, carry, seen)
        return update._replace(value={**update.value, "full": full.mean(sent, carry, seen)}), own

    return beside.changed(finish=finish)


def test_it_is_a_mean_over_rows_not_over_batches(local_update):
    work = full.full_gradient(fm.local.sgd(value(2.0), lr=0.1, batch_size=2))

    update = local_update(work, rows(1.0, 2.0, 6.0))

    # 2 - (1 + 2 + 6) / 3; the mean of the two batches' gradients would be (0.5 - 4) / 2.
    assert update.value["gradient"]["w"].item() == pytest.approx(-1.0)
    assert update.weight == 3


def test_it_is_of_one_whole_epoch_whatever_the_plan_says(local_update):
    work = full.full_gradient(fm.local.sgd(value(), lr=0.1, batch_size=1, steps=1))

    update = local_update(work, rows(1.0, 2.0, 6.0))

    assert update.value["gradient"]["w"].item() == pytest.approx(-3.0)


@pytest.mark.parametrize("epochs", [1, 3])
def test_beside_steps_it_is_taken_once_and_at_the_first_model(epochs, local_update):
    work = fm.local.sgd(value(2.0), lr=0.5, epochs=epochs, batch_size=1)

    found, alone = (local_update(one, rows(1.0, 2.0, 6.0)).value for one in (shown(work), work))

    assert found["full"]["w"].item() == pytest.approx(-1.0)
    assert torch.equal(found["params"]["w"], alone["params"]["w"])


def test_beside_fewer_steps_than_an_epoch_it_is_over_the_batches_reached(local_update):
    work = fm.local.sgd(value(), lr=0.5, steps=2, batch_size=1, shuffle=False)

    found = local_update(shown(work), rows(1.0, 2.0, 6.0)).value

    assert found["full"]["w"].item() == pytest.approx(-1.5)


def test_a_work_that_begins_elsewhere_has_its_gradient_there(local_update):
    work = fm.local.sgd(value(), lr=0.5, steps=2, batch_size=None)

    def start(sent, own, key):
        # A model of its own memory, which steps write into.
        return {**work.start(sent, own, key), "params": {"w": sent["params"]["w"] + 10.0}}

    found = local_update(shown(work.changed(start=start)), rows(1.0)).value

    assert found["full"]["w"].item() == pytest.approx(9.0)


def test_a_client_with_leaves_of_its_own_has_its_gradient_there(one_round):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    objective = fm.objective(model, lambda out, y: half_square(out[:, 0], y))
    work = fm.local.personal(fm.local.sgd(objective, lr=0.1, batch_size=1), "1.*")
    data = {"x": torch.ones(2, 1).double(), "y": torch.tensor([1.0, 3.0]).double()}
    asked = full.full_gradient(work)

    def init():
        return work.init()

    def round(state):
        gradient = yield fm.Task(state, asked, fm.aggregators.uniform_mean())
        return {**state, "gradient": gradient.value["gradient"]}

    algorithm = fm.Algorithm("ask", init, round, (asked,))
    first, _ = one_round(algorithm, {7: data})
    own = {**first.own[7], "kept": {"params": {"1.weight": torch.full((1, 1), 5.0).double()}}}
    own["kept"].update(buffers={}, counts={})
    again, _ = one_round(algorithm, {7: data}, first._replace(own=type(first.own)({7: own})))

    # d/dw of ((5 w - 1)^2 + (5 w - 3)^2) / 4 is 5 (5 w - 2).
    w = model[0].weight.item()
    assert set(again.state["gradient"]) == {"0.weight"}
    assert again.state["gradient"]["0.weight"].item() == pytest.approx(5 * (5 * w - 2))
    assert again.own[7]["kept"]["params"]["1.weight"].item() == 5.0


class InPlace(nn.Module):
    """Shift its inputs where they stand."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(2, 2)

    def forward(self, x):
        return self.out(x.sub_(0.5))


def test_its_passes_leave_the_batch_as_it_was(local_update):
    torch.manual_seed(0)
    work = fm.local.sgd(fm.classifier(InPlace()), lr=0.1, batch_size=2)
    data = {"x": torch.randn(4, 2), "y": torch.tensor([0, 1, 0, 1])}

    found, alone = (local_update(one, data) for one in (shown(work), work))

    assert torch.equal(found.value["params"]["out.weight"], alone.value["params"]["out.weight"])


def test_its_passes_leave_batch_statistics_as_they_were(local_update):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    work = fm.local.sgd(fm.classifier(model), lr=0.1, batch_size=2)
    data = {"x": torch.randn(4, 2), "y": torch.tensor([0, 1, 0, 1])}

    found, alone = (local_update(one, data) for one in (shown(work), work))

    assert found.counts["1.num_batches_tracked"].item() == 2
    for name, leaf in alone.value["buffers"].items():
        assert torch.equal(found.value["buffers"][name], leaf)


def test_what_is_no_work_has_none():
    with pytest.raises(SettingsError, match=r"full_gradient\(\) needs local work"):
        full.full_gradient(value())
