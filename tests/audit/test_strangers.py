"""Examples as canaries: what a run gives away of one row, and what DP-SGD hides."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.audit.strangers import audit_examples, followed, strangers, with_strangers
from folkmoot.core.errors import SettingsError
from folkmoot.local.dpsgd import charges


@pytest.fixture(scope="module")
def clients():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(120, 50, generator=draw), torch.randint(4, (120,), generator=draw)
    return fm.data.as_clients(
        {c: (x[60 * c : 60 * c + 60], y[60 * c : 60 * c + 60]) for c in (0, 1)}
    )


@pytest.fixture(scope="module")
def work():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 32), nn.ReLU(), nn.Linear(32, 4))
    return fm.local.sgd(fm.classifier(model), lr=0.2, batch_size=20)


def test_a_run_without_privacy_gives_examples_away(clients, work):
    found = audit_examples(fm.fedavg(work), clients, rounds=3, canaries=100)

    assert found.unit == "example"
    assert found.epsilon_stated == math.inf
    assert found.epsilon_lower > 0.5


def test_dp_sgd_is_not_refuted(clients, work):
    private = fm.local.dpsgd(work, clip=0.5, noise_multiplier=1.0, simulation=True)
    stated = fm.privacy.accountants.epsilon(charges(private, 60, rounds=2), 1e-5)

    found = audit_examples(fm.fedavg(private), clients, rounds=2, canaries=60, stated=stated)

    assert found.holds, found


def test_a_promise_whose_unit_is_an_example_is_audited_with_examples(clients, work):
    budget = fm.DP(unit="example", noise_multiplier=1.0, delta=1e-5, clip=0.5, simulation=True)

    found = fm.audit.assert_private(fm.fedavg(work), clients, rounds=2, privacy=budget, canaries=60)

    assert found.unit == "example"
    # The rate is that of the smaller client, with those strangers whose coins have said so.
    rows = min(map(len, with_strangers(clients, strangers(clients, 60, seed=0)).values()))
    event = fm.privacy.events.PoissonGaussian(1.0, 20 / rows)
    steps = 2 * -(-rows // 20)
    assert found.epsilon_stated == pytest.approx(
        fm.privacy.accountants.epsilon([(event, steps)], 1e-5), rel=1e-6
    )


def test_strangers_are_as_wide_as_the_data_and_like_none_of_them(clients):
    found = strangers(clients, 400, seed=0)

    x = found.rows["x"]
    assert (x.shape, x.dtype) == ((400, 50), torch.float32)
    assert x.std().item() == pytest.approx(clients[0].train["x"].std().item(), rel=0.05)
    assert set(found.rows["y"].tolist()) <= {0, 1, 2, 3}
    assert np.bincount(found.hosts).tolist() == [200, 200]
    assert 150 < found.coins.sum() < 250


def test_codes_are_mixed_and_never_made_up():
    text = fm.data.as_clients({0: {"x": torch.tensor([[3, 5], [9, 3]]), "y": torch.tensor([1, 0])}})

    found = strangers(text, 50, seed=0)

    assert set(found.rows["x"].reshape(-1).tolist()) == {3, 5, 9}
    assert (found.rows["x"].shape, found.rows["x"].dtype) == ((50, 2), torch.int64)


def test_those_whose_coins_say_so_stand_among_their_hosts_examples(clients):
    hosted = strangers(clients, 10, seed=1)

    there = with_strangers(clients, hosted)

    for client in (0, 1):
        expected = 60 + int((hosted.coins & (hosted.hosts == client)).sum())
        assert len(there[client].train["x"]) == len(there[client].train["y"]) == expected
    assert torch.equal(there[0].train["x"][:60], clients[0].train["x"])


def test_a_step_along_one_gradient_is_explained_by_its_row(clients, work, one_round):
    hosted, seen = strangers(clients, 4, seed=0), []
    alone = {0: fm.tree.map(lambda leaf: leaf[[2]], hosted.rows)}

    one_round(followed(fm.fedavg(work), hosted.rows, seen), alone)

    assert np.argmax(seen[0]) == 2
    assert len(seen) == 1


@pytest.mark.parametrize("canaries", [0, 1, 2.0, True])
def test_too_few_strangers_are_refused(canaries, clients, work):
    with pytest.raises(SettingsError, match="canaries must be a whole number of at least 2"):
        audit_examples(fm.fedavg(work), clients, rounds=1, canaries=canaries)
