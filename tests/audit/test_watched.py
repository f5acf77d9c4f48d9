"""Canaries in a run: what they send, who they are, and what is seen of them."""

import numpy as np
import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot import aggregators, codecs
from folkmoot.audit.watched import HEAVY, Seats, Watch, counted, observed, of_seats, with_canaries
from folkmoot.engines import sequential

COINS = np.array([True, False, True, False, True])


@pytest.fixture
def still():
    """Clients who learn nothing, so that all that moves the model is canaries."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    work = fm.local.sgd(fm.classifier(model), lr=1e-12, batch_size=None)
    x = torch.randn(8, 3)
    return work, {0: {"x": x, "y": (x[:, 0] > 0).long()}}


def watched(
    still, *stages, opposed=False, local=False, rounds=2, divisor=4.0, norm=50.0, knows_others=False
):
    """Run with five canaries behind codecs, and return what was seen: (rounds, canaries)."""
    work, clients = still
    rule = aggregators.uniform_mean(*stages, divisor=divisor)
    federation = fm.data.as_clients(clients)
    ids = tuple(range(10, 15))
    watch = Watch(Seats(ids, COINS, norm, 0.5, HEAVY, opposed, seed=0), local, knows_others)
    enlarged = fm.data.ClientData([0, *ids], of_seats(federation, ids))
    fm.run(
        observed(fm.fedavg(work, aggregator=rule), watch),
        enlarged,
        rounds=rounds,
        engine=with_canaries(sequential(), watch),
        progress=False,
    )
    return watch.seen


@pytest.mark.parametrize(("opposed", "out"), [(False, 0.0), (True, -0.5)])
def test_each_canary_that_is_in_pulls_by_the_clip(opposed, out, still):
    seen = watched(still, codecs.clip(0.5), opposed=opposed)

    # The client itself adds the statistics of its batch to what is seen, at most its clipped norm.
    apart = [one.pull - np.where(COINS, 0.5, out) for one in seen]
    assert len(seen) == 2
    assert all(np.linalg.norm(one) <= 0.5 for one in apart)
    assert all(one.drawn.all() for one in seen)


@pytest.mark.parametrize("clip", [codecs.clip(0.5), codecs.clip_by_layer(0.5)])
def test_what_others_have_sent_is_subtracted(clip, still):
    for noise in ((), (codecs.gaussian(0.0),)):
        for one in watched(still, clip, *noise, knows_others=True):
            if clip.name == "clip(0.5)":
                assert one.pull == pytest.approx(np.where(COINS, 0.5, 0.0), abs=1e-2)
            else:
                # A layer in which a canary owns little shows little of it.
                assert (one.pull[COINS] > 0.2).all()
                assert (np.abs(one.pull[~COINS]) < 0.2).all()


def test_what_is_seen_is_the_sum_whatever_it_is_divided_by(still):
    pulls = [watched(still, codecs.clip(0.5), divisor=d, rounds=1)[0].pull for d in (1.0, 64.0)]

    assert pulls[0] == pytest.approx(pulls[1], abs=1e-5)


def test_each_sighting_knows_the_noise_that_its_chain_states(still):
    noise = codecs.gaussian(3.0, simulation=True)

    assert [one.noise for one in watched(still, codecs.clip(0.5), noise)] == [3.0, 3.0]


def test_a_server_that_sees_messages_sees_each_canarys_own_noise(still):
    noise = codecs.local_gaussian(0.01, simulation=True)

    one, other = watched(still, codecs.clip(0.5), noise, opposed=True, local=True)

    assert one.pull == pytest.approx(np.where(COINS, 0.5, -0.5), abs=0.05)
    assert (one.pull != other.pull).all()


def test_canaries_claim_a_weight_and_counts_that_no_rule_may_heed(still):
    heard = []
    plain = aggregators.uniform_mean(divisor=4.0)

    def encode(state, update, key):
        heard.append((float(update.weight), fm.tree.leaves(update.counts)))
        return plain.encode(state, update, key)

    work, clients = still
    watch = Watch(Seats((10,), np.array([True]), 1.0, 1.0, HEAVY, False, seed=0))
    enlarged = fm.data.ClientData([0, 10], of_seats(fm.data.as_clients(clients), (10,)))
    algorithm = fm.fedavg(work, aggregator=plain._replace(encode=encode))
    engine = with_canaries(sequential(), watch)
    fm.run(observed(algorithm, watch), enlarged, rounds=1, engine=engine, progress=False)

    weight, [batches] = heard[-1]
    assert (weight, batches.item()) == (1e6, 10**6)


def test_counts_grow_within_their_dtype():
    assert counted(torch.tensor(3, dtype=torch.int8), 1e6).item() == 3 + 63
    assert counted(torch.tensor([True]), 1e6).tolist() == [True]
