"""Case R19: local batch normalisation is found by the type of a layer, not by its name."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import folkmoot as fm
from folkmoot.local.chosen import chosen

CASE = yaml.safe_load((Path(__file__).parent / "R19.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED = CASE["input"], CASE["expected"]


class Net(nn.Module):
    """The case's layers: a name without "bn" is one, and a name with "bn" is none."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Linear(2, 2)
        self.down = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.subnet, self.ln, self.norm = nn.Linear(2, 2), nn.LayerNorm(2), nn.BatchNorm1d(2)
        # So that the deltas of what clients say are exact.
        for leaf in self.parameters():
            nn.init.zeros_(leaf)

    def forward(self, x):
        return self.norm(self.ln(self.subnet(self.down(self.conv1(x)))))


ENGINES = {"one after another": fm.engines.sequential(), "processes": fm.engines.parallel(2)}


def saying(work):
    """Let a client's data say what its local work makes of every leaf."""

    def step(outer, sent, carry, batch):
        for part in ("params", "buffers", "counts"):
            said = batch.data["count" if part == "counts" else "float"][0]
            for leaf in carry[part].values():
                leaf.copy_(said.expand_as(leaf))
        return carry

    return work._replace(step=step)


def said(number):
    floats, counts = INPUT["floats"][number], INPUT["counters"][number]
    return {"float": torch.full((2,), floats), "count": torch.full((2,), counts)}


def whole(model):
    return {name: leaf for part in model.values() for name, leaf in part.items()}


def test_the_case_s_layers_are_kept_by_type_and_all_else_is_shared():
    algorithm = fm.fedbn(fm.local.sgd(fm.classifier(Net()), lr=0.1))

    shared = algorithm.init()

    assert list(Net().state_dict()) == INPUT["state_names"]
    assert algorithm.works[0].personal == set(EXPECTED["kept_local"])
    assert (
        list(whole({part: shared[part] for part in ("params", "buffers", "counts")}))
        == (EXPECTED["shared"])
    )


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_after_a_round_shared_leaves_are_the_mean_and_local_ones_are_each_client_s(engine):
    algorithm = fm.fedbn(saying(fm.local.sgd(fm.classifier(Net()), lr=0.1, batch_size=None)))
    clients = {1: said(0), 2: said(1)}

    process = fm.process(algorithm, engine=engine)
    state, _ = process.next(process.initialize(), clients)

    for number, client in enumerate(clients):
        model = whole(algorithm.works[0].model(state.state, state.own[client]))
        for name in EXPECTED["shared"]:
            assert model[name].unique().tolist() == [EXPECTED["shared_after_round"]]
        for name in EXPECTED["kept_local"]:
            counted = name.endswith("num_batches_tracked")
            kept = INPUT["counters" if counted else "floats"][number]
            assert model[name].unique().tolist() == [kept]
    # The shared part alone makes a module, whose other leaves are the first ones.
    module = process.model(state).state_dict()
    assert module["conv1.weight"].unique().tolist() == [EXPECTED["shared_after_round"]]
    assert torch.equal(module["norm.running_var"], torch.ones(2))


class Mine(nn.BatchNorm1d):
    """A subclass of the user's."""


FOUND = {
    "1d": nn.BatchNorm1d(2),
    "2d": nn.BatchNorm2d(2),
    "3d": nn.BatchNorm3d(2),
    "synchronised": nn.SyncBatchNorm(2),
    "a subclass": Mine(2),
    "without scale": nn.BatchNorm1d(2, affine=False),
    "without statistics": nn.BatchNorm1d(2, track_running_stats=False),
}
OTHERS = {
    "layer": nn.LayerNorm(2),
    "group": nn.GroupNorm(1, 2),
    "instance": nn.InstanceNorm2d(2, affine=True, track_running_stats=True),
    "linear": nn.Linear(2, 2),
}


@pytest.mark.parametrize("name", ["layer", "down", "subnet_bn", "fc1"])
@pytest.mark.parametrize("found", FOUND)
def test_every_batch_normalisation_is_found_under_any_name_and_as_deep_as_it_stands(found, name):
    model = nn.ModuleDict({"bn": nn.ModuleDict(OTHERS), "deep": nn.ModuleList([nn.Sequential()])})
    model["deep"][0].add_module(name, FOUND[found])

    kept = fm.fedbn(fm.local.sgd(fm.classifier(model), lr=0.1)).works[0].personal

    assert kept == {f"deep.0.{name}.{leaf}" for leaf in FOUND[found].state_dict()}


@pytest.mark.parametrize("other", OTHERS)
def test_nothing_else_is_found_whatever_it_is_called(other):
    model = nn.ModuleDict({"bn1": OTHERS[other], "batchnorm": nn.Linear(2, 2)})

    with pytest.raises(fm.SettingsError, match="keeps batch normalisation with each client"):
        fm.fedbn(fm.local.sgd(fm.classifier(model), lr=0.1))


def test_a_type_given_to_a_run_finds_the_same_leaves():
    assert chosen(fm.classifier(Net()), nn.BatchNorm1d) == set(EXPECTED["kept_local"])
