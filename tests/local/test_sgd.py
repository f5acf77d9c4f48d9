"""Local training: the arithmetic of steps, and which rows each of them sees."""

import pytest
import torch
from torch import nn, tensor
from torch.nn import functional as F

import folkmoot as fm
from folkmoot import optimizers
from folkmoot.core import tree as trees
from folkmoot.core.engine import LeftOut
from folkmoot.core.errors import SettingsError


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).to(dtype)


def classes(rows=10, dtype=torch.float32):
    draw = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(rows, 3, generator=draw, dtype=dtype),
        "y": torch.randint(0, 4, (rows,), generator=draw),
    }


def numbered(rows):
    """Rows that say which they are."""
    return {"x": torch.arange(float(rows)).reshape(rows, 1)}


def watched(work, seen):
    """Note each batch's rows; the step itself stays as it is."""

    def step(self, sent, carry, batch):
        seen.append(batch)
        return work.step(self, sent, carry, batch)

    return work._replace(step=step)


def rows_of(batches):
    return [batch.data["x"].reshape(-1).int().tolist() for batch in batches]


def flat(batches):
    return [row for batch in rows_of(batches) for row in batch]


def test_one_full_batch_step_is_minus_the_rate_times_the_gradient(local_update):
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    work = fm.local.sgd(fm.regressor(model), lr=0.1, batch_size=None)

    update = local_update(work, {"x": tensor([[1.0], [2.0]]), "y": tensor([[3.0], [3.0]])})

    # Errors -2 and -1; the gradient is the mean of 2 * -2 * 1 and 2 * -1 * 2, which is -4.
    assert update.value["params"]["weight"].item() == pytest.approx(0.4, rel=1e-6)
    assert update.weight == 2


def test_momentum_and_nesterov_run_over_the_steps_of_one_client(line, pull, local_update):
    # v = 1, 1.9; plain momentum moves by 1 + 1.9, Nesterov by (1 + 0.9) + (1 + 0.9 * 1.9).
    for nesterov, moved in ((False, 2.9), (True, 1.9 + 2.71)):
        work = fm.local.sgd(line(), lr=0.1, momentum=0.9, nesterov=nesterov, steps=2)
        update = local_update(work, pull(1.0))
        assert update.value["params"]["w"].item() == pytest.approx(-0.1 * moved, rel=1e-6)


def test_weight_decay_is_added_to_the_gradient(line, pull, local_update):
    work = fm.local.sgd(line(2.0), lr=0.1, weight_decay=0.5)

    assert local_update(work, pull(1.0)).value["params"]["w"].item() == pytest.approx(-0.2)


class Two(nn.Module):
    """Two parameters whose gradients are the two columns of x."""

    def __init__(self):
        super().__init__()
        self.u, self.v = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x[:, 0] * self.u + x[:, 1] * self.v


@pytest.mark.parametrize(
    ("gradient", "moved"),
    [
        ([3.0, 4.0], [0.6, 0.8]),  # Norm 5 over both, not 1 each.
        ([0.3, -0.4], [0.3, -0.4]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([-3e20, 4e20], [-0.6, 0.8]),  # The square is no float32 number.
    ],
)
def test_a_gradient_is_clipped_over_all_leaves_together(gradient, moved, local_update):
    objective = fm.objective(Two(), lambda outputs, _: outputs, target=None)
    work = fm.local.sgd(objective, lr=1.0, clip_gradient=1.0)

    params = local_update(work, {"x": tensor([gradient])}).value["params"]

    assert [-params["u"].item(), -params["v"].item()] == pytest.approx(moved, rel=1e-6)


@pytest.mark.parametrize(
    ("last", "rows", "sizes"),
    [
        ("keep", 7, [3, 3, 1]),
        ("drop", 7, [3, 3]),
        ("join", 7, [3, 4]),
        ("keep", 6, [3, 3]),
        ("drop", 6, [3, 3]),
        ("join", 6, [3, 3]),
        ("keep", 2, [2]),
        ("join", 2, [2]),
        ("join", 4, [4]),
    ],
)
def test_a_short_last_batch_is_kept_dropped_or_joined(last, rows, sizes, line, local_update):
    seen = []
    work = fm.local.sgd(line(), lr=0.1, batch_size=3, last=last)

    update = local_update(watched(work, seen), numbered(rows))

    assert [len(batch) for batch in rows_of(seen)] == sizes
    assert update.weight == sum(sizes)


def test_a_client_with_less_than_a_batch_is_left_out_where_short_ones_are_dropped(
    line, local_update
):
    found = local_update(fm.local.sgd(line(), lr=0.1, batch_size=3, last="drop"), numbered(2))

    assert found == LeftOut(0, 1, "it has 2 examples, fewer than the batch size 3")


def test_dropping_drops_other_rows_in_other_rounds(line, local_update):
    # One whole batch of four, and a fifth row that must not be the same in all rounds.
    work = fm.local.sgd(line(), lr=0.1, batch_size=4, last="drop")
    kept = set()

    for number in range(1, 31):
        seen = []
        local_update(watched(work, seen), numbered(5), round=number)
        kept.update(*rows_of(seen))

    assert kept == {0, 1, 2, 3, 4}


def test_every_epoch_sees_every_row_once_in_an_order_of_its_own(line, local_update):
    seen = []
    work = fm.local.sgd(line(), lr=0.1, epochs=3, batch_size=4)

    update = local_update(watched(work, seen), numbered(10))

    epochs = [flat(seen[start : start + 3]) for start in (0, 3, 6)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [int(batch.epoch) for batch in seen] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert update.weight == 10


def test_without_shuffling_rows_come_as_they_stand(line, local_update):
    seen = []
    work = fm.local.sgd(line(), lr=0.1, epochs=2, batch_size=3, shuffle=False)

    local_update(watched(work, seen), numbered(5))

    assert rows_of(seen) == [[0, 1, 2], [3, 4], [0, 1, 2], [3, 4]]


@pytest.mark.parametrize(("steps", "weight"), [(1, 3), (2, 5), (5, 5)])
def test_steps_pass_over_the_rows_as_often_as_needed(steps, weight, line, local_update):
    seen = []
    work = fm.local.sgd(line(), lr=0.1, steps=steps, batch_size=3, shuffle=False)

    update = local_update(watched(work, seen), numbered(5))

    assert rows_of(seen) == ([[0, 1, 2], [3, 4]] * 3)[:steps]
    assert update.weight == weight  # Distinct rows that were used.


def test_all_rows_at_once_is_one_batch_a_step(line, local_update):
    seen = []
    work = fm.local.sgd(line(), lr=0.1, steps=3, batch_size=None)

    local_update(watched(work, seen), numbered(5))

    assert [sorted(batch) for batch in rows_of(seen)] == [[0, 1, 2, 3, 4]] * 3


def test_nested_leaves_are_cut_side_by_side(line, local_update):
    seen = []
    data = {"x": torch.arange(5.0).reshape(5, 1), "in": {"a": torch.arange(5)}}
    work = fm.local.sgd(line(), lr=0.1, batch_size=2)
    work = work._replace(step=lambda self, sent, carry, batch: (seen.append(batch), carry)[1])

    local_update(work, data)

    assert [batch.data["in"]["a"].tolist() for batch in seen] == rows_of(seen)
    assert sorted(flat(seen)) == [0, 1, 2, 3, 4]


def test_seed_round_and_client_choose_the_order_and_equal_ones_choose_the_same(line, local_update):
    def order(**place):
        seen = []
        local_update(
            watched(fm.local.sgd(line(), lr=0.1, batch_size=5), seen), numbered(20), **place
        )
        return tuple(flat(seen)), tuple(batch.key.item() for batch in seen)

    places = [{}, {"seed": 1}, {"round": 2}, {"client": 3}, {"client": "3"}]
    orders, keys = zip(*(order(**place) for place in places), strict=True)

    assert len(set(orders)) == len(set(keys)) == 5
    assert len({key for of_client in keys for key in of_client}) == 20
    assert order() == (orders[0], keys[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch_size", [4, None])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optimizers.sgd(0.3), lambda p: torch.optim.SGD(p, 0.3)),
        (
            optimizers.sgd(0.3, momentum=0.9, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, 0.3, momentum=0.9, weight_decay=0.01),
        ),
        (
            optimizers.adam(0.05, beta_2=0.999, tau=1e-8, bias_correction=True),
            lambda p: torch.optim.Adam(p, 0.05),
        ),
    ],
    ids=["sgd", "momentum and decay", "adam"],
)
def test_training_equals_a_plain_loop_over_the_same_batches(
    ours, theirs, batch_size, dtype, local_update
):
    seen = []
    work = fm.local.descent(fm.classifier(network(dtype)), ours, epochs=3, batch_size=batch_size)
    found = local_update(watched(work, seen), classes(dtype=dtype)).value["params"]

    model = network(dtype)
    optimizer = theirs(model.parameters())
    for batch in seen:
        optimizer.zero_grad()
        F.cross_entropy(model(batch.data["x"]), batch.data["y"]).backward()
        optimizer.step()

    # A few units in the last place of a parameter near 1.
    rest = {"rtol": 0, "atol": 5e-7 if dtype == torch.float32 else 1e-14}
    begun = network(dtype).state_dict()
    for name, leaf in model.state_dict().items():
        torch.testing.assert_close(found[name], leaf - begun[name], **rest)


def test_the_plain_loop_s_clipped_gradient_is_ours(local_update):
    work = fm.local.sgd(
        fm.classifier(network(torch.float64)),
        lr=0.5,
        epochs=2,
        batch_size=5,
        clip_gradient=0.2,
        shuffle=False,
    )
    found = local_update(work, classes(dtype=torch.float64)).value["params"]

    model, data = network(torch.float64), classes(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for start in (0, 5, 0, 5):
        optimizer.zero_grad()
        rows = slice(start, start + 5)
        F.cross_entropy(model(data["x"][rows]), data["y"][rows]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.2)
        optimizer.step()

    begun = network(torch.float64).state_dict()
    for name, leaf in model.state_dict().items():
        # PyTorch divides by the norm + 1e-6.
        torch.testing.assert_close(found[name], leaf - begun[name], rtol=1e-4, atol=1e-7)


def test_a_clipped_gradient_of_float64_is_one_of_float64(line, pull, local_update):
    work = fm.local.sgd(line([0.0, 0.0], torch.float64), lr=1.0, clip_gradient=0.7)

    moved = local_update(work, pull([1.0, 3.0], dtype=torch.float64)).value["params"]["w"]

    assert torch.linalg.vector_norm(moved).item() == pytest.approx(0.7, rel=1e-14)


def test_a_rate_by_round_is_read_each_round(line, pull, one_round):
    work = fm.local.sgd(line(), lr=lambda round: {1: 0.5, 2: 0.25, 3: 0.0}[round])
    algorithm, snapshot, found = fm.fedavg(work), None, []

    for _ in range(3):
        snapshot, _ = one_round(algorithm, {0: pull(1.0)}, snapshot)
        found.append(snapshot.state["params"]["w"].item())

    assert found == [-0.5, -0.75, -0.75]


def test_what_was_sent_is_not_written_into(local_update):
    objective = fm.classifier(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    sent = {**objective.init(), "round": tensor(1)}
    before = trees.clone(sent)

    work = fm.local.sgd(objective, lr=0.5, momentum=0.9, epochs=3, batch_size=5)
    update = local_update(work, classes(), sent=sent)

    assert all(map(torch.equal, trees.leaves(sent), trees.leaves(before)))
    assert trees.norm(update.value["params"]) > 0
    assert trees.norm(update.value["buffers"]) > 0


def test_no_work_at_all_is_legal_for_as_many_rounds_as_are_asked(line, pull):
    work = fm.local.sgd(line(2.5), lr=1.0, epochs=0)

    result = fm.run(fm.fedavg(work), [pull(1.0), pull(3.0)], rounds=5, progress=False, workers=1)

    assert result.rounds == 5
    assert result.model.w.item() == 2.5
    assert result.left_out == []


@pytest.mark.parametrize("build", [fm.local.sgd, fm.local.descent])
def test_a_bare_module_is_refused_with_what_to_write(build):
    with pytest.raises(SettingsError, match=r"given the module Linear.*fm\.classifier\(model\)"):
        build(nn.Linear(1, 1), **({"lr": 0.1} if build is fm.local.sgd else {"optimizer": None}))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"clip_gradient": 0.0}, "clip_gradient must be a finite number above 0, but is 0.0"),
        ({"clip_gradient": float("nan")}, "clip_gradient must be"),
        ({"lr": -1.0}, "lr must be a finite number of at least 0"),
        ({"momentum": 1.0}, "momentum must be in"),
        ({"weight_decay": -0.1}, "weight_decay must be"),
        ({"nesterov": True}, "momentum"),
        ({"epochs": 1, "steps": 1}, "give one of them"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"last": "repeat"}, "keep"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_when_the_work_is_built(options, reason, line):
    with pytest.raises(SettingsError, match=reason):
        fm.local.sgd(line(), **{"lr": 0.1, **options})
