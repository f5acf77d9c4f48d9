"""What an update gives away: read off exactly where that is possible, searched for elsewhere."""

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.audit import draw, first_layer, invert, labels_of, nearest, similarity, updates
from folkmoot.core.errors import SettingsError


@pytest.fixture(scope="module")
def images():
    """Four images of 8 x 8, each with a bar of its own."""
    found = torch.zeros(4, 1, 8, 8)
    for place in range(4):
        found[place, 0, 2 * place, 1:7] = 1.0
        found[place, 0, 1:6, place + 1] = 0.5
    return found


def model_of(*layers):
    torch.manual_seed(1)
    return fm.classifier(nn.Sequential(*(layer() for layer in layers)))


@pytest.fixture(scope="module")
def dense():
    return model_of(nn.Flatten, lambda: nn.Linear(64, 32), nn.ReLU, lambda: nn.Linear(32, 4))


def one_each(images):
    return {client: (images[[client]], torch.tensor([client])) for client in range(len(images))}


def test_the_first_layer_of_a_client_of_one_example_is_that_example(images, dense):
    sent = updates(fm.fedavg(fm.local.sgd(dense, lr=0.3)), one_each(images))

    for client, update in sent.items():
        found = first_layer(update.value["params"], "1")
        assert len(found) > 4
        # Every unit that woke shows the same image.
        assert torch.allclose(found, images[client].reshape(1, -1).expand_as(found), atol=1e-4)


def test_any_algorithms_update_can_be_read(images, dense):
    work = fm.local.sgd(dense, lr=0.3)

    for algorithm in (fm.scaffold(work), fm.fedprox(work, mu=0.1), fm.fednova(work)):
        [(_, update)] = updates(algorithm, one_each(images), asked=[2]).items()
        params = update.value.get("params", update.value.get("delta", {}))
        params = params.get("params", params)
        found = first_layer(params, "1")
        assert similarity(nearest(found, images[[2]]), images[[2]]).item() > 0.999


def test_a_unit_that_one_example_of_several_woke_shows_it(images, dense):
    together = {0: (images, torch.arange(4))}
    [update] = updates(fm.fedavg(fm.local.sgd(dense, lr=0.3, batch_size=None)), together).values()

    found = nearest(first_layer(update.value["params"], "1"), images)

    assert similarity(found, images).max() > 0.99


def test_clip_and_noise_leave_nothing_to_read(images, dense):
    sent = updates(fm.fedavg(fm.local.sgd(dense, lr=0.3)), one_each(images))
    private = (fm.codecs.clip(0.5), fm.codecs.gaussian(2.0, simulation=True))

    rule = fm.aggregators.uniform_mean(*private, divisor=4)
    released = fm.aggregate(rule, list(sent.values()), key=1)["params"]

    # The best of 32 rows of noise has a correlation of about sqrt(2 log(32) / 64) = 0.33.
    assert similarity(nearest(first_layer(released, "1"), images), images).mean() < 0.5


def test_labels_are_read_off_the_last_bias(images, dense):
    sent = updates(fm.fedavg(fm.local.sgd(dense, lr=0.3)), one_each(images))

    found = [labels_of(sent[client].value["params"], "3.bias", 1).item() for client in range(4)]

    assert found == [0, 1, 2, 3]


def test_a_search_finds_what_has_such_a_gradient(images):
    smooth = model_of(
        lambda: nn.Conv2d(1, 6, 3, padding=1),
        nn.Sigmoid,
        nn.Flatten,
        lambda: nn.Linear(6 * 64, 4),
    )
    [update] = updates(fm.fedavg(fm.local.sgd(smooth, lr=0.1)), one_each(images), [1]).values()

    found = invert(smooth, update.value["params"], torch.tensor([1]), (1, 8, 8), steps=100)

    assert similarity(found, images[[1]]).item() > 0.9


def test_a_search_moves_neither_model_nor_global_generator(images, dense):
    before = torch.get_rng_state(), [leaf.clone() for leaf in dense.model.parameters()]
    [update] = updates(fm.fedavg(fm.local.sgd(dense, lr=0.3)), one_each(images), [0]).values()

    one, two = (
        invert(dense, update.value["params"], torch.tensor([0]), (1, 8, 8), steps=3)
        for _ in range(2)
    )

    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(map(torch.equal, dense.model.parameters(), before[1]))
    assert all(leaf.grad is None for leaf in dense.model.parameters())


def test_likeness_overlooks_brightness_and_contrast(images):
    candidates = torch.cat([torch.rand(5, 64), -3 * images[[2]].flatten(1) + 7])

    found = nearest(candidates, images[[2]])

    assert similarity(found, images[[2]]).item() == pytest.approx(1.0)
    assert similarity(images[[0]], images[[0]]).item() == pytest.approx(1.0)
    assert similarity(torch.ones(1, 1, 8, 8), images[[0]]).item() == 0.0


@pytest.mark.parametrize("layer", ["0", "2", "7"])
def test_what_is_no_linear_layer_cannot_be_read(layer, images, dense):
    [update] = updates(fm.fedavg(fm.local.sgd(dense, lr=0.3)), one_each(images), [0]).values()

    with pytest.raises(SettingsError, match=f"no linear layer '{layer}' with a bias. Its leaves"):
        first_layer(update.value["params"], layer)


def test_labels_of_more_examples_than_classes_are_refused(images, dense):
    [update] = updates(fm.fedavg(fm.local.sgd(dense, lr=0.3)), one_each(images), [0]).values()

    with pytest.raises(SettingsError, match="a bias of at least 5 classes"):
        labels_of(update.value["params"], "3.bias", 5)


def test_a_client_that_sends_nothing_is_named(images):
    paired = model_of(nn.Flatten, lambda: nn.Linear(64, 4), lambda: nn.BatchNorm1d(4))

    with pytest.raises(SettingsError, match="Client 0 sends nothing: a batch of one row has no"):
        updates(fm.fedavg(fm.local.sgd(paired, lr=0.3)), one_each(images), asked=[0])


# Pictures


def test_a_picture_has_a_row_for_each_title(images, tmp_path):
    figure = draw({"digit": images, "read": images[:, 0]})

    assert [axes.get_ylabel() for axes in figure.axes][::4] == ["digit", "read"]
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_rows_of_unlike_length_are_no_picture(images):
    with pytest.raises(SettingsError, match=r"equally many images, but these are {'a': 4, 'b': 3}"):
        draw({"a": images, "b": images[1:]})
