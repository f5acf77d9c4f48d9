"""Personal leaves in works and algorithms, with numbers worked by hand."""

import pytest
import torch
from torch import nn, tensor

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.local.personal import personalize, without
from folkmoot.train.loop import begun, check_task, first_snapshot


class Two(nn.Module):
    """Give x * (near + far), counting its passes: where that is the loss, both gradients are x."""

    def __init__(self):
        super().__init__()
        self.near, self.far = nn.Parameter(tensor([0.5])), nn.Parameter(tensor([0.25]))
        self.register_buffer("passes", tensor(0))

    def forward(self, x):
        if self.training:
            self.passes.add_(1)
        return x * (self.near + self.far)


def work_of(**options):
    objective = fm.objective(Two(), lambda outputs, _: outputs.sum(1), target=None)
    return fm.local.sgd(objective, **{"lr": 0.125, "batch_size": None, **options})


ONES, THREES = {"x": torch.ones(1, 1)}, {"x": torch.full((1, 1), 3.0)}


def test_shared_leaves_become_the_mean_and_personal_ones_go_their_own_way(one_round):
    work = fm.local.personal(work_of(epochs=2), ["near", "passes"])

    snapshot, _ = one_round(fm.fedavg(work), {0: ONES, 1: THREES})

    # Two steps along gradients of 1 and 3: -0.25 and -0.75.
    assert snapshot.state["params"] == {"far": tensor([0.25 - 0.5])}
    assert snapshot.state["counts"] == {}
    kept = {client: own["kept"] for client, own in snapshot.own.items()}
    assert {client: mine["params"] for client, mine in kept.items()} == {
        0: {"near": tensor([0.5 - 0.25])},
        1: {"near": tensor([0.5 - 0.75])},
    }
    assert all(mine["counts"] == {"passes": tensor(2)} for mine in kept.values())


def test_a_client_goes_on_with_its_own_leaves_and_the_newest_shared_ones(one_round):
    algorithm = personalize(fm.fedavg(work_of()), "near")
    snapshot, _ = one_round(algorithm, {0: ONES, 1: THREES})

    awake, _ = one_round(algorithm, {0: ONES, 1: THREES}, snapshot, asked=[1])

    assert awake.own[0]["kept"] == snapshot.own[0]["kept"]
    # Round 1 moves far by -(1 + 3) / 2 / 8, round 2 by -3 / 8; near of client 1 by -3 / 8, twice.
    model = algorithm.works[0].model(awake.state, awake.own[1])
    assert model["params"] == {"near": tensor([0.5 - 0.75]), "far": tensor([0.25 - 0.25 - 0.375])}
    assert list(model["params"]) == ["near", "far"]


def test_all_clients_begin_with_the_module_s_leaves():
    work = personalize(fm.fedavg(work_of()), "*").works[0]

    own = work.own(work.init())

    assert work.init() == {"params": {}, "buffers": {}, "counts": {}}
    assert work.model(work.init(), own) == work.objective.init()


def test_a_pull_towards_the_broadcast_leaves_personal_leaves_alone(one_round):
    algorithm = personalize(fm.fedprox(work_of(steps=2), mu=4.0), "near")

    snapshot, _ = one_round(algorithm, {0: ONES})

    # far: -1/8, then -(1 - 4 / 8) / 8; near: -1/8 twice.
    assert snapshot.state["params"]["far"].item() == 0.25 - 0.125 - 0.0625
    assert snapshot.own[0]["kept"]["params"]["near"].item() == 0.5 - 0.25


def test_a_clip_measures_shared_leaves_only(one_round):
    rule = fm.aggregators.weighted_mean(fm.codecs.clip(0.125))

    whole, _ = one_round(fm.fedavg(work_of(), aggregator=rule), {0: ONES})
    kept, _ = one_round(personalize(fm.fedavg(work_of(), aggregator=rule), "near"), {0: ONES})

    # A delta of (1/8, 1/8) is too long by sqrt(2); its half of 1/8 is not.
    assert whole.state["params"]["far"].item() == pytest.approx(0.25 - 0.125 / 2**0.5)
    assert kept.state["params"]["far"].item() == pytest.approx(0.25 - 0.125)


def test_what_a_work_makes_of_the_whole_model_leaves_without_personal_leaves(local_update):
    plain = work_of()

    def finish(sent, carry, seen):
        update, own = plain.finish(sent, carry, seen)
        grown = {"last": carry["trail"]["params"], "counted": carry["trail"]["counts"]}
        return update._replace(value={**update.value, **grown}, counts=grown["counted"]), own

    def start(sent, own, key):
        carry = plain.start(sent, own, key)
        trail = {part: trees.clone(carry[part]) for part in ("params", "counts")}
        return {**carry, "trail": trail}

    work = fm.local.personal(plain.changed(start=start, finish=finish), ["near", "passes"])
    update = local_update(work, ONES, {**work.init(), "round": tensor(1)})

    assert set(update.value["last"]) == {"far"}
    assert update.value["counted"] == update.counts == {}


def test_a_server_s_optimizer_has_a_state_for_shared_leaves_only():
    algorithm = personalize(fm.fedavg(work_of(), server=fm.optimizers.adam(0.1)), "near")

    state = algorithm.init()

    assert set(state["optimizer"]["m"]) == set(state["optimizer"]["v"]) == {"far"}


def test_only_what_has_the_model_s_shape_loses_leaves():
    names, kept = frozenset({"a", "b"}), frozenset({"a"})
    tree = {"a": {"a": 1, "b": 2}, "inner": {"more": {"a": 3}}, "other": {"a": 4, "step": 5}}

    found = without(tree, kept, names)

    assert found == {"a": {"b": 2}, "inner": {"more": {}}, "other": {"a": 4, "step": 5}}


def test_clients_have_one_set_of_personal_leaves():
    work = fm.local.personal(work_of(), "near")

    for build in (
        lambda: fm.local.personal(work, "far"),
        lambda: personalize(fm.fedavg(work), "far"),
    ):
        with pytest.raises(fm.SettingsError, match="name all personal leaves in one pattern"):
            build()
    with pytest.raises(fm.SettingsError, match=r"personal\(\) needs local work"):
        fm.local.personal(Two(), "near")


def test_a_round_that_asks_for_nonsense_is_refused_as_it_is_without_personal_leaves():
    algorithm = fm.fedavg(work_of())

    def nonsense(state):
        yield "nothing"

    none = personalize(algorithm._replace(round=lambda state: state), "near")
    with pytest.raises(fm.SettingsError, match="It must be a generator"):
        begun(none, none.init())
    odd = personalize(algorithm._replace(round=nonsense), "near")
    with pytest.raises(fm.SettingsError, match="yielded a str"):
        check_task(odd, next(begun(odd, odd.init())))


def test_a_work_is_kept_once_for_all_rounds():
    algorithm = personalize(fm.fedavg(work_of()), "near")

    tasks = [next(algorithm.round(first_snapshot(algorithm).state)) for _ in range(2)]

    assert tasks[0].work is tasks[1].work is algorithm.works[0]
