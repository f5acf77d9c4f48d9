"""A module as functions of trees: what travels, what stays, what is left alone."""

import copy
import math

import pytest
import torch
from torch import nn, tensor
from torch.nn import functional as F

import folkmoot as fm
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError

KEY = rng.as_tensor(5)


def batch(data, key=KEY, weight=None):
    return fm.Batch(data, weight, key, 0)


def gradient_of(objective, data, key=KEY, state=None):
    state = state or objective.init()
    return objective.grad(state["params"], state["buffers"], state["counts"], batch(data, key))


def measured(objective, data, state=None):
    state = state or objective.init()
    one = batch(data)
    return objective.measure(state["params"], state["buffers"], state["counts"], one)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# What travels


def test_only_what_is_trained_and_what_is_kept_travels():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    model.register_buffer("scratch", torch.zeros(1), persistent=False)
    model.register_buffer("flags", tensor([True, False]))

    state = fm.regressor(model).init()

    assert list(state["params"]) == ["1.weight", "1.bias", "2.weight", "2.bias"]
    assert list(state["buffers"]) == ["1.running_mean", "1.running_var"]
    assert set(state["counts"]) == {"flags", "1.num_batches_tracked"}
    assert state["counts"]["flags"].dtype == torch.bool


def test_frozen_parameters_stay_as_they_are_through_a_run():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    work = fm.local.sgd(fm.regressor(model), lr=0.1)
    client = {"x": normal(4, 2), "y": normal(4, 1, seed=1)}

    result = fm.run(fm.fedavg(work), [client], rounds=2, progress=False, workers=1)

    assert torch.equal(result.model[0].weight, model[0].weight)
    assert not result.model[0].weight.requires_grad
    assert not torch.equal(result.model[1].weight, model[1].weight)


def tied():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    model[2].weight = model[0].weight
    return model


def test_a_tied_weight_travels_once_and_its_gradient_adds_up_both_uses():
    model, data = tied(), {"x": normal(4, 3), "y": normal(4, 3, seed=1)}
    objective = fm.regressor(model)

    gradient, _ = gradient_of(objective, data)

    F.mse_loss(model(data["x"]), data["y"]).backward()
    assert list(gradient) == ["0.weight"]
    torch.testing.assert_close(gradient["0.weight"], model[0].weight.grad)


def test_a_tied_weight_is_still_tied_in_what_comes_back():
    objective = fm.regressor(tied())

    module = objective.module({"params": {"0.weight": torch.full((3, 3), 2.0)}})

    assert module[0].weight is module[2].weight
    assert module[2].weight[0, 0].item() == 2.0


def test_a_tied_weight_that_is_frozen_stays():
    model = nn.Sequential(tied(), nn.Linear(3, 1))
    model[0][0].weight.requires_grad_(False)

    objective = fm.regressor(model)

    assert list(objective.init()["params"]) == ["1.weight", "1.bias"]
    module = objective.module(objective.init())
    assert module[0][0].weight is module[0][2].weight


def test_the_user_s_module_stays_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[1].eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    work = fm.local.sgd(fm.classifier(model), lr=0.5)
    client = {"x": normal(6, 3), "y": tensor([0, 1, 0, 1, 0, 1])}

    fm.run(fm.fedavg(work), [client], rounds=2, test=client, progress=False, workers=1)

    assert all(torch.equal(leaf, before[name]) for name, leaf in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert all(leaf.grad is None and leaf.requires_grad for leaf in model.parameters())


def test_changing_the_user_s_module_later_changes_nothing():
    model = nn.Linear(1, 1)
    objective = fm.regressor(model)
    begun = objective.init()["params"]["weight"].clone()

    with torch.no_grad():
        model.weight.add_(1.0)

    assert torch.equal(objective.init()["params"]["weight"], begun)


def test_the_state_is_a_copy():
    objective = fm.regressor(nn.Linear(1, 1))

    objective.init()["params"]["weight"].add_(1.0)
    objective.module(objective.init()).weight.data.add_(1.0)

    assert torch.equal(objective.init()["params"]["weight"], objective.model.weight)


# Gradients


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_the_gradient_is_pytorch_s_and_the_params_are_left_alone():
    data = {"x": normal(5, 3), "y": tensor([0, 1, 1, 0, 1])}
    objective, model = fm.classifier(mlp()), mlp()
    state = objective.init()

    gradient, loss = gradient_of(objective, data, state=state)

    expected = F.cross_entropy(model(data["x"]), data["y"])
    expected.backward()
    assert loss.item() == expected.item()
    assert not loss.requires_grad
    for name, leaf in model.named_parameters():
        assert torch.equal(gradient[name], leaf.grad)
        assert torch.equal(state["params"][name], leaf)
        assert not state["params"][name].requires_grad


def test_params_that_are_written_in_place_are_seen_and_new_ones_are_too():
    data = {"x": normal(5, 3), "y": tensor([0, 1, 1, 0, 1])}
    objective = fm.classifier(mlp())
    state, model = objective.init(), mlp()

    for replace in (False, True, False):
        gradient_of(objective, data, state=state)
        if replace:
            state["params"] = trees.clone(state["params"])
        for leaf in trees.leaves(state["params"]):
            leaf.mul_(0.5)
        measured(objective, data, state=state)
        gradient, _ = gradient_of(objective, data, state=state)

        with torch.no_grad():
            for leaf in model.parameters():
                leaf.mul_(0.5)
        model.zero_grad()
        F.cross_entropy(model(data["x"]), data["y"]).backward()
        for name, leaf in model.named_parameters():
            assert torch.equal(gradient[name], leaf.grad)


def test_a_parameter_that_is_not_used_has_a_gradient_of_zeros():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(1, 1), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    gradient, _ = gradient_of(fm.regressor(Half()), {"x": normal(3, 1), "y": normal(3, 1)})

    assert gradient["idle.weight"].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert gradient["idle.bias"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru", "attention", "weight norm"])
def test_layers_with_ways_of_their_own_have_pytorch_s_gradient(kind):
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.kind = kind
            if kind == "attention":
                self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
            elif kind == "weight norm":
                self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
            else:
                build = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind]
                self.layer = build(4, 4, batch_first=True)
            self.head = nn.Linear(4, 1)

        def forward(self, x):
            out = self.layer(x)
            return self.head((out[0] if isinstance(out, tuple) else out).mean(dim=1))

    torch.manual_seed(0)
    model, data = Sequence(), {"x": normal(3, 5, 4), "y": normal(3, 1, seed=1)}
    objective = fm.regressor(model)
    state = objective.init()
    for leaf in trees.leaves(state["params"]):
        leaf.mul_(0.5)

    gradient, _ = gradient_of(objective, data, state=state)
    loss = measured(objective, data, state=state)["loss"]

    reference = objective.module(state).train()
    expected = F.mse_loss(reference(data["x"]), data["y"])
    expected.backward()
    assert set(gradient) == {name for name, _ in reference.named_parameters()}
    for name, leaf in reference.named_parameters():
        torch.testing.assert_close(gradient[name], leaf.grad)
    assert loss.tolist() == pytest.approx([3 * expected.item(), 3], rel=1e-5)


def test_rows_of_weight_zero_do_not_count():
    objective = fm.regressor(nn.Linear(2, 1))
    real = {"x": normal(3, 2), "y": normal(3, 1, seed=1)}
    padded = {
        name: torch.cat([leaf, torch.full_like(leaf[:2], 9.0)]) for name, leaf in real.items()
    }
    weight = tensor([1 / 3, 1 / 3, 1 / 3, 0.0, 0.0])
    state = objective.init()

    found, loss = objective.grad(state["params"], {}, {}, batch(padded, weight=weight))

    expected, mean = gradient_of(objective, real, state=state)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(loss, mean)
    sums = objective.measure(state["params"], {}, {}, batch(padded, weight=weight))
    torch.testing.assert_close(sums, measured(objective, real, state=state))


@pytest.mark.parametrize("loss", [F.mse_loss, nn.MSELoss(), lambda o, t: (o - t).square().mean(1)])
def test_a_loss_may_be_a_mean_or_one_value_a_row(loss):
    model, data = nn.Linear(2, 3), {"x": normal(4, 2), "y": normal(4, 3, seed=1)}

    objective = fm.objective(model, loss)
    gradient, value = gradient_of(objective, data)

    expected = F.mse_loss(model(data["x"]), data["y"])
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(gradient["weight"], model.weight.grad)
    sums = measured(objective, data)["loss"]
    assert sums.tolist() == pytest.approx([4 * expected.item(), 4], rel=1e-6)


def test_bfloat16_gradients_are_near_and_their_dtype_is_the_parameter_s():
    objective = fm.classifier(mlp())
    data = {"x": normal(5, 3), "y": tensor([0, 1, 1, 0, 1])}
    fine, _ = gradient_of(objective, data)

    coarse, _ = gradient_of(objective.with_precision("bf16"), data)

    distance = trees.norm(trees.sub(fine, coarse)) / trees.norm(fine)
    assert 0 < distance < 0.02  # bfloat16 keeps 8 bits
    assert all(leaf.dtype == torch.float32 for leaf in trees.leaves(coarse))
    assert objective.with_precision("float32") is objective
    assert objective.with_precision("bf16") is objective.with_precision("bf16")
    with pytest.raises(SettingsError, match="'fp16'"):
        objective.with_precision("fp16")


# Inputs


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(tensor([2.0]))

    def forward(self, a, b):
        return (10 * a + b) * self.w


def test_several_inputs_are_given_by_keyword_in_whatever_order():
    objective = fm.objective(Sum(), lambda outputs, targets: (outputs - targets).reshape(-1))

    for data in (
        {"b": tensor([[1.0]]), "a": tensor([[3.0]]), "y": tensor([[4.0]])},
        {"x": {"b": tensor([[1.0]]), "a": tensor([[3.0]])}, "y": tensor([[4.0]])},
    ):
        gradient, loss = gradient_of(objective, data)
        assert (loss.item(), gradient["w"].item()) == (31.0 * 2 - 4, 31.0)


def test_the_target_may_have_another_name_or_be_the_input():
    named = fm.objective(nn.Linear(2, 1), lambda o, t: o.sum(1) - t, target="label")
    twin = fm.objective(nn.Linear(2, 2), lambda o, t: (o - t).square().mean(1), target=None)
    x = normal(3, 2)

    _, loss = gradient_of(named, {"x": x, "label": tensor([1.0, 2.0, 3.0])})
    _, error = gradient_of(twin, {"x": x, "y": tensor([0, 1, 2])})

    assert loss.item() == pytest.approx((named.model(x).sum(1) - tensor([1, 2, 3])).mean().item())
    assert error.item() == pytest.approx(F.mse_loss(twin.model(x), x).item())


# Batch statistics


def test_a_training_pass_moves_running_statistics_as_pytorch_does_and_evaluation_does_not():
    objective = fm.regressor(nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1)))
    data = {"x": tensor([[1.0, 0.0], [3.0, 4.0]]), "y": tensor([[0.0], [1.0]])}
    state = objective.init()

    gradient_of(objective, data, state=state)
    trained = trees.clone(state)
    measured(objective, data, state=state)

    # 0.9 * 0 + 0.1 * (2, 2); 0.9 * 1 + 0.1 * (2, 8), the unbiased variances.
    assert state["buffers"]["0.running_mean"].tolist() == pytest.approx([0.2, 0.2])
    assert state["buffers"]["0.running_var"].tolist() == pytest.approx([1.1, 1.7])
    assert state["counts"]["0.num_batches_tracked"].item() == 1
    assert all(map(torch.equal, trees.leaves(state), trees.leaves(trained)))


def test_evaluation_reads_the_statistics_that_it_is_given():
    model = nn.BatchNorm1d(1, affine=True)
    objective = fm.objective(model, lambda o, _: o.reshape(-1), target=None)
    state = objective.init()
    state["buffers"] = {"running_mean": tensor([1.0]), "running_var": tensor([4.0 - 1e-5])}

    sums = measured(objective, {"x": tensor([[5.0], [3.0]])}, state=state)

    assert sums["loss"].tolist() == pytest.approx([(5 - 1) / 2 + (3 - 1) / 2, 2])


def test_a_layer_left_in_eval_mode_trains_the_same_before_and_after_an_evaluation():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model[1].eval()
    objective, data = fm.regressor(model), {"x": normal(4, 2), "y": normal(4, 1)}

    first, _ = gradient_of(objective, data)
    measured(objective, data)
    second, _ = gradient_of(objective, data)

    assert all(map(torch.equal, trees.leaves(first), trees.leaves(second)))


@pytest.mark.parametrize(
    ("layer", "needs"),
    [
        (nn.BatchNorm1d(2), True),
        (nn.BatchNorm2d(2), True),
        (nn.BatchNorm3d(2), True),
        (nn.SyncBatchNorm(2), True),
        (nn.BatchNorm1d(2, track_running_stats=False), True),
        (nn.InstanceNorm1d(2, affine=True), False),  # One row has statistics of its own.
        (nn.InstanceNorm2d(2, track_running_stats=True), False),
        (nn.LayerNorm(2), False),
        (nn.GroupNorm(1, 2), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_batch_statistics_need_two_rows(layer, needs):
    assert fm.regressor(nn.Sequential(nn.Linear(2, 2), nn.Sequential(layer))).needs_pairs is needs


# Randomness


class Drops(nn.Module):
    """Give dropout(x * w): the gradient of w shows the mask."""

    def __init__(self, size, *layers):
        super().__init__()
        self.w = nn.Parameter(torch.ones(size))
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return torch.stack([layer(x * self.w) for layer in self.layers]).sum(dim=0)


def masks(layers, size, key=KEY, rows=1, objective=None):
    shape = size if isinstance(size, tuple) else (size,)
    objective = objective or fm.objective(
        Drops(size, *layers), lambda outputs, _: outputs.flatten(1).sum(1), target=None
    )
    gradient, _ = gradient_of(objective, {"x": torch.ones(rows, *shape)}, key=key)
    return gradient["w"], objective


def test_a_key_gives_the_same_mask_each_time_and_another_key_another_one():
    first, objective = masks([nn.Dropout(0.5)], 1_000)

    again, _ = masks(None, 1_000, objective=objective)
    other, _ = masks(None, 1_000, key=rng.as_tensor(6), objective=objective)
    anew, _ = masks([nn.Dropout(0.5)], 1_000)

    assert torch.equal(first, again)
    assert torch.equal(first, anew)
    # Independent fair masks agree on half of 1,000 places, give or take four deviations.
    assert abs((first == other).double().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(1_000)


@pytest.mark.parametrize("drop", [0.1, 0.3, 0.8])
def test_dropout_keeps_its_share_and_scales_what_it_keeps(drop):
    mask, _ = masks([nn.Dropout(drop)], 40_000)

    assert set(mask.tolist()) == {0.0, (tensor(1.0) / (1 - drop)).item()}
    deviation = math.sqrt(drop * (1 - drop) / 40_000)
    assert abs((mask > 0).double().mean().item() - (1 - drop)) < 4 * deviation


@pytest.mark.parametrize(("drop", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_dropping_nothing_or_everything_is_exact(drop, expected):
    mask, _ = masks([nn.Dropout(drop)], 7)

    assert mask.tolist() == [expected] * 7


def test_two_calls_in_one_step_have_masks_of_their_own():
    both, _ = masks([nn.Dropout(0.5), nn.Dropout(0.5)], 4_000)

    shares = [(both == value).double().mean().item() for value in (0.0, 2.0, 4.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


def test_dropout2d_drops_whole_channels():
    mask, _ = masks([nn.Dropout2d(0.5)], (200, 3, 2))

    channels = mask.flatten(1)
    assert all(len(set(channel)) == 1 for channel in channels.tolist())
    assert abs((channels[:, 0] > 0).double().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(200)


def test_evaluation_drops_nothing():
    objective = fm.objective(
        Drops(3, nn.Dropout(0.9)), lambda outputs, _: outputs.sum(1), target=None
    )

    assert measured(objective, {"x": torch.ones(2, 3)})["loss"].tolist() == [6.0, 2.0]


class Noisy(nn.Module):
    """Draw from the default generator, as a user's own layer may."""

    def forward(self, x):
        return x * torch.rand_like(x)


class Recurrent(nn.Module):
    """Drop between the layers of an LSTM, inside a kernel that no key reaches."""

    def __init__(self, size):
        super().__init__()
        self.lstm = nn.LSTM(size, size, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.lstm(x.unsqueeze(1))[0].squeeze(1)


RANDOM = {
    "dropout": lambda: nn.Dropout(0.5),
    "alpha dropout": lambda: nn.AlphaDropout(0.5),
    "torch.rand": Noisy,
    "dropout in an LSTM": lambda: Recurrent(50),
    "dropout and torch.rand": lambda: nn.Sequential(nn.Dropout(0.5), Noisy()),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_the_global_generator_is_neither_read_nor_moved(kind):
    torch.manual_seed(0)
    layer = RANDOM[kind]()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        first, objective = masks([copy.deepcopy(layer)], 50)
        second, _ = masks(None, 50, key=rng.as_tensor(6), objective=objective)
        third, _ = masks(None, 50, objective=objective)
        assert torch.equal(torch.get_rng_state(), before)
        found.append((first, second, third))

    (first, second, third), others = found
    assert all(map(torch.equal, found[0], others))
    assert torch.equal(first, third)
    assert not torch.equal(first, second)


def test_a_step_that_fails_puts_the_generator_back():
    def loss(outputs, targets):
        raise ArithmeticError

    objective = fm.objective(Drops(3, nn.Dropout(0.5), Noisy()), loss, target=None)
    before = torch.get_rng_state()

    with pytest.raises(ArithmeticError):
        gradient_of(objective, {"x": torch.ones(1, 3)})

    assert torch.equal(torch.get_rng_state(), before)


# Refusals


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Flatten, "is the class Flatten. Call it: Flatten()"),
        (lambda x: x, "is a function"),
        (None, "is a NoneType"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "lazy layers .* Call it once"),
        (nn.Flatten(), "Flatten has no trainable parameter"),
        (nn.Linear(1, 1).requires_grad_(False), "Linear has no trainable parameter"),
    ],
    ids=["class", "function", "None", "lazy", "nothing to train", "all frozen"],
)
@pytest.mark.parametrize("build", [fm.classifier, fm.regressor, fm.language_model])
def test_a_model_that_cannot_be_trained_is_refused(build, model, reason):
    with pytest.raises(SettingsError, match=reason.replace("()", r"\(\)")):
        build(model)


def test_two_metrics_of_one_name_are_refused():
    with pytest.raises(SettingsError, match=r"loss, accuracy, accuracy.*Rename"):
        fm.classifier(nn.Linear(1, 2), metrics=[fm.metrics.accuracy()])


# Kinds


def test_a_classifier_s_loss_is_the_cross_entropy_of_each_form_of_output():
    wide, one = nn.Linear(3, 4), nn.Linear(3, 1)
    flat = nn.Sequential(one, nn.Flatten(0))
    pixels = nn.Conv1d(3, 4, 1)
    x, labels = normal(5, 3), tensor([0, 1, 3, 2, 0])
    two, at = tensor([0, 1, 1, 0, 1]), torch.randint(0, 4, (5, 7))
    long = normal(5, 3, 7)

    cases = [
        (wide, x, labels, F.cross_entropy(wide(x), labels)),
        (one, x, two, F.binary_cross_entropy_with_logits(one(x)[:, 0], two.float())),
        (one, x, two[:, None], F.binary_cross_entropy_with_logits(one(x)[:, 0], two.float())),
        (flat, x, two, F.binary_cross_entropy_with_logits(one(x)[:, 0], two.float())),
        (pixels, long, at, F.cross_entropy(pixels(long), at)),
    ]
    for model, inputs, targets, expected in cases:
        objective = fm.classifier(model)
        _, loss = gradient_of(objective, {"x": inputs, "y": targets})
        sums = measured(objective, {"x": inputs, "y": targets})["loss"]
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert sums.tolist() == pytest.approx([5 * expected.item(), 5], rel=1e-6)


@pytest.mark.parametrize("column", ["outputs", "targets", "both", "neither"])
def test_a_column_and_a_row_of_numbers_do_not_broadcast(column):
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    if column in ("targets", "neither"):
        model = nn.Sequential(model, nn.Flatten(0))
    targets = tensor([0.0, 2.0]) if column in ("outputs", "neither") else tensor([[0.0], [2.0]])
    objective = fm.regressor(model)

    _, loss = gradient_of(objective, {"x": tensor([[1.0], [4.0]]), "y": targets})
    sums = measured(objective, {"x": tensor([[1.0], [4.0]]), "y": targets})

    # Errors 1 and 2. Broadcast to (2, 2) the mean square were (1 + 1 + 16 + 4) / 4.
    assert loss.item() == 2.5
    assert {name: values.tolist() for name, values in sums.items()} == {
        "loss": [5.0, 2.0],
        "rmse": [5.0, 2.0],
        "mae": [3.0, 2.0],
    }


def test_outputs_of_another_number_than_the_targets_are_an_error():
    with pytest.raises(RuntimeError, match="shape"):
        gradient_of(fm.regressor(nn.Linear(1, 2)), {"x": normal(3, 1), "y": normal(3)})


def test_a_language_model_leaves_out_positions_without_a_target():
    model = nn.Embedding(5, 5)
    x, y = tensor([[0, 1, 2], [3, 4, 0]]), tensor([[1, 2, -100], [-100, -100, 1]])
    objective = fm.language_model(model)
    each = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="none").detach()
    right = (model(x).argmax(-1) == y).sum().item()

    gradient, loss = gradient_of(objective, {"x": x, "y": y})
    sums = measured(objective, {"x": x, "y": y})

    # The mean over rows of the mean over their tokens: two in the first, one in the second.
    assert loss.item() == pytest.approx(((each[0] + each[1]) / 2 + each[5]).item() / 2, rel=1e-6)
    # Words that only stand where nothing is asked are not learnt from.
    assert gradient["weight"][2].tolist() == gradient["weight"][3].tolist() == [0.0] * 5
    total = (each[0] + each[1] + each[5]).item()
    assert sums["loss"].tolist() == pytest.approx([total, 3], rel=1e-6)
    assert sums["accuracy"].tolist() == [right, 3]
    perplexity = {metric.name: metric for metric in objective.metrics}["perplexity"]
    assert perplexity.finish(sums["perplexity"]) == pytest.approx(math.exp(total / 3), rel=1e-6)


def test_a_text_without_any_target_has_a_loss_of_zero_and_no_gradient():
    objective = fm.language_model(nn.Embedding(5, 5))

    gradient, loss = gradient_of(objective, {"x": tensor([[0, 1]]), "y": tensor([[-100, -100]])})

    assert loss.item() == 0.0
    assert gradient["weight"].abs().sum().item() == 0.0


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, "cross_entropy"], ids=["class", "name"])
def test_a_loss_that_is_no_function_is_refused_when_it_is_joined(loss):
    with pytest.raises(SettingsError, match="loss must be a function"):
        fm.objective(nn.Linear(2, 2), loss)


@pytest.mark.parametrize("metric", [fm.metrics.f1, "f1"], ids=["builder", "name"])
def test_a_metric_that_was_not_built_is_refused_when_it_is_joined(metric):
    with pytest.raises(SettingsError, match="must be built first"):
        fm.classifier(nn.Linear(2, 2), metrics=[metric])
