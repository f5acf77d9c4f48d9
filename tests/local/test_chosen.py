"""Which leaves a pattern, a type or a predicate means."""

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.local.chosen import chosen


class Net(nn.Module):
    """Two layers of one type, normalisation under an odd name, tied and frozen weights."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(2, 2), nn.Linear(2, 2)
        self.head.weight = self.body.weight
        self.down = nn.ModuleList([nn.BatchNorm1d(2)])
        self.still = nn.Linear(2, 2).requires_grad_(False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("lost", torch.zeros(2), persistent=False)


NORM = {
    "down.0.weight",
    "down.0.bias",
    "down.0.running_mean",
    "down.0.running_var",
    "down.0.num_batches_tracked",
}
EVERY = {"body.weight", "body.bias", "head.bias", *NORM, "seen"}


@pytest.mark.parametrize(
    ("keep", "meant"),
    [
        ("body.bias", {"body.bias"}),
        ("*.bias", {"body.bias", "head.bias", "down.0.bias"}),
        ("down.?.running_*", {"down.0.running_mean", "down.0.running_var"}),
        ("seen", {"seen"}),
        ("*", EVERY),
        # A tied leaf goes by both of its names.
        ("head.*", {"body.weight", "head.bias"}),
        (nn.Linear, {"body.weight", "body.bias", "head.bias"}),
        (nn.BatchNorm1d, NORM),
        (nn.modules.batchnorm._BatchNorm, NORM),
        (nn.ModuleList, NORM),
        (nn.Module, EVERY),
        (lambda name: "running" in name, {"down.0.running_mean", "down.0.running_var"}),
        (lambda name: name == "head.weight", {"body.weight"}),
        (["head.bias", "seen"], {"head.bias", "seen"}),
        (("head.bias", nn.BatchNorm1d), {"head.bias", *NORM}),
        ({"head.bias", "seen"}, {"head.bias", "seen"}),
    ],
)
def test_leaves_are_meant_by_pattern_type_predicate_or_several_of_them(keep, meant):
    assert chosen(fm.classifier(Net()), keep) == meant


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ("Head.*", r"No leaf of the model is meant by 'Head\.\*'. Its leaves are body.weight, bo"),
        ("head", "meant by 'head'"),
        ("still.*", "meant by 'still"),
        ("lost", "meant by 'lost'"),
        (nn.LayerNorm, "meant by LayerNorm"),
        (int, "meant by int"),
        (["body.*", "tail.*"], "meant by 'tail"),
        (lambda name: False, "meant by <lambda>"),
        ([], "An empty list names no leaf"),
        (3, "but one is 3"),
        (nn.Linear(2, 2), "but one is Linear"),
    ],
)
def test_what_means_no_leaf_is_refused_with_the_leaves_that_there_are(keep, said):
    with pytest.raises(fm.SettingsError, match=said):
        chosen(fm.classifier(Net()), keep)


def test_a_layer_that_stands_in_two_places_goes_by_both():
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.Sequential(layer), nn.Linear(2, 2))

    assert chosen(fm.classifier(model), "1.*") == {"0.weight", "0.bias"}


def test_the_leaves_of_an_objective_without_a_module_go_by_pattern_and_predicate():
    class Own:
        def init(self):
            leaf = torch.zeros(1)
            return {"params": {"a.x": leaf, "b.x": leaf}, "buffers": {}, "counts": {}}

    assert chosen(Own(), ["a.*"]) == {"a.x"}
    assert chosen(Own(), lambda name: name > "b") == {"b.x"}
    with pytest.raises(fm.SettingsError, match=r"meant by Linear. Its leaves are a.x, b.x"):
        chosen(Own(), nn.Linear)


def test_every_leaf_of_a_model_is_meant_by_a_star():
    objective = fm.classifier(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))

    named = {path[-1] for path, _ in trees.items(objective.init())}

    assert chosen(objective, "*") == named
