"""Keras models are trained as PyTorch models are: the same updates, the same bits, nothing lost."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot import adapters
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch

keras = pytest.importorskip("keras")
layers = keras.layers

CROSS_ENTROPY = "sparse_categorical_crossentropy"


def builder(*inner, loss=CROSS_ENTROPY, metrics=("accuracy",), shape=(6,)):
    """Return a model_fn: the layers, made anew each time, between an input and three classes."""

    def build():
        made = [layer() for layer in inner]
        last = layers.Dense(3, activation="softmax")
        model = keras.Sequential([keras.Input(shape), *made, last])
        model.compile(loss=loss, metrics=list(metrics))
        return model

    return build


def dense():
    return layers.Dense(5, activation="relu")


def rows(client, count=None):
    draw = torch.Generator().manual_seed(client)
    count = count or 12 + client
    return torch.randn(count, 6, generator=draw), torch.randint(0, 3, (count,), generator=draw)


@pytest.fixture
def clients():
    return {client: rows(client) for client in range(4)}


@pytest.fixture(autouse=True)
def same_first_weights():
    random.seed(0)


def batch(x, y, key=0):
    return Batch({"x": x, "y": y}, None, torch.tensor(key), 0)


def gradient(objective, data, key=0):
    state = objective.init()
    return objective.grad(state["params"], state["buffers"], state["counts"], batch(*data, key))[0]


def twin_of(objective):
    """Build the same in PyTorch, whose kernels are transposed, with the same weights."""
    first, first_bias, last, last_bias = objective.weights(objective.init())
    model = nn.Sequential(nn.Linear(*first.shape), nn.ReLU(), nn.Linear(*last.shape))
    pairs = [(model[0], first, first_bias), (model[2], last, last_bias)]
    with torch.no_grad():
        for layer, kernel, bias in pairs:
            layer.weight.copy_(torch.as_tensor(kernel.T))
            layer.bias.copy_(torch.as_tensor(bias))
    return model


def test_zeroed_parameters_change_the_outputs():
    module = adapters.keras(builder(dense)).model
    zeros = {name: torch.zeros_like(leaf) for name, leaf in module.named_parameters()}
    x, _ = rows(0)

    outputs = torch.func.functional_call(module, zeros, (x,))

    assert torch.allclose(outputs, torch.full((12, 3), 1 / 3))
    assert not torch.allclose(module(x), outputs)


def test_every_weight_travels_once_under_the_name_of_its_layer():
    state = adapters.keras(builder(dense, layers.BatchNormalization)).init()

    norm = [f"batch_normalization.{name}" for name in ("gamma", "beta")]
    assert [*state["params"]] == [
        "dense.kernel",
        "dense.bias",
        *norm,
        "dense_1.kernel",
        "dense_1.bias",
    ]
    assert [*state["buffers"]] == [
        "batch_normalization.moving_mean",
        "batch_normalization.moving_variance",
    ]
    assert not state["counts"]


def test_a_second_model_has_the_names_of_the_first():
    first, second = adapters.keras(builder(dense)), adapters.keras(builder(dense))

    assert [*first.init()["params"]] == [*second.init()["params"]]


def test_a_round_updates_as_the_equal_model_in_pytorch_does(clients):
    objective = adapters.keras(builder(dense))
    twin = fm.objective(twin_of(objective), lambda o, y: nn.functional.cross_entropy(o, y))

    processes = [
        fm.process(fm.fedavg(fm.local.sgd(each, lr=0.2, epochs=2, batch_size=5)), seed=3)
        for each in (objective, twin)
    ]
    states = [process.next(process.initialize(), clients)[0] for process in processes]

    ours, theirs = (
        process.get_model_weights(state) for process, state in zip(processes, states, strict=True)
    )
    for found, expected in zip(ours, theirs.values(), strict=True):
        np.testing.assert_allclose(found, expected.T, rtol=0, atol=1e-5)
    before = objective.weights(objective.init())
    assert max(abs(found - old).max() for found, old in zip(ours, before, strict=True)) > 0.01


def test_moving_statistics_are_averaged_over_clients_by_their_rows():
    build = builder(lambda: layers.BatchNormalization(momentum=0.9), loss="mse", metrics=())
    objective = adapters.keras(build)
    data = {
        client: (rows(client, count)[0], torch.zeros(count, 3))
        for client, count in ((0, 10), (1, 30))
    }
    process = fm.process(fm.fedavg(fm.local.sgd(objective, lr=0.1, batch_size=None)))

    state, _ = process.next(process.initialize(), data)

    # One step each: 0.9 * 0 + 0.1 * the client's mean; then weights 10 and 30.
    means = [0.1 * x.mean(dim=0) for x, _ in data.values()]
    found = state.state["buffers"]["batch_normalization.moving_mean"]
    torch.testing.assert_close(found, (10 * means[0] + 30 * means[1]) / 40)


def test_what_a_regulariser_adds_is_trained_on():
    plain = gradient(adapters.keras(builder(dense)), rows(0))
    random.seed(0)
    held_back = builder(lambda: layers.Dense(5, activation="relu", kernel_regularizer="l2"))
    objective = adapters.keras(held_back)

    found = gradient(objective, rows(0))

    kernel = objective.init()["params"]["dense.kernel"]
    expected = plain["dense.kernel"] + 2 * 0.01 * kernel  # Keras' "l2" is 0.01 w^2.
    torch.testing.assert_close(found["dense.kernel"], expected)
    torch.testing.assert_close(found["dense_1.kernel"], plain["dense_1.kernel"])


def test_a_layer_that_is_not_trained_stays_and_does_not_travel(clients):
    def build():
        model = builder(dense, layers.BatchNormalization)()
        model.layers[0].trainable = model.layers[1].trainable = False
        return model

    objective = adapters.keras(build)

    result = fm.run(fm.fedavg(fm.local.sgd(objective, lr=0.1)), clients, rounds=1, progress=False)

    first, last = objective.model.state_dict(), result.model.state_dict()
    assert [*objective.init()["params"]] == ["dense_1.kernel", "dense_1.bias"]
    assert not objective.init()["buffers"] and not objective.needs_pairs
    assert all(torch.equal(first[name], last[name]) for name in first if "dense_1" not in name)
    assert not torch.equal(first["dense_1.kernel"], last["dense_1.kernel"])


RANDOM = {
    "dropout": lambda: layers.Dropout(0.5),
    "dropout with a seed": lambda: layers.Dropout(0.5, seed=1),
    "noise": lambda: layers.GaussianNoise(1.0),
}


@pytest.mark.parametrize("layer", RANDOM.values(), ids=RANDOM)
def test_random_layers_draw_from_the_step_s_key_alone(layer):
    objective = adapters.keras(builder(dense, layer))

    first, again, other = (gradient(objective, rows(0), key) for key in (1, 1, 2))

    assert trees.norm(trees.sub(first, again)) == 0
    assert trees.norm(trees.sub(first, other)) > 0.01


def test_two_workers_give_the_bits_of_one(clients):
    objective = adapters.keras(builder(dense, *RANDOM.values(), layers.BatchNormalization))
    algorithm = fm.fedavg(fm.local.sgd(objective, lr=0.1, batch_size=4))

    one, two = (
        fm.run(algorithm, clients, rounds=2, progress=False, engine=engine)
        for engine in (fm.engines.sequential(), fm.engines.parallel(2))
    )

    pairs = zip(one.state_dict.values(), two.state_dict.values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_threads_have_layers_of_their_own_and_give_the_same_bits(clients):
    objective = adapters.keras(
        builder(lambda: layers.Reshape((3, 2)), lambda: layers.LSTM(4, dropout=0.3))
    )
    algorithm = fm.fedavg(fm.local.sgd(objective, lr=0.1, batch_size=4))

    one, two = (
        fm.run(algorithm, clients, rounds=1, progress=False, engine=engine)
        for engine in (fm.engines.sequential(), fm.engines.parallel(2, threads=True))
    )

    assert two.settings["engine"] == "parallel (2 threads)"
    pairs = zip(one.state_dict.values(), two.state_dict.values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_mapped_over_clients_it_trains_as_one_after_another(clients):
    objective = adapters.keras(builder(dense, layers.BatchNormalization, RANDOM["dropout"]))
    algorithm = fm.fedavg(fm.local.sgd(objective, lr=0.1, batch_size=4))

    single, mapped = (
        fm.run(algorithm, clients, rounds=1, progress=False, engine=engine).state
        for engine in (fm.engines.sequential(), fm.engines.vectorized())
    )

    update = trees.norm(trees.sub(single["params"], objective.init()["params"]))
    for part in ("params", "buffers"):
        assert trees.norm(trees.sub(single[part], mapped[part])) <= 1e-5 * update


def test_secure_sums_and_privacy_move_a_keras_model_as_plain_rounds_do(clients):
    work = fm.local.sgd(adapters.keras(builder(dense, layers.BatchNormalization)), lr=0.1)
    uniform = fm.fedavg(work, aggregator=fm.aggregators.uniform_mean())
    promise = fm.DP(noise_multiplier=1e-6, clip=10.0, delta=1e-2, simulation=True)
    processes = [
        fm.process(uniform),
        fm.process(uniform, secure=True),
        fm.process(fm.fedavg(work), privacy=promise, cohort=4, rounds=1),
    ]

    plain, secure, private = (
        process.next(process.initialize(), clients)[0].state["params"] for process in processes
    )

    update = trees.norm(trees.sub(plain, work.init()["params"]))
    # Secure sums are of whole numbers of steps of a grid.
    assert trees.norm(trees.sub(secure, plain)) <= 0.05 * update
    assert trees.norm(trees.sub(private, plain)) <= 0.01 * update


def test_example_level_privacy_refuses_batch_statistics_by_the_layer_s_name():
    objective = adapters.keras(builder(dense, layers.BatchNormalization))

    with pytest.raises(fm.SettingsError, match="'batch_normalization' normalises by the stat"):
        fm.local.dpsgd(fm.local.sgd(objective, lr=0.1), clip=1.0, noise_multiplier=1.0)


def test_weights_go_back_into_a_keras_model_in_its_own_order(clients):
    build = builder(dense, layers.BatchNormalization)
    process = fm.process(fm.fedavg(fm.local.sgd(adapters.keras(build), lr=0.1)))
    state, _ = process.next(process.initialize(), clients)
    theirs = build()
    x, _ = rows(0)

    process.get_model_weights(state).assign_weights_to(theirs)

    model = process.model(state)
    torch.testing.assert_close(theirs(x, training=False), model(x), rtol=0, atol=1e-6)
    made = model.to_keras()
    pairs = zip(made.get_weights(), model.get_weights(), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)
    assert made.loss == CROSS_ENTROPY


def test_weights_of_another_model_are_refused():
    objective = adapters.keras(builder(dense))
    theirs = builder(lambda: layers.Dense(4))()

    with pytest.raises(fm.SettingsError, match=r"\(6, 4\).*but these are \(6, 5\)"):
        objective.weights(objective.init()).assign_weights_to(theirs)


def test_a_result_is_read_back_into_the_model(clients, tmp_path):
    objective = adapters.keras(builder(dense))
    work = fm.local.sgd(objective, lr=0.1)
    result = fm.run(fm.fedavg(work), clients, rounds=1, save=tmp_path / "a", progress=False)

    read = fm.load_result(tmp_path / "a", model=copy.deepcopy(objective.model))

    x, _ = rows(0)
    assert torch.equal(read.model.eval()(x), result.model(x))


def test_inputs_are_given_by_name():
    def build():
        left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
        joined = layers.Concatenate()([left, right])
        return keras.Model({"left": left, "right": right}, layers.Dense(1)(joined))

    objective = adapters.keras(build, loss="mse")
    data = {"left": torch.ones(4, 2), "right": torch.ones(4, 3), "y": torch.zeros(4)}
    state = objective.init()
    kernel = state["params"]["dense.kernel"]

    _, loss = objective.grad(state["params"], {}, {}, Batch(data, None, torch.tensor(0), 0))

    torch.testing.assert_close(loss, kernel.sum().square())


def test_a_copy_of_a_model_draws_from_nobody_s_generator():
    module = adapters.keras(builder(dense)).model
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()

    copy.deepcopy(module)

    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_model_in_place_of_a_function_is_copied_and_stays_as_it_was(clients):
    model = builder(dense)()
    before = [weight.copy() for weight in model.get_weights()]

    result = fm.run(
        fm.fedavg(fm.local.sgd(adapters.keras(model), lr=0.1)), clients, rounds=1, progress=False
    )

    assert all(map(np.array_equal, model.get_weights(), before))
    assert not np.array_equal(result.model.get_weights()[0], before[0])
