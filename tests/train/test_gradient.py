"""A loss without a gradient is refused before the first round; all that may be zero is not."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import folkmoot as fm
from folkmoot.core.errors import SettingsError

NOTHING = "The loss depends on no trainable parameter, so nothing would be learnt"


class Frozen(nn.Linear):
    """A model that was made for prediction."""

    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class Half(nn.Module):
    """Two layers, of which the loss sees one."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.used(x)


def rows(client, label=None):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(client))
    y = (x[:, 0] > 0).long() if label is None else torch.full((4,), label)
    return {"x": x, "y": y}


def wrong(outputs, targets):
    return (outputs.argmax(1) != targets).float()


def labelled(outputs, targets):
    """Learn from rows with a label; without any there is nothing to differentiate."""
    known = targets >= 0
    return F.cross_entropy(outputs[known], targets[known]) if known.any() else torch.zeros(())


def built(loss, model=None, **options):
    options = {"lr": 0.1} | options
    return fm.fedavg(fm.local.sgd(fm.objective(model or nn.Linear(3, 2), loss), **options))


def train(algorithm, clients=None, **options):
    clients = clients or [rows(0), rows(1)]
    return fm.run(algorithm, clients, rounds=1, workers=1, progress=False, **options)


SILENT = {
    "a count of errors": lambda: built(wrong),
    "a loss of numbers": lambda: built(lambda outputs, targets: torch.tensor(1.0)),
    "a detached output": lambda: built(lambda o, t: F.cross_entropy(o.detach(), t)),
    "a model without gradients": lambda: built(F.cross_entropy, Frozen(3, 2)),
    "a classifier without gradients": lambda: fm.fedavg(
        fm.local.sgd(fm.classifier(Frozen(3, 2)), lr=0.1)
    ),
    "under a pull": lambda: fm.fedprox(built(wrong).works[0], mu=0.1),
}


@pytest.mark.parametrize("silent", SILENT)
def test_a_loss_without_a_gradient_is_refused_before_the_first_round(silent):
    heard = []

    with pytest.raises(SettingsError, match=NOTHING):
        train(SILENT[silent](), callbacks=[heard.append])

    assert not heard


@pytest.mark.parametrize("silent", SILENT)
def test_a_loss_without_a_gradient_is_a_problem_of_a_check(silent):
    [problem] = fm.check(SILENT[silent](), [rows(0), rows(1)]).problems

    assert problem.startswith(NOTHING)


def test_a_process_refuses_it_too():
    process = fm.process(built(wrong))

    with pytest.raises(SettingsError, match=NOTHING):
        process.next(process.initialize(), [rows(0)])


def test_bf16_hides_nothing():
    with pytest.raises(SettingsError, match=NOTHING):
        train(built(wrong), precision="bf16")


def test_inference_mode_is_named():
    with torch.inference_mode():
        algorithm, clients = built(F.cross_entropy), [rows(0)]

        with pytest.raises(SettingsError, match=r"inference_mode\(\) is on.*Train outside"):
            train(algorithm, clients)
        [problem] = fm.check(algorithm, clients).problems

    assert problem.startswith("torch.inference_mode() is on")


def test_a_caller_without_gradients_may_train():
    with torch.no_grad():
        result = train(built(F.cross_entropy))

    assert result.history[-1]["answered"] == 2


def test_a_layer_that_the_loss_does_not_see_is_no_fault():
    result = train(built(F.cross_entropy, Half()))

    assert fm.check(built(F.cross_entropy, Half()), [rows(0), rows(1)]).ok
    assert result.history[-1]["answered"] == 2


def test_a_client_without_a_gradient_is_no_fault_where_another_has_one():
    clients = [rows(0, label=-1), rows(1, label=-1), rows(2)]

    result = train(built(labelled), clients)

    assert fm.check(built(labelled), clients).ok
    assert result.history[-1]["answered"] == 3
    with pytest.raises(SettingsError, match=NOTHING):
        train(built(labelled), clients[:2])


def test_work_that_never_asks_for_a_gradient_is_no_fault():
    algorithm = built(wrong)
    [work] = algorithm.works

    def step(work, sent, carry, batch):
        work.objective.measure(sent["params"], sent["buffers"], sent["counts"], batch)
        return carry

    result = train(fm.fedavg(work._replace(step=step)))

    assert result.history[-1]["answered"] == 2
