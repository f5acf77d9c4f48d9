"""DP-SGD at each client: what a step releases, what it refuses, and what it costs."""

import importlib
import math

import numpy as np
import pytest
import torch
from torch import nn, tensor

import folkmoot as fm
from folkmoot import optimizers
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError
from folkmoot.local.dpsgd import charges, grid
from folkmoot.privacy.events import PoissonGaussian

stats = pytest.importorskip("scipy.stats")


def private(work, clip=1.0, noise_multiplier=0.0, simulation=True, **options):
    return fm.local.dpsgd(
        work, clip=clip, noise_multiplier=noise_multiplier, simulation=simulation, **options
    )


def moved(update, name="w"):
    return update.value["params"][name]


def dense(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), *([nn.Dropout(dropout)] if dropout else []), nn.Linear(6, 2)
    )


def two_classes(rows=30, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=draw)
    return x, (x[:, 0] > 0).long()


def same(one, other):
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# What a step does


def test_a_step_is_the_mean_of_clipped_gradients(line, local_update):
    work = private(fm.local.sgd(line([0.0, 0.0]), lr=1.0, batch_size=None))

    update = local_update(work, {"x": tensor([[3.0, 4.0], [0.3, 0.4], [-30.0, 40.0]])})

    # (0.6, 0.8) + (0.3, 0.4) + (-0.6, 0.8) over 3.
    assert moved(update).tolist() == pytest.approx([-0.1, -2 / 3], rel=1e-5)
    assert update.weight == 3


def test_a_sum_is_divided_by_the_expected_batch_whichever_came(line, pull, local_update):
    work = private(fm.local.sgd(line(), lr=1.0, batch_size=2, steps=1))

    steps = {
        round(-moved(local_update(work, pull(0.5, rows=6), round=number)).item() / 0.25, 4)
        for number in range(1, 60)
    }

    # 0.5 / 2 for each row that came: with chance 1/3 each, none (0.088) up to 5 (0.016).
    assert {0.0, 1.0, 2.0, 3.0, 4.0} <= steps <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0}


def test_an_empty_batch_is_a_step_of_noise_alone(line, pull, local_update):
    quiet = private(fm.local.sgd(line(), lr=1.0, batch_size=1, steps=1))
    noisy = private(fm.local.sgd(line(), lr=1.0, batch_size=1, steps=1), noise_multiplier=1.0)
    data = pull(1.0, rows=4)
    empty = [n for n in range(1, 30) if moved(local_update(quiet, data, round=n)).item() == 0]

    found = [moved(local_update(noisy, data, round=number)).item() for number in empty]

    assert len(empty) > 3
    assert all(value != 0 for value in found)
    assert len(set(found)) == len(found)


def test_a_client_smaller_than_the_batch_is_divided_by_all_it_has(line, pull, local_update):
    work = private(fm.local.sgd(line(), lr=1.0, batch_size=100))

    assert moved(local_update(work, pull(0.5, rows=3))).item() == pytest.approx(-0.5, rel=1e-5)


def test_steps_are_as_many_as_an_epoch_has_batches(line, pull, local_update):
    work = fm.local.sgd(line(), lr=1.0, batch_size=4, epochs=2)
    seen = []

    def step(outer, sent, carry, batch):
        seen.append(int(batch.epoch))
        return work.step(outer, sent, carry, batch)

    update = local_update(private(work._replace(step=step)), pull(1.0, rows=10))

    assert seen == [0, 0, 0, 1, 1, 1]
    assert update.weight == 10  # Its examples, not those that the lots have drawn.


def test_what_stands_behind_the_gradient_is_as_without_privacy(line, pull, local_update):
    # All rows at once, gradients shorter than the clip, and no noise: the plain work.
    options = {"lr": 0.1, "batch_size": None, "epochs": 3, "momentum": 0.9, "weight_decay": 0.1}
    plain = fm.local.sgd(line([2.0, 1.0]), **options, clip_gradient=0.3)

    found, expected = (
        moved(local_update(work, pull([0.3, -0.4], rows=3))) for work in (private(plain), plain)
    )

    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_dp_adam_is_a_descent_with_adam(line, pull, local_update):
    adam = fm.local.descent(line(), optimizers.adam(0.1, tau=1e-8, bias_correction=True))

    # The first step of Adam is its rate, however long the gradient is.
    found = moved(local_update(private(adam, clip=0.5), pull(3.0, rows=5)))

    assert found.item() == pytest.approx(-0.1, rel=1e-4)


def test_groups_are_clipped_by_their_mean(line, local_update):
    work = fm.local.sgd(line([0.0, 0.0]), lr=1.0, batch_size=None)
    data = {"x": tensor([[3.0, 0.0], [0.0, 4.0]])}

    found = moved(local_update(private(work, microbatch=2), data))

    # One group: the mean (1.5, 2) of length 2.5 becomes (0.6, 0.8), over one group.
    assert found.tolist() == pytest.approx([-0.6, -0.8], rel=1e-5)


def test_rows_join_groups_by_lot_so_some_may_stay_empty(line, pull, local_update):
    work = private(fm.local.sgd(line(), lr=1.0, batch_size=None), microbatch=2, clip=9.0)

    found = {
        round(moved(local_update(work, pull(1.0, rows=8), seed=seed)).item(), 4)
        for seed in range(30)
    }

    # Each of 4 groups counts a quarter; with 8 rows one of them is often empty.
    assert {-1.0, -0.75} <= found <= {-1.0, -0.75, -0.5, -0.25}


def test_without_a_row_its_group_moves_by_up_to_twice_the_clip(line, local_update):
    work = private(
        fm.local.sgd(line([0.0, 0.0]), lr=1.0, batch_size=2, epochs=1), microbatch=2, clip=1.0
    )
    # Both rows in the one group of a batch, and then the first alone.
    both, alone = tensor([[10.0, 0.0], [-90.0, 0.0]]), tensor([[10.0, 0.0]])

    moves = [moved(local_update(work, {"x": x}))[0].item() for x in (both, alone)]

    assert moves == pytest.approx([1.0, -1.0], rel=1e-5)


def test_the_loss_is_not_told(line, pull, local_update):
    work, seen = fm.local.sgd(line(), lr=1.0, batch_size=None), []

    def step(outer, sent, carry, batch):
        _, loss = outer.objective.grad(carry["params"], carry["buffers"], carry["counts"], batch)
        seen.append(loss.item())
        return carry

    local_update(private(work._replace(step=step)), pull(1.0))

    assert math.isnan(seen[0])


# Noise


@pytest.mark.parametrize("simulation", [True, False])
@pytest.mark.parametrize(("clip", "noise", "batch_size"), [(1.0, 1.0, 4), (0.3, 2.5, 1)])
def test_noise_is_normal_of_the_stated_deviation(
    clip, noise, batch_size, simulation, line, pull, local_update
):
    work = fm.local.sgd(line([0.0] * 20_000), lr=1.0, batch_size=batch_size, steps=1)
    work = private(work, clip, noise, simulation)

    found = moved(local_update(work, pull([0.0] * 20_000, rows=8))).double().numpy()

    deviation = clip * noise / batch_size
    assert abs(found.std() / deviation - 1) < 4 / math.sqrt(2 * len(found))
    assert abs(found.mean()) < 4 * deviation / math.sqrt(len(found))
    assert stats.kstest(found / deviation, "norm").pvalue > 1e-4


def test_noise_is_wider_than_stated_by_what_makes_it_a_rounded_gaussian(
    line, pull, local_update, monkeypatch
):
    drawn = []
    home = importlib.import_module("folkmoot.local.dpsgd")
    monkeypatch.setattr(
        home,
        "discrete_gaussian",
        lambda size, sigma, words: drawn.append(sigma) or np.zeros(size, int),
    )
    work = fm.local.sgd(line([0.0] * 4), lr=1.0, batch_size=None)

    local_update(private(work, clip=2.0, noise_multiplier=1.5), pull([1.0] * 4))

    # A step is 2^-10 of the noise, which is less than 2^-8 clip / sqrt(4); 4 steps^2 are added.
    step = 2.0 * 1.5 / 1024
    assert drawn == [pytest.approx(math.sqrt((1.5 * 2.0 / step) ** 2 + 4), rel=1e-12)]


def test_no_two_steps_clients_or_rounds_share_noise(line, pull, local_update):
    work = fm.local.sgd(line([0.0] * 1_000), lr=1.0, batch_size=2, steps=2)
    work, data = private(work, noise_multiplier=1.0), pull([0.0] * 1_000, rows=4)

    places = [{}, {"round": 2}, {"client": 1}, {"seed": 1}]
    found = np.stack([moved(local_update(work, data, **place)).numpy() for place in places])

    # Two steps of deviation 1/2 each, whose sum would be 1 if they were one.
    assert found.std(axis=1) == pytest.approx([math.sqrt(0.5)] * 4, rel=0.1)
    # Correlations of 1,000 independent numbers stay below 4 / sqrt(1000).
    assert np.abs(np.corrcoef(found) - np.eye(4)).max() < 0.13
    assert torch.equal(moved(local_update(work, data)), torch.from_numpy(found[0]))


def test_secret_noise_and_secret_batches_follow_from_no_seed(line, pull, local_update):
    work = fm.local.sgd(line([0.0] * 8), lr=1.0, batch_size=30, steps=1)
    data = pull([0.1] * 8, rows=60)

    noisy = private(work, noise_multiplier=1.0, simulation=False)
    quiet = private(work, simulation=False)

    first, again = (moved(local_update(noisy, data)) for _ in range(2))
    assert not torch.equal(first, again)
    # How many of 60 rows came, each with chance 1/2.
    assert len({moved(local_update(quiet, data))[0].item() for _ in range(12)}) > 1


def test_the_grid_is_taken_off_the_clip(line, pull, local_update):
    step = grid(2.0, 1.0, 10_000)

    # sqrt(10,000) steps are 2^-8 of the clip norm.
    assert step * 100 == pytest.approx(2.0 / 256)
    assert grid(1.0, 1e-6, 1) == pytest.approx(1e-6 / 1024)
    assert grid(1.0, 0.0, 10) == 0


@pytest.mark.parametrize("rows", [1, 5, 40])
def test_what_noise_is_added_to_moves_by_at_most_the_clip(rows, line, local_update, monkeypatch):
    # Noise of 0, so that what it is added to is seen: whole steps of the grid.
    # The room's name for the module is the function.
    home = importlib.import_module("folkmoot.local.dpsgd")
    monkeypatch.setattr(home, "discrete_gaussian", lambda size, *given: np.zeros(size, int))
    draw = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 50, generator=draw, dtype=torch.float64) * 100
    work = fm.local.sgd(line([0.0] * 50, torch.float64), lr=1.0, batch_size=None)
    work = private(work, clip=3.0, noise_multiplier=1.0)
    step = grid(3.0, 1.0, 50)

    whole = moved(local_update(work, {"x": x})) * rows / step
    steps = whole.round()
    assert (whole - steps).abs().max() < 1e-6
    for gone in range(rows - 1):
        left = torch.cat([x[:gone], x[gone + 1 :]])
        without = (moved(local_update(work, {"x": left})) * (rows - 1) / step).round()
        assert (steps - without).norm() * step <= 3.0


# What it costs


def test_charges_are_the_steps_with_their_rate():
    work = private(
        fm.local.sgd(fm.classifier(dense()), lr=0.1, epochs=2, batch_size=30), noise_multiplier=1.5
    )

    # 4 batches an epoch, the last one as large as the others on average.
    assert charges(work, examples=100, rounds=5) == [(PoissonGaussian(1.5, 0.3), 2 * 4 * 5)]
    assert charges(work, examples=20) == [(PoissonGaussian(1.5, 1.0), 2)]


@pytest.mark.parametrize(
    ("options", "noise"),
    [({"microbatch": 4}, 0.5), ({"gradients": 4}, 0.5), ({"microbatch": 2, "gradients": 4}, 0.25)],
)
def test_groups_and_further_gradients_cost_more(options, noise):
    work = fm.local.sgd(fm.classifier(dense()), lr=0.1, steps=3, batch_size=10)

    found = charges(private(work, noise_multiplier=1.0, **options), examples=40)

    assert found == [(PoissonGaussian(noise, 0.25), 3)]


def test_an_algorithm_s_own_transforms_cost_nothing_more():
    work = private(fm.local.sgd(fm.classifier(dense()), lr=0.1, batch_size=10), noise_multiplier=1)

    [trained] = fm.scaffold(work).works

    assert charges(trained, examples=40) == charges(work, examples=40)


def test_work_that_is_not_private_has_no_charge():
    work = fm.local.sgd(fm.classifier(dense()), lr=0.1)

    with pytest.raises(SettingsError, match="'train' may look at examples otherwise than by priv"):
        charges(work, examples=40)
    with pytest.raises(SettingsError, match="'evaluate' may look at examples otherwise"):
        charges(fm.local.evaluate(private(work).objective), examples=40)


# What is refused


class Counting(nn.Module):
    """A layer that keeps a running mean of its own."""

    def __init__(self, persistent):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.register_buffer("mean", torch.zeros(4), persistent=persistent)

    def forward(self, x):
        if self.training:
            self.mean.mul_(0.9).add_(x.detach().mean(0))
        return self.head(x - self.mean)


@pytest.mark.parametrize("persistent", [True, False])
def test_a_model_that_writes_into_its_buffers_is_refused(persistent, local_update):
    work = private(fm.local.sgd(fm.classifier(Counting(persistent)), lr=0.1, batch_size=None))
    x, y = two_classes()

    with pytest.raises(SettingsError, match="writes into its weights or buffers"):
        local_update(work, {"x": x, "y": y})


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.BatchNorm1d(4), "statistics of a batch.*torch.nn.GroupNorm in its place"),
        (nn.BatchNorm1d(4, track_running_stats=False), "statistics of a batch"),
        (nn.InstanceNorm1d(4, track_running_stats=True), "'0' cannot be private.*GroupNorm"),
        (nn.Embedding(4, 4, max_norm=1.0), "an embedding without max_norm"),
        (nn.Embedding(4, 4, sparse=True), "sparse=False"),
    ],
)
def test_layers_in_which_an_example_leaves_a_trace_are_refused(layer, message):
    work = fm.local.sgd(fm.classifier(nn.Sequential(layer, nn.Linear(4, 2))), lr=0.1)

    with pytest.raises(SettingsError, match=message):
        private(work)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 0.0}, "clip must be a finite number above 0"),
        ({"clip": math.inf}, "clip must be a finite number above 0"),
        ({"noise_multiplier": -1.0}, "noise_multiplier must be a finite number of at least 0"),
        ({"microbatch": 0}, "microbatch must be a whole number of at least 1, but is 0"),
        ({"gradients": 1.5}, "gradients must be a whole number of at least 1, but is 1.5"),
    ],
)
def test_impossible_numbers_are_refused(options, message):
    work = fm.local.sgd(fm.classifier(dense()), lr=0.1)

    with pytest.raises(SettingsError, match=message):
        private(work, **options)


def test_what_is_no_work_to_be_made_private_is_refused():
    work = fm.local.sgd(fm.classifier(dense()), lr=0.1)

    with pytest.raises(SettingsError, match=r"dpsgd\(\) needs local work"):
        private(fm.classifier(dense()))
    with pytest.raises(SettingsError, match="are private already"):
        private(private(work))
    with pytest.raises(SettingsError, match="'evaluate' takes no gradients"):
        private(fm.local.evaluate(work.objective))
    with pytest.raises(SettingsError, match="leave last='drop' out"):
        private(fm.local.sgd(fm.classifier(dense()), lr=0.1, last="drop"))


def run(algorithm, **options):
    clients = [two_classes(seed=seed) for seed in range(3)]
    if "engine" not in options:
        options["workers"] = 1
    return fm.run(algorithm, clients, rounds=2, progress=False, **options)


def small():
    return private(fm.local.sgd(fm.classifier(dense()), lr=0.1, batch_size=10), 1.0, 0.5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda work: fm.mime(work), "second gradient of each batch"),
        (lambda work: fm.mimelite(work), "second gradient of each batch"),
        (lambda work: fm.moon(work, features="0"), "what a layer makes of each example"),
        (lambda work: fm.ifca(work, clusters=2), "measures the loss"),
        (lambda work: fm.qfedavg(work, q=1.0), "measures the loss"),
        (lambda work: fm.agnostic(work, lambda_lr=0.1), "measures the loss"),
    ],
    ids=["mime", "mimelite", "moon", "ifca", "qfedavg", "agnostic"],
)
def test_an_algorithm_that_asks_more_of_examples_than_gradients_is_refused(build, message):
    with pytest.raises(SettingsError, match=message):
        build(small())


@pytest.mark.parametrize(
    "build",
    [
        lambda work: fm.fedsam(work, rho=0.1),
        lambda work: fm.ditto(work, lam=0.1),
        lambda work: fm.apfl(work),
    ],
    ids=["fedsam", "ditto", "apfl"],
)
def test_an_algorithm_that_takes_two_gradients_of_a_batch_must_pay_for_both(build):
    with pytest.raises(SettingsError, match="more gradients of one batch than the 1"):
        run(build(small()))

    work = fm.local.sgd(fm.classifier(dense()), lr=0.1, batch_size=10)
    assert run(build(private(work, 1.0, 0.5, gradients=2))).model is not None


def test_a_step_that_looks_at_its_rows_is_refused(line, pull, local_update):
    work = fm.local.sgd(line(), lr=1.0)

    def step(outer, sent, carry, batch):
        return {**carry, "seen": batch.data["x"].sum()}

    with pytest.raises(SettingsError, match="looks at a client's examples by itself"):
        local_update(private(work)._replace(step=step), pull(1.0))


def test_a_private_gradient_of_a_batch_that_is_not_sealed_is_refused(line, pull, local_update):
    work = private(fm.local.sgd(line(), lr=1.0))
    open_work = work._replace(plan=work.plan._replace(poisson=None))

    with pytest.raises(SettingsError, match="needs a batch of rows drawn by Poisson sampling"):
        local_update(open_work, pull(1.0))


# What it composes with


@pytest.mark.parametrize(
    "build",
    [
        fm.fedavg,
        fm.scaffold,
        fm.fednova,
        lambda work: fm.fedprox(work, mu=0.1),
        lambda work: fm.feddyn(work, alpha=0.1),
        lambda work: fm.fedrep(work, personal="2.*"),
        lambda work: fm.fedavg(fm.local.personal(work, "2.*")),
        lambda work: fm.fedavg(work, server=optimizers.adam(0.01)),
    ],
    ids=["fedavg", "scaffold", "fednova", "fedprox", "feddyn", "fedrep", "personal", "fedadam"],
)
def test_algorithms_that_take_one_gradient_a_step_are_as_they_are(build):
    assert run(build(small())).history[-1] is not None


def test_corrections_act_on_the_private_gradient(line, pull, one_round):
    work = private(fm.local.sgd(line(1.0), lr=0.5, batch_size=None), clip=1.0)

    snapshot, _ = one_round(fm.fedprox(work, mu=0.5), {0: pull(8.0)})
    snapshot, _ = one_round(fm.fedprox(work, mu=0.5), {0: pull(8.0)}, snapshot)

    # The gradient is clipped to 1; the pull is 0 where each round's one step is taken.
    assert snapshot.state["params"]["w"].item() == pytest.approx(1 - 2 * 0.5, abs=1e-5)


@pytest.mark.parametrize(
    "engine",
    [fm.engines.parallel(2), fm.engines.parallel(2, threads=True)],
    ids=["processes", "threads"],
)
def test_exact_engines_give_the_same_bits_in_a_simulation(engine):
    work = fm.local.sgd(fm.classifier(dense(dropout=0.3)), lr=0.5, batch_size=5)
    algorithm = fm.scaffold(private(work, 1.0, 0.5))
    clients = [two_classes(seed=seed, rows=12 + seed) for seed in range(5)]

    found = [
        fm.run(algorithm, clients, rounds=2, engine=each, progress=False)
        for each in (fm.engines.sequential(), engine)
    ]

    assert same(*found)


@pytest.mark.parametrize("engine", [fm.engines.vectorized(), fm.engines.compiled(1)])
def test_engines_that_map_or_compile_steps_refuse(engine):
    with pytest.raises(SettingsError, match=r"drawn row by row.*Use fm\.engines\.parallel"):
        run(fm.fedavg(small()), engine=engine)


@pytest.mark.parametrize("engine", [fm.engines.vectorized(), fm.engines.compiled(1)])
def test_such_an_engine_refuses_before_anything_is_charged(engine):
    begun = []
    work = fm.local.sgd(fm.classifier(dense()), lr=0.1, batch_size=10)

    with fm.privacy.Ledger(unit="example", epsilon=100, delta=1e-3) as ledger:
        promise = fm.DP(unit="example", noise_multiplier=1.0, delta=1e-3, clip=1.0, ledger=ledger)
        with pytest.raises(SettingsError, match="drawn row by row"):
            run(fm.fedavg(work), engine=engine, privacy=promise, callbacks=[begun.append])

        assert not begun
        assert not ledger.charges


def test_what_is_not_exact_gives_way_to_the_streams():
    shown = str(run(fm.fedavg(small()), exact=False))

    assert "sequential" in shown


def test_a_simulation_goes_on_with_the_same_bits(tmp_path):
    algorithm = fm.fedavg(small())

    whole = run(algorithm)
    clients = [two_classes(seed=seed) for seed in range(3)]
    options = {"progress": False, "workers": 1, "checkpoint": tmp_path / "run"}
    fm.run(algorithm, clients, rounds=1, **options)
    resumed = fm.run(algorithm, clients, rounds=2, resume=True, **options)

    assert same(whole, resumed)


def test_a_loss_without_a_gradient_is_found_before_the_first_round():
    blind = fm.objective(dense(), lambda outputs, targets: outputs.detach().sum(1))

    with pytest.raises(SettingsError, match="depends on no trainable parameter"):
        run(fm.fedavg(private(fm.local.sgd(blind, lr=0.1, batch_size=None))))


def test_batches_of_one_row_and_of_none_learn_beside_large_ones(local_update):
    # Which way gradients are taken must not depend on which batch comes first.
    x, y = two_classes(rows=40)
    work = private(fm.local.sgd(fm.classifier(dense()), lr=0.1, batch_size=1, epochs=1))
    found = local_update(work, {"x": x, "y": y})

    fresh = private(fm.local.sgd(fm.classifier(dense()), lr=0.1, batch_size=1, epochs=1))
    local_update(fresh, {"x": x, "y": y}, round=9)
    again = local_update(fresh, {"x": x, "y": y})

    leaves = zip(trees.leaves(found.value), trees.leaves(again.value), strict=True)
    assert all(torch.equal(one, other) for one, other in leaves)


def test_it_learns_heart_disease_with_moderate_noise():
    clients, test = fm.data.load("heart_disease")
    torch.manual_seed(0)
    model = nn.Linear(test["x"].shape[1], 2)
    work = fm.local.sgd(fm.classifier(model), lr=0.5, epochs=1, batch_size=20)

    result = fm.run(
        fm.fedavg(private(work, clip=1.0, noise_multiplier=1.0)),
        clients,
        rounds=20,
        test=test,
        progress=False,
        workers=1,
    )

    # 52 % are of one class.
    assert result.metrics["test_accuracy"] > 0.7
