"""MOON: the contrastive term, whose models it compares, and what it leaves alone."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError
from folkmoot.local.personal import personalize
from folkmoot.train.states import ClientStates

F64 = torch.float64


class Body(nn.Module):
    """A representation z = w x, and an output that always is 0: the term alone moves w."""

    def __init__(self, w=(1.0, 0.0)):
        super().__init__()
        self.body = nn.Linear(1, 2, bias=False)
        self.body.weight = nn.Parameter(torch.tensor(w, dtype=F64).reshape(2, 1))

    def forward(self, x):
        return self.body(x).sum(1) * 0


def work_of(model, **options):
    objective = fm.objective(model, lambda outputs, _: outputs, target=None)
    return fm.local.sgd(objective, **{"lr": 0.1, "steps": 1, "batch_size": None, **options})


ONE = {0: {"x": torch.ones(2, 1, dtype=F64)}}


def with_previous(snapshot, **leaves):
    """Return a snapshot whose client 0 had another model the last time."""
    own = snapshot.own[0]
    params = {**own["previous"]["params"], **leaves}
    changed = {**own, "previous": {**own["previous"], "params": params}}
    return snapshot._replace(own=ClientStates({0: changed}))


def test_a_client_is_pushed_away_from_its_previous_model(one_round):
    algorithm = fm.moon(work_of(Body()), features="body", mu=2.0, temperature=0.5)
    first, _ = one_round(algorithm, ONE)
    before = with_previous(first, **{"body.weight": torch.tensor([[0.0], [1.0]], dtype=F64)})

    after, _ = one_round(algorithm, ONE, before)

    # z = z_glob = (1, 0) and z_prev = (0, 1) on each row, so the cosines are 1 and 0, of slopes
    # (0, 0) and (0, 1); the term's slope is sigmoid((0 - 1) / 0.5) / 0.5 along the difference.
    slope = 1 / (1 + math.exp(2)) / 0.5
    found = after.state["params"]["body.weight"].flatten().tolist()
    assert found == pytest.approx([1.0, -0.1 * 2.0 * slope], abs=1e-12)


def test_a_client_that_was_never_asked_is_moved_by_its_loss_alone(one_round):
    algorithm = fm.moon(work_of(Body((0.6, 0.8))), features="body", mu=5.0)

    after, _ = one_round(algorithm, ONE)

    assert after.state["params"]["body.weight"].flatten().tolist() == [0.6, 0.8]


def test_a_representation_of_zero_has_a_finite_slope(one_round):
    algorithm = fm.moon(work_of(Body((0.0, 0.0))), features="body")
    first, _ = one_round(algorithm, ONE)
    before = with_previous(first, **{"body.weight": torch.tensor([[0.0], [1.0]], dtype=F64)})

    after, _ = one_round(algorithm, ONE, before)

    # With both lengths taken as 1 the cosine's slope is z_prev; sigmoid(0) / 0.5 = 1.
    found = after.state["params"]["body.weight"].flatten().tolist()
    assert found == pytest.approx([0.0, -0.1])


def network(seed, norm=False):
    torch.manual_seed(seed)
    middle = nn.BatchNorm1d(5) if norm else nn.Tanh()
    return nn.Sequential(nn.Linear(3, 5), middle, nn.Linear(5, 4), nn.Linear(4, 2)).double()


def rows(seed=0, count=6):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=draw, dtype=F64)
    return {"x": x, "y": (x[:, 0] > 0).long()}


def trained(**options):
    return {"lr": 0.3, "epochs": 2, "batch_size": 2, "shuffle": False, **options}


def test_training_equals_a_plain_loop_with_the_paper_s_equation(one_round):
    model, sent, last = (network(seed) for seed in (1, 1, 2))
    algorithm = fm.moon(
        fm.local.sgd(fm.classifier(model), **trained()), features="2", mu=0.7, temperature=0.4
    )
    first, _ = one_round(algorithm, {0: rows()})
    state = {**first.state, "params": dict(algorithm.init()["params"])}
    previous = {name: leaf.detach() for name, leaf in last.named_parameters()}

    after, _ = one_round(
        algorithm, {0: rows()}, with_previous(first, **previous)._replace(state=state)
    )

    leaves, data = list(model.parameters()), rows()
    for begin in (0, 2, 4) * 2:
        x, y = data["x"][begin : begin + 2], data["y"][begin : begin + 2]
        z, z_glob, z_prev = (net[:3](x) for net in (model, sent, last))
        near = torch.exp(F.cosine_similarity(z, z_glob.detach()) / 0.4)
        far = torch.exp(F.cosine_similarity(z, z_prev.detach()) / 0.4)
        loss = F.cross_entropy(model(x), y) - 0.7 * torch.log(near / (near + far)).mean()
        slopes = torch.autograd.grad(loss, leaves)
        with torch.no_grad():
            for leaf, slope in zip(leaves, slopes, strict=True):
                leaf -= 0.3 * slope
    for name, leaf in model.named_parameters():
        for found in (after.state, after.own[0]["previous"]):
            torch.testing.assert_close(found["params"][name], leaf.detach(), rtol=1e-10, atol=1e-12)


def test_mu_of_zero_is_fedavg_bit_for_bit_and_keeps_nothing(one_round):
    work = fm.local.sgd(fm.classifier(network(0)), **trained(momentum=0.5))

    found, _ = one_round(fm.moon(work, features="2", mu=0.0), {0: rows()})
    plain, _ = one_round(fm.fedavg(work), {0: rows()})

    for one, other in zip(trees.leaves(found.state), trees.leaves(plain.state), strict=True):
        assert torch.equal(one, other)
    assert not found.own


def test_the_looks_at_other_models_leave_batch_statistics_alone(one_round):
    work = fm.local.sgd(fm.classifier(network(0, norm=True)), **trained(lr=0.0))
    moon, plain = fm.moon(work, features="2"), fm.fedavg(work)
    there, here = (one_round(algorithm, {0: rows()})[0] for algorithm in (moon, plain))

    there, here = (
        one_round(algorithm, {0: rows(1)}, snapshot)[0]
        for algorithm, snapshot in ((moon, there), (plain, here))
    )

    for part in ("buffers", "counts"):
        pairs = zip(trees.leaves(there.state[part]), trees.leaves(here.state[part]), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    assert there.state["counts"]["1.num_batches_tracked"].item() == 12


def test_metrics_and_the_finished_model_are_the_plain_ones():
    algorithm = fm.moon(fm.local.sgd(fm.classifier(network(0)), **trained()), features="2")

    result = fm.run(algorithm, {0: rows(), 1: rows(1)}, rounds=2, test=rows(2), progress=False)

    assert set(result.model.state_dict()) == set(network(0).state_dict())
    data = rows(2)
    loss = F.cross_entropy(result.model(data["x"]), data["y"]).item()
    assert result.history[-1]["test_loss"] == pytest.approx(loss, rel=1e-6)


def test_a_client_keeps_shared_leaves_only_and_compares_with_its_own_head(one_round):
    work = fm.local.sgd(fm.classifier(network(0)), **trained())
    algorithm = personalize(fm.moon(work, features="3"), "3.*")

    first, _ = one_round(algorithm, {0: rows()})
    second, _ = one_round(algorithm, {0: rows()}, first)

    assert set(second.own[0]) == {"previous", "kept"}
    shared = {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert set(second.own[0]["previous"]["params"]) == shared
    assert set(second.own[0]["kept"]["params"]) == {"3.weight", "3.bias"}


def test_gradients_in_half_precision_are_near_those_in_full():
    work = fm.local.sgd(fm.classifier(network(0).float()), **trained())
    clients = {0: {**rows(), "x": rows()["x"].float()}}

    def run(precision):
        algorithm = fm.moon(work, features="2")
        run = fm.run(algorithm, clients, rounds=2, precision=precision, progress=False)
        return torch.cat([leaf.flatten() for leaf in run.model.state_dict().values()])

    half, full = run("bf16"), run("float32")

    assert 0 < (half - full).norm() < 0.02 * full.norm()


def test_a_model_that_predicts_its_own_input_has_a_term_too(one_round):
    coder = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3)).double()
    objective = fm.objective(coder, lambda out, x: (out - x).square().mean(1), target=None)
    algorithm = fm.moon(fm.local.sgd(objective, **trained()), features="0")
    snapshot = None

    for _ in range(2):
        snapshot, report = one_round(algorithm, {0: {"x": rows()["x"]}}, snapshot)

    assert report.answered == 1


class Strange(nn.Module):
    """One layer is not called, one is called twice, one gives a tuple."""

    def __init__(self):
        super().__init__()
        self.never, self.twice, self.pair = nn.Linear(3, 3), nn.Linear(3, 3), nn.GRU(3, 2)

    def forward(self, x):
        return self.pair(self.twice(self.twice(x)))[0]


@pytest.mark.parametrize(
    ("layer", "why"),
    [("never", "called 0 times"), ("twice", "called 2 times"), ("pair", "gives a tuple")],
)
def test_a_layer_without_one_tensor_is_refused_before_the_first_round(layer, why):
    work = fm.local.sgd(fm.classifier(Strange()), lr=0.1)
    data = {"x": torch.randn(4, 3), "y": torch.tensor([0, 1, 0, 1])}

    with pytest.raises(SettingsError, match=f"The layer '{layer}'.*{why}"):
        fm.run(fm.moon(work, features=layer), {0: data}, rounds=1, progress=False)


def test_what_cannot_be_built_is_refused():
    work = fm.local.sgd(fm.classifier(network(0)), **trained())

    with pytest.raises(SettingsError, match=r"is 'head'\. Its layers: 0, 1, 2, 3\."):
        fm.moon(work, features="head")
    with pytest.raises(SettingsError, match="temperature must be a finite number above 0"):
        fm.moon(work, features="2", temperature=0.0)
    with pytest.raises(SettingsError, match="mu must be a finite number of at least 0"):
        fm.moon(work, features="2", mu=-1.0)
    with pytest.raises(SettingsError, match="needs local work"):
        fm.moon(network(0), features="2")


def test_a_loss_without_a_gradient_is_refused_though_the_term_has_one():
    def accuracy(outputs, targets):
        return (outputs.argmax(1) != targets).double()

    work = fm.local.sgd(fm.objective(network(0), accuracy), **trained())

    with pytest.raises(SettingsError, match="depends on no trainable parameter"):
        fm.run(fm.moon(work, features="2"), {0: rows()}, rounds=1, progress=False)
