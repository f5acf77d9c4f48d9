"""Mime and MimeLite: the server's optimizer state in every local step, and who changes it."""

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError
from folkmoot.local.personal import personalize

BOTH = pytest.mark.parametrize("build", [fm.mime, fm.mimelite], ids=["mime", "mimelite"])


def momentum(line, steps=3, **options):
    return fm.local.sgd(line(5.0), lr=0.1, steps=steps, batch_size=None, momentum=0.5, **options)


def w_of(snapshot):
    return snapshot.state["params"]["w"].item()


@BOTH
def test_local_steps_use_the_server_s_momentum_and_leave_it_as_it_is(build, line, pull, one_round):
    algorithm = build(momentum(line))
    clients = {0: pull(1.0), 1: pull(3.0)}

    first, _ = one_round(algorithm, clients)
    second, _ = one_round(algorithm, clients, first)

    # The mean gradient is 2. Round 1: v = 0, so each of 3 steps is 0.1 * 2; then v = 2.
    assert w_of(first) == pytest.approx(5.0 - 3 * 0.2)
    assert first.state["base"]["velocity"]["w"].item() == pytest.approx(2.0)
    # Round 2: each step is 0.1 * (0.5 * 2 + 2) = 0.3; then v = 0.5 * 2 + 2.
    assert w_of(second) == pytest.approx(4.4 - 3 * 0.3)
    assert second.state["base"]["velocity"]["w"].item() == pytest.approx(3.0)


def test_mime_moves_every_client_along_the_cohort_s_gradient(line, pull, local_update):
    algorithm = fm.mime(momentum(line))
    sent = {key: part for key, part in algorithm.init().items() if key != "optimizer"}
    sent["control"] = {"w": torch.tensor([2.0])}

    updates = [local_update(algorithm.works[0], pull(g), sent) for g in (1.0, 3.0)]

    # g - g + c = 2 for both, in 3 steps of 0.1.
    assert [u.value["params"]["w"].item() for u in updates] == pytest.approx([-0.6, -0.6])


def test_mimelite_moves_a_client_along_its_own_gradient_and_sends_it_up(line, pull, local_update):
    algorithm = fm.mimelite(momentum(line))

    update = local_update(algorithm.works[0], pull(3.0), algorithm.init())

    assert update.value["params"]["w"].item() == pytest.approx(-0.9)
    assert update.value["gradient"]["w"].item() == pytest.approx(3.0)


@BOTH
def test_adam_counts_rounds_and_not_local_steps(build, line, pull, one_round):
    adam = fm.optimizers.adam(0.1, tau=1.0, bias_correction=True)
    algorithm = build(fm.local.descent(line(5.0), adam, steps=2, batch_size=None))

    first, _ = one_round(algorithm, {0: pull(2.0)})
    second, _ = one_round(algorithm, {0: pull(2.0)}, first)

    # The gradient is always 2, so corrected m = 2 and sqrt(v) = 2: a step is 0.1 * 2 / (2 + 1).
    assert w_of(first) == pytest.approx(5.0 - 2 * 0.2 / 3)
    assert w_of(second) == pytest.approx(5.0 - 4 * 0.2 / 3)
    assert second.state["base"]["steps"].item() == 2


@BOTH
def test_a_rate_by_round_is_heard(build, line, pull, one_round):
    work = fm.local.sgd(line(5.0), lr=lambda round: 0.1 * round, steps=1, batch_size=None)

    first, _ = one_round(build(work), {0: pull(1.0)})
    second, _ = one_round(build(work), {0: pull(1.0)}, first)

    assert w_of(first) == pytest.approx(4.9)
    assert w_of(second) == pytest.approx(4.7)


@BOTH
def test_a_pull_and_weight_decay_ride_along(build, line, pull, one_round):
    work = fm.local.sgd(line(2.0), lr=0.5, steps=2, batch_size=None, weight_decay=0.1)

    snapshot, _ = one_round(build(fm.local.proximal(work, 0.2)), {0: pull(1.0)})

    # Step 1: 1 + 0.1 * 2 = 1.2, to 1.4. Step 2: 1 + 0.1 * 1.4 + 0.2 * (1.4 - 2) = 1.02, to 0.89.
    assert w_of(snapshot) == pytest.approx(0.89)


class Two(nn.Module):
    """Give x * (shared + mine): both leaves have x for their gradient."""

    def __init__(self):
        super().__init__()
        self.shared, self.mine = (nn.Parameter(torch.zeros(1)) for _ in range(2))

    def forward(self, x):
        return x * (self.shared + self.mine)


@BOTH
def test_personal_leaves_have_plain_gradients_and_fresh_momentum(build, pull, one_round):
    objective = fm.objective(Two(), lambda outputs, _: outputs.sum(1), target=None)
    work = fm.local.sgd(objective, lr=0.1, steps=1, batch_size=None, momentum=0.5)
    algorithm = personalize(build(work), "mine")
    clients = {0: pull(1.0), 1: pull(3.0)}

    first, _ = one_round(algorithm, clients)
    second, _ = one_round(algorithm, clients, first)

    # Shared: 0.1 * 2, then 0.1 * (0.5 * 2 + 2). Personal: 0.1 * the client's own, twice.
    assert second.state["params"]["shared"].item() == pytest.approx(-0.5)
    kept = [second.own[client]["kept"]["params"]["mine"].item() for client in (0, 1)]
    assert kept == pytest.approx([-0.2, -0.6])
    assert set(second.state["base"]["velocity"]) == {"shared"}


@BOTH
def test_clients_count_the_same_unless_a_rule_says_otherwise(build, line, pull, one_round):
    clients = {0: pull(1.0, rows=3), 1: pull(5.0)}
    by_examples = fm.aggregators.weighted_mean()

    same, _ = one_round(build(momentum(line, steps=1)), clients)
    weighed, _ = one_round(build(momentum(line, steps=1), aggregator=by_examples), clients)

    assert w_of(same) == pytest.approx(5.0 - 0.1 * 3)  # (1 + 5) / 2
    assert w_of(weighed) == pytest.approx(5.0 - 0.1 * 2)  # (3 * 1 + 1 * 5) / 4
    assert weighed.state["base"]["velocity"]["w"].item() == pytest.approx(2.0)


def test_mime_asks_twice_and_both_send_a_gradient_and_a_delta_up(line, pull, one_round):
    clients = {0: pull(1.0), 1: pull(3.0)}

    _, twice = one_round(fm.mime(momentum(line)), clients)
    _, once = one_round(fm.mimelite(momentum(line)), clients)

    # Each client: w, velocity and the round's number, or w twice, velocity, mean gradient and the
    # number twice. A number is 4 bytes; the round's, and an update's weight, are 8.
    assert once.download_bytes == 2 * (2 * 4 + 8)
    assert twice.download_bytes == 2 * (4 * 4 + 2 * 8)
    assert once.upload_bytes == 2 * (4 + 4 + 8)
    assert twice.upload_bytes == 2 * (4 + 8 + 4 + 8)


@BOTH
def test_batch_statistics_are_fedavg_s(build, one_round):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    work = fm.local.sgd(fm.classifier(model), lr=0.0, epochs=2, batch_size=2, shuffle=False)
    clients = {0: {"x": torch.randn(4, 2), "y": torch.tensor([0, 1, 0, 1])}}

    found, _ = one_round(build(work), clients)
    plain, _ = one_round(fm.fedavg(work), clients)

    for part in ("buffers", "counts"):
        pairs = zip(trees.leaves(found.state[part]), trees.leaves(plain.state[part]), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@BOTH
def test_what_cannot_be_built_is_refused(build, line):
    work = momentum(line)

    with pytest.raises(SettingsError, match=rf"{build.__name__}\(\) needs local work"):
        build(line())
    with pytest.raises(SettingsError, match="needs the mean over clients"):
        build(work, aggregator=fm.aggregators.total())
    with pytest.raises(SettingsError, match="server must be an optimizer"):
        build(work, server="adam")
    with pytest.raises(SettingsError, match="writes its own step"):
        build(work._replace(optimizer=None, correct=None))
