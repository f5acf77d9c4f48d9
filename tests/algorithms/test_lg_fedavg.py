"""LG-FedAvg: what is named is averaged, and all else stays, statistics too."""

import pytest
import torch
from torch import nn

import folkmoot as fm


class Net(nn.Module):
    def __init__(self, tied=False):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.norm, self.head = nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)
        if tied:
            self.head.weight = self.body.weight

    def forward(self, x):
        return self.head(self.norm(self.body(x)))


def work_of(tied=False):
    return fm.local.sgd(fm.classifier(Net(tied)), lr=0.5, batch_size=None)


def client(number, rows):
    draw = torch.Generator().manual_seed(number)
    return {"x": torch.randn(rows, 2, generator=draw), "y": torch.arange(rows) % 2}


def test_the_head_is_averaged_by_examples_and_all_else_stays(one_round):
    clients = {0: client(0, 3), 1: client(1, 9)}
    algorithm = fm.lg_fedavg(work_of(), shared="head.*")

    snapshot, _ = one_round(algorithm, clients)
    alone = [one_round(algorithm, {one: data})[0] for one, data in clients.items()]

    assert set(snapshot.state["params"]) == {"head.weight", "head.bias"}
    assert snapshot.state["buffers"] == snapshot.state["counts"] == {}
    for name, leaf in snapshot.state["params"].items():
        ends = [each.state["params"][name] for each in alone]
        torch.testing.assert_close(leaf, (3 * ends[0] + 9 * ends[1]) / 12)
    for one, each in enumerate(alone):
        mine, without_others = snapshot.own[one]["kept"], each.own[one]["kept"]
        assert set(mine["params"]) == {"body.weight", "body.bias", "norm.weight", "norm.bias"}
        assert set(mine["buffers"]) == {"norm.running_mean", "norm.running_var"}
        for part, leaves in mine.items():
            assert all(
                torch.equal(leaf, without_others[part][name]) for name, leaf in leaves.items()
            )


def test_a_tied_leaf_is_shared_if_one_of_its_names_is():
    algorithm = fm.lg_fedavg(work_of(tied=True), shared="head.*")

    assert set(algorithm.init()["params"]) == {"body.weight", "head.bias"}


def test_it_is_fedper_with_the_other_leaves_named(one_round):
    clients = {0: client(0, 3), 1: client(1, 9)}

    there, _ = one_round(fm.lg_fedavg(work_of(), shared="head.*"), clients)
    back, _ = one_round(fm.fedper(work_of(), personal=["body.*", "norm.*"]), clients)

    for name, leaf in there.state["params"].items():
        assert torch.equal(back.state["params"][name], leaf)


def test_what_shares_nothing_or_all_is_refused():
    with pytest.raises(fm.SettingsError, match=r"leaves nothing with the clients.*fm.fedavg"):
        fm.lg_fedavg(work_of(), shared="*")
    with pytest.raises(fm.SettingsError, match=r"meant by 'tail.\*'. Its leaves are body.weight"):
        fm.lg_fedavg(work_of(), shared="tail.*")
    with pytest.raises(fm.SettingsError, match=r"lg_fedavg\(\) needs local work"):
        fm.lg_fedavg(Net(), shared="head.*")
    with pytest.raises(fm.SettingsError, match="have one already"):
        fm.lg_fedavg(fm.local.personal(work_of(), "norm.*"), shared="head.*")
