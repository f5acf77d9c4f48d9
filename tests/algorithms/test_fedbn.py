"""FedBN: normalisation stays with its client, all else is a plain mean."""

import pytest
import torch
from torch import nn

import folkmoot as fm


def model(layer=None):
    torch.manual_seed(0)
    return nn.Sequential(layer or nn.BatchNorm1d(2), nn.Linear(2, 2))


def work_of(module=None, **options):
    given = {"lr": 0.5, "batch_size": None, **options}
    return fm.local.sgd(fm.classifier(module or model()), **given)


def client(mean, rows):
    draw = torch.Generator().manual_seed(rows)
    return {"x": mean + torch.randn(rows, 2, generator=draw), "y": torch.arange(rows) % 2}


CLIENTS = {0: client(-5.0, 4), 1: client(5.0, 12)}


def test_each_client_keeps_statistics_of_its_own_features(one_round):
    snapshot, _ = one_round(fm.fedbn(work_of(steps=3)), CLIENTS)

    assert set(snapshot.state["params"]) == {"1.weight", "1.bias"}
    for one, data in CLIENTS.items():
        kept = snapshot.own[one]["kept"]
        # Three times a tenth of the way from 0 to the mean of the only batch.
        expected = (1 - 0.9**3) * data["x"].mean(dim=0)
        torch.testing.assert_close(kept["buffers"]["0.running_mean"], expected)
        assert kept["counts"]["0.num_batches_tracked"].item() == 3
        assert not torch.equal(kept["params"]["0.weight"], torch.ones(2))


def test_clients_count_alike_whatever_their_examples(one_round):
    algorithm = fm.fedbn(work_of())

    both, _ = one_round(algorithm, CLIENTS)
    alone = [one_round(algorithm, {one: data})[0] for one, data in CLIENTS.items()]

    for name, leaf in both.state["params"].items():
        ends = [each.state["params"][name] for each in alone]
        torch.testing.assert_close(leaf, (ends[0] + ends[1]) / 2)


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.InstanceNorm1d(2, affine=True)],
    ids=lambda layer: type(layer).__name__,
)
def test_other_normalisation_stays_only_where_it_is_asked_for(layer):
    work = work_of(nn.Sequential(layer, nn.BatchNorm1d(2), nn.Linear(2, 2)))

    plain = fm.fedbn(work).works[0].personal
    asked = fm.fedbn(work, layers=[nn.BatchNorm1d, type(layer)]).works[0].personal

    assert {name.partition(".")[0] for name in plain} == {"1"}
    assert asked - plain == {"0.weight", "0.bias"}


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(2), nn.BatchNorm1d(2, affine=False, track_running_stats=False)],
    ids=["layer norm", "a batch norm without leaves"],
)
def test_a_model_without_batch_normalisation_is_refused(layer):
    with pytest.raises(fm.SettingsError, match=r"the model has none.*Use fm.fedavg\(work\)"):
        fm.fedbn(work_of(model(layer)))


def test_layers_that_are_not_there_are_refused_by_name():
    with pytest.raises(fm.SettingsError, match=r"meant by GroupNorm. Its leaves are 0.weight"):
        fm.fedbn(work_of(), layers=nn.GroupNorm)
    with pytest.raises(fm.SettingsError, match=r"fedbn\(\) needs local work"):
        fm.fedbn(model())
    with pytest.raises(fm.SettingsError, match="have one already"):
        fm.fedbn(fm.local.personal(work_of(), "1.*"))
