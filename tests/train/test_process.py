"""`fm.process`: rounds by hand, where clients have models of their own."""

import copy
import pickle

import pytest
import torch
from torch import nn

import folkmoot as fm


def rows(client, count=9):
    """Give a client examples whose labels are another client's turned around."""
    draw = torch.Generator().manual_seed(client + count)
    x = torch.randn(count, 3, generator=draw)
    return {"x": x, "y": ((x[:, 0] > 0) ^ bool(client % 2)).long()}


def process_of(algorithm, **options):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    work = fm.local.sgd(fm.classifier(model), lr=0.3, batch_size=3)
    return fm.process(algorithm(work, **options))


@pytest.fixture
def by_hand():
    process = process_of(fm.fedper, personal="1.*")
    first, _ = process.next(process.initialize(), {client: rows(client) for client in range(3)})
    return process, first


def test_a_client_s_own_model_is_asked_for_by_its_id(by_hand):
    process, first = by_hand
    second, _ = process.next(first, {1: rows(1)})

    models = {client: process.model(second, client).state_dict() for client in range(3)}

    body = process.model(second).state_dict()["0.weight"]
    assert all(torch.equal(model["0.weight"], body) for model in models.values())
    assert torch.equal(models[0]["1.weight"], first.own[0]["kept"]["params"]["1.weight"])
    assert torch.equal(models[1]["1.weight"], second.own[1]["kept"]["params"]["1.weight"])
    assert not torch.equal(models[1]["1.weight"], first.own[1]["kept"]["params"]["1.weight"])


def test_a_client_that_was_never_asked_has_what_it_would_begin_with(by_hand):
    process, first = by_hand

    new, begun = process.model(first, "new"), process.model(process.initialize())

    assert torch.equal(new[1].weight, begun[1].weight)
    assert torch.equal(new[0].weight, process.model(first)[0].weight)


def test_a_client_without_a_model_of_its_own_has_the_global_one():
    process = process_of(fm.fedavg)
    state, _ = process.next(process.initialize(), [rows(0)])

    assert torch.equal(process.model(state, 0)[0].weight, process.model(state)[0].weight)


def test_a_client_s_own_model_is_judged_on_any_examples(by_hand):
    process, first = by_hand
    held = rows(1, 40)

    found = process.evaluate(first, held, client=1)

    outputs = process.model(first, 1)(held["x"])
    assert found["accuracy"] == (outputs.argmax(1) == held["y"]).double().mean()
    assert found != process.evaluate(first, held, client=0)


def test_where_leaves_are_personal_there_is_no_global_model_to_judge(by_hand):
    process, first = by_hand

    with pytest.raises(fm.SettingsError, match=r"1.weight.* stay.* with each client.*client="):
        process.evaluate(first, rows(1))


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_of_a_state_goes_on_with_the_same_bits(by_hand, copied):
    process, first = by_hand
    data = {client: rows(client) for client in range(2)}

    one, _ = process.next(first, data)
    other, _ = process.next(copied(first), data)

    for client in range(3):
        pairs = (process.model(state, client).state_dict().values() for state in (one, other))
        assert all(map(torch.equal, *pairs))


def test_weights_leave_as_arrays_by_name_and_go_into_a_model_that_was_built_alike(by_hand):
    process, first = by_hand
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))

    weights = process.get_model_weights(first, client=1)
    weights.assign_weights_to(other)

    expected = process.model(first, 1).state_dict()
    assert [*weights] == [*expected]
    assert all(torch.equal(leaf, expected[name]) for name, leaf in other.state_dict().items())
    assert (weights["1.bias"] != process.get_model_weights(first)["1.bias"]).any()


def test_weights_of_another_model_are_refused_and_leave_it_as_it_was(by_hand):
    process, first = by_hand
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    before = copy.deepcopy(other.state_dict())

    with pytest.raises(fm.SettingsError, match=r"1.weight of shape \(3, 4\) for \(2, 4\)"):
        process.get_model_weights(first).assign_weights_to(other)

    assert all(torch.equal(leaf, before[name]) for name, leaf in other.state_dict().items())
