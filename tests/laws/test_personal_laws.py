"""What holds for personal leaves under every algorithm whose clients have no models of their own.

The model has leaves that its loss does not feel: `mine - mine.detach()` is 0, and its gradient 1.
Nothing else in the model feels them, so if they stay with the clients, nothing that travels may.
"""

import contextlib
from functools import cache

import pytest
import torch
from laws.cards import CARDS, build, takes
from laws.test_algorithm_laws import CLIENTS, Data, same
from torch import nn
from torch.nn import functional as F

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.engine import Cohort, Setting
from folkmoot.local.personal import personalize
from folkmoot.train.loop import first_snapshot, run_round

LR, DECAY, STEPS = 0.125, 0.5, 2
ASKED = [(0, 1, 2), (1, 3)]
RULES = {"plain": (), "clipped": (fm.codecs.clip(0.05),)}
ENGINES = {"sequential": fm.engines.sequential(), "vectorized": fm.engines.vectorized(2)}


class Net(nn.Module):
    """A classifier; with `mine` it also has leaves of every kind that its loss does not feel."""

    def __init__(self, mine=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.out = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)
        self.has_mine = mine is not None
        if self.has_mine:
            self.mine = nn.Parameter(torch.full((7,), mine))
            self.register_buffer("mine_sum", torch.full((5,), mine))
            self.register_buffer("mine_count", torch.full((3,), int(mine)))

    def forward(self, x):
        outputs = self.out(self.norm(self.first(x)))
        if not self.has_mine:
            return outputs, outputs.new_zeros(())
        if self.training:
            self.mine_sum.add_(1.0)
            self.mine_count.add_(1)
        return outputs, (self.mine - self.mine.detach()).sum()


def loss(outputs, targets):
    logits, nothing = outputs
    return F.cross_entropy(logits, targets, reduction="none") + nothing


def work_of(mine=None):
    objective = fm.objective(Net(mine), loss)
    # The decay makes what a step changes of a leaf depend on its value.
    return fm.local.sgd(objective, lr=LR, steps=STEPS, batch_size=3, weight_decay=DECAY)


def built(name, work, codecs=()):
    more = {"features": "norm"} if takes(name, "features") else {}
    if codecs:
        more["aggregator"] = fm.aggregators.weighted_mean(*codecs)
    return build(name, work, **more)


def keeps_nothing_else(name):
    # What a card names of the laws' own models is not in this one.
    options = CARDS[name].options
    return not {"personal", "shared", "layers"} & set(options) and (
        built(name, work_of()).works[0].model is None
    )


NAMES = [name for name in CARDS if keeps_nothing_else(name)]
RULED = pytest.mark.parametrize(
    ("name", "rule"),
    [
        (name, rule)
        for name in NAMES
        for rule in RULES
        if rule == "plain" or takes(name, "aggregator")
    ],
)


class Overheard:
    """An engine of which all that is sent down and up is written down, as bytes."""

    def __init__(self, engine):
        self.engine, self.messages = engine, []

    def ask(self, task, state, cohort, own):
        self._note("down", task.broadcast)

        def encode(state, update, key):
            encoded = task.aggregator.encode(state, update, key)
            weight = torch.as_tensor(encoded.weight, dtype=torch.float64)
            self._note("up", {"value": encoded.value, "counts": encoded.counts, "": weight})
            return encoded

        overheard = task.aggregator._replace(encode=encode)
        return self.engine.ask(task._replace(aggregator=overheard), state, cohort, own)

    def _note(self, way, tree):
        self.messages += [
            (way, trees.name(path), tuple(leaf.shape), leaf.numpy().tobytes())
            for path, leaf in trees.items(tree)
        ]

    def close(self):
        self.engine.close()


def heard(algorithm, engine="sequential"):
    """Do two rounds, in which some clients sleep; return the messages and the last snapshot."""
    held = {client: Data(rows) for client, rows in CLIENTS.items()}
    snapshot = first_snapshot(algorithm)
    with contextlib.closing(Overheard(ENGINES[engine](Setting(held, 0)))) as spied:
        for number, asked in enumerate(ASKED, start=1):
            cohort = Cohort(number, asked, len(held), len(asked))
            snapshot, report = run_round(algorithm, snapshot, spied, cohort, 0)
            assert report.answered == len(asked)
    return spied.messages, snapshot


@cache
def kept(name, mine, rule="plain", engine="sequential"):
    return heard(personalize(built(name, work_of(mine), RULES[rule]), "mine*"), engine)


@RULED
def test_no_byte_that_travels_depends_on_a_personal_leaf(name, rule):
    messages, snapshot = kept(name, 0.0, rule)
    moved, elsewhere = kept(name, 1000.0, rule)

    assert moved == messages
    assert same(elsewhere.state, snapshot.state)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
def test_nor_does_it_where_many_clients_are_trained_at_once(name, rule):
    assert kept(name, 0.0, rule, "vectorized")[0] == kept(name, 1000.0, rule, "vectorized")[0]


@pytest.mark.parametrize("rule", RULES)
def test_bytes_do_depend_on_a_leaf_that_is_not_personal(rule):
    messages, _ = heard(built("fedavg", work_of(0.0), RULES[rule]))
    moved, _ = heard(built("fedavg", work_of(1000.0), RULES[rule]))

    def others(told):
        return [one for one in told if one[0] == "down" and "mine" not in one[1]]

    assert moved != messages
    # Clipped, what others have learnt in round 1 shrinks because this one is long.
    assert (others(moved) == others(messages)) == (rule == "plain")


@RULED
def test_what_travels_has_names_and_sizes_of_the_model_without_its_personal_leaves(name, rule):
    messages, _ = kept(name, 0.0, rule)
    without, _ = heard(built(name, work_of(None), RULES[rule]))

    assert [told[:3] for told in messages] == [told[:3] for told in without]


@pytest.mark.parametrize("name", NAMES)
def test_a_personal_leaf_moves_by_its_own_client_s_steps_and_stays_while_it_sleeps(name):
    _, snapshot = kept(name, 1000.0)

    # A step takes m to m - LR (1 + DECAY m), so m + 1 / DECAY to (1 - LR DECAY) times that.
    for client, rounds in {0: 1, 1: 2, 2: 1, 3: 1}.items():
        mine = snapshot.own[client]["kept"]
        expected = 1002.0 * (1 - LR * DECAY) ** (STEPS * rounds) - 2.0
        torch.testing.assert_close(mine["params"]["mine"], torch.full((7,), expected))
        assert mine["counts"]["mine_count"].unique().item() >= 1000 + STEPS * rounds
        assert mine["buffers"]["mine_sum"].unique().item() == mine["counts"]["mine_count"][0]
    assert set(snapshot.own) == {0, 1, 2, 3}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_one_whether_the_work_or_the_algorithm_is_told(name):
    messages, snapshot = kept(name, 0.0)

    again, told = heard(built(name, fm.local.personal(work_of(0.0), "mine*")))

    assert again == messages
    assert set(told.own) == set(snapshot.own)
    assert all(same(told.own[client], own) for client, own in snapshot.own.items())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_model_travels_that_is_all_personal(name):
    alone = personalize(built(name, work_of(0.0)), "*")

    messages, snapshot = heard(alone)
    # Clients of EF21 pack one by one.
    _, together = heard(alone, *(["vectorized"] if name != "ef21" else []))

    # Of an algorithm's own a few numbers may be left, such as a loss or a round.
    assert {shape for _, _, shape, _ in messages} <= {(), (len(CLIENTS),)}
    work = alone.works[0]
    first = work.objective.init()["params"]
    for client, own in snapshot.own.items():
        model = work.model(snapshot.state, own)["params"]
        assert not any(torch.equal(leaf, first[path]) for path, leaf in model.items())
        there = work.model(together.state, together.own[client])["params"]
        torch.testing.assert_close(there, model, rtol=1e-5, atol=1e-6)
