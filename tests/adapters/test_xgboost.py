"""Federated bagging: an independent sum over trees, the same bits, local-only against pooled."""

import sys

import numpy as np
import pytest
import torch

import folkmoot as fm
from folkmoot.adapters import trees
from folkmoot.adapters.trees import Forest
from folkmoot.adapters.xgboost import beside, xgboost

xgb = pytest.importorskip("xgboost")


def run(algorithm, clients, rounds=3, **more):
    options = {"progress": False, "client_tests": False, "monitor": False, **more}
    if "engine" not in options:
        options.setdefault("workers", 1)
    return fm.run(algorithm, clients, rounds=rounds, **options)


def rings(rows=(60, 30, 90), classes=2, seed=0):
    """Points whose class is how far they are from 0."""
    draw, found = torch.Generator().manual_seed(seed), {}
    for client, count in enumerate(rows):
        x = torch.randn(count, 3, generator=draw)
        far = x[:, :2].norm(dim=1)
        bounds = torch.tensor([1.2]) if classes == 2 else torch.tensor([0.9, 1.6])
        found[client] = (x, torch.bucketize(far, bounds))
    return found


def walked(forest, x, outputs):
    """Add up trees one row and one node at a time."""
    found = np.zeros((len(x), outputs))
    for row, point in enumerate(x.tolist()):
        for tree in range(len(forest.number)):
            at = 0
            while (split := int(forest.feature[tree, at])) >= 0:
                right = point[split] >= float(forest.number[tree, at])
                at = 2 * at + 2 if right else 2 * at + 1
            found[row, tree % outputs] += float(forest.number[tree, at])
    return found


@pytest.mark.parametrize("classes", [2, 3, None])
def test_a_prediction_is_the_sum_over_trees_and_that_of_xgboost_itself(classes):
    clients = rings(classes=classes or 3)
    if classes is None:
        clients = {client: (x, y.float()) for client, (x, y) in clients.items()}
    algorithm = xgboost(inputs=3, classes=classes, trees_a_round=2, depth=3, base=0.25)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(9))

    model = run(algorithm, clients, 2).model

    outputs = 3 if classes == 3 else 1
    assert model.number.shape == (2 * 3 * 2 * outputs, 15)
    expected = walked(model.forest, x, outputs) + 0.25
    assert model(x).reshape(20, -1).numpy() == pytest.approx(expected, abs=1e-9)
    theirs = model.booster().predict(xgb.DMatrix(x.numpy()), output_margin=True)
    assert theirs.reshape(20, -1) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("classes", "base"), [(2, 30.0), (2, -800.0), (3, 30.0), (None, 1e3)])
def test_a_booster_begins_where_the_ensemble_does_however_far(classes, base):
    clients = rings(classes=classes or 3)
    x = clients[0][0]

    model = run(xgboost(inputs=3, classes=classes, depth=2, base=base), clients, 2).model

    theirs = model.booster().predict(xgb.DMatrix(x.numpy()), output_margin=True)
    assert theirs == pytest.approx(model(x).numpy(), rel=1e-6)


def test_a_round_of_one_client_is_a_round_of_xgboost():
    (x, y), *_ = rings().values()
    params = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.3, "base_score": 0.5}
    alone = xgb.train({**params, "nthread": 1}, xgb.DMatrix(x.numpy(), label=y.numpy()), 4)

    model = run(xgboost(inputs=3, classes=2, depth=3), {0: (x, y)}, 4).model

    expected = alone.predict(xgb.DMatrix(x.numpy()), output_margin=True)
    assert model(x).numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("by_examples", [True, False])
def test_each_client_s_leaves_count_by_its_share(by_examples):
    clients = rings()
    algorithm = xgboost(inputs=3, classes=2, depth=2, by_examples=by_examples)
    together = run(algorithm, clients, 1).model

    shares = [1 / 3, 1 / 6, 1 / 2] if by_examples else [1 / 3] * 3
    x = clients[0][0]
    alone = [run(algorithm, {client: clients[client]}, 1).model(x) for client in clients]
    expected = sum(share * said for share, said in zip(shares, alone, strict=True))
    assert together(x).numpy() == pytest.approx(expected.numpy(), abs=1e-6)


@pytest.mark.parametrize(
    "engine", [fm.engines.parallel(2, threads=False), fm.engines.parallel(3, threads=True)]
)
def test_any_number_of_workers_grows_the_same_trees(engine):
    algorithm = xgboost(inputs=3, classes=2, depth=3, settings={"subsample": 0.7})

    one, other = (run(algorithm, rings(), 3, engine=e) for e in (fm.engines.sequential(), engine))

    for name, leaf in one.model.state_dict().items():
        assert torch.equal(leaf, other.model.state_dict()[name])
    assert one.traffic == other.traffic


def test_bytes_up_are_those_of_the_padded_arrays():
    result = run(xgboost(inputs=3, classes=2, depth=3, trees_a_round=2), rings(), 1)

    # 2 trees of 15 places, of 4 + 4 + 1 bytes, and a weight, from each of 3 clients.
    assert result.traffic.upload_bytes == 3 * (2 * 15 * 9 + 8)


def test_a_run_that_was_stopped_grows_the_same_trees_and_is_read_back(tmp_path):
    algorithm = xgboost(inputs=3, classes=2, depth=2)
    whole = run(algorithm, rings(), 4)
    run(algorithm, rings(), 2, checkpoint=tmp_path)

    resumed = run(
        xgboost(inputs=3, classes=2, depth=2), rings(), 4, checkpoint=tmp_path, resume=True
    )
    read = algorithm.objective.module(fm.load_result(tmp_path).state)

    x = rings()[0][0]
    assert torch.equal(resumed.model(x), whole.model(x))
    assert torch.equal(read(x), whole.model(x))


def accuracy(booster, x, y):
    return float(((booster.predict(xgb.DMatrix(x)) > 0.5) == y).mean())


def compared(seed):
    """Accuracy on a third of breast cancer's rows: of ten clients together, pooled, and alone."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order]
    test, rows = (x[:169], y[:169]), np.array_split(np.arange(169, 569), 10)
    clients = {at: (torch.tensor(x[part]), torch.tensor(y[part])) for at, part in enumerate(rows)}
    params = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.3, "nthread": 1}

    def trained(part):
        return accuracy(xgb.train(params, xgb.DMatrix(x[part], label=y[part]), 20), *test)

    held_out = tuple(map(torch.tensor, test))
    result = run(xgboost(inputs=30, classes=2, depth=3), clients, 20, test=held_out)
    found = result.metrics["test_accuracy"]
    assert accuracy(result.model.booster(), *test) == pytest.approx(found)
    return found, trained(np.concatenate(rows)), np.mean([trained(part) for part in rows])


@pytest.mark.parametrize(
    "seeds", [range(2), pytest.param(range(10), marks=pytest.mark.nightly)], ids=["two", "ten"]
)
def test_bagging_is_far_above_local_only_and_near_pooled_on_breast_cancer(seeds):
    together, pooled, alone = np.mean([compared(seed) for seed in seeds], axis=0)

    assert together >= pooled - 0.02
    assert together >= alone + 0.03


@pytest.mark.nightly
def test_hospitals_gain_from_each_other():
    clients, test = fm.data.heart_disease()
    algorithm = xgboost(inputs=13, classes=2, depth=2, lr=0.1, settings={"min_child_weight": 2})

    def found(some):
        return run(algorithm, some, 60, test=test).metrics["test_accuracy"]

    local = [found({name: client.train}) for name, client in clients.items()]
    assert found(clients) >= np.mean(local) + 0.08


def update_of(feature, number=1.0):
    forest = trees.empty(1, 1)
    forest.feature[0, 0], forest.number[0, 1:] = feature, number
    counts = {"feature": forest.feature, "missing_left": forest.missing_left}
    return fm.Update({"number": forest.number}, 1.0, counts)


def decoded(*updates):
    rule = beside(3, by_examples=False)
    return rule.decode(rule.init(updates[0], 2), list(updates), 0)


def test_trees_that_split_by_what_there_is_not_are_left_out():
    value, counts, _ = decoded(update_of(0), update_of(3), update_of(-2), update_of(2, 3.0))

    assert counts["feature"][:, 0].tolist() == [0, 2]
    assert value["number"][:, 1].tolist() == [0.5, 1.5]
    with pytest.raises(fm.RoundError, match="split by the 3 inputs"):
        decoded(update_of(3))


def test_a_split_in_the_last_places_leads_nowhere():
    deep = update_of(0)
    deep.counts["feature"][0, 2] = 1

    value, _, _ = decoded(update_of(1), deep)

    assert len(value["number"]) == 1


def test_a_row_that_lacks_an_input_goes_where_the_tree_says():
    forest = trees.empty(2, 1)
    forest.feature[:, 0] = 0
    forest.number[:, 1:] = torch.tensor([10.0, 20.0])
    forest.missing_left[1, 0] = True

    found = trees.margins(forest, torch.tensor([[float("nan")], [-1.0], [0.0]]), 2)

    assert found.tolist() == [[20, 10], [10, 10], [20, 20]]


def test_a_client_that_lacks_classes_is_welcome():
    clients = rings(classes=3)
    only = clients[0][1] == 1
    clients[0] = (clients[0][0][only], clients[0][1][only])

    result = run(xgboost(inputs=3, classes=3, depth=3), clients, 3, test=clients[2])

    assert result.metrics["test_accuracy"] > 0.8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"secure": True}, "looks at single updates, which a secure sum hides"),
        ({"privacy": fm.DP(noise_multiplier=1.0, delta=1e-3)}, "single updates, which privacy"),
        ({"privacy": fm.DP(epsilon=8, delta=1e-3, unit="example")}, "nothing but the gradients"),
        ({"compress": fm.codecs.quantize(8)}, "Leave compress="),
        ({"personal": "number"}, "looks at single updates"),
        ({"precision": "bf16"}, "Leave precision= out"),
    ],
)
def test_what_needs_a_mean_is_refused_with_a_sentence(options, sentence):
    with pytest.raises(fm.SettingsError, match=sentence):
        run(xgboost(inputs=3, classes=2, depth=2), rings(), **options)


def test_trees_show_no_gradient():
    objective = xgboost(inputs=3).objective

    with pytest.raises(fm.SettingsError, match="have no gradient"):
        objective.grad(*objective.init().values(), None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"depth": 17}, "at most 16"),
        ({"classes": 1}, "at least 2"),
        ({"settings": {"sub_sample": 0.5}}, "Did you mean 'subsample'"),
        ({"settings": {"nthread": 4}}, "no parameter for growing"),
        ({"lr": 0}, "lr must be"),
        ({"trees_a_round": 0}, "trees_a_round must be"),
        ({"depth": 2.5}, "depth must be a whole number"),
        ({"base": float("nan")}, "base must be a finite number"),
        ({"settings": {"subsample": 5}}, r"XGBoost refuses .*exceed bound"),
        ({"settings": 5}, "values by name"),
    ],
)
def test_options_that_cannot_be_are_refused_with_a_sentence(options, sentence):
    with pytest.raises(fm.SettingsError, match=sentence):
        xgboost(inputs=3, **options)


def test_rows_of_another_shape_and_strange_labels_are_told_with_their_client():
    algorithm = xgboost(inputs=3, classes=2, depth=2)

    with pytest.raises(fm.ClientError, match=r"\(rows, 3\)") as caught:
        run(algorithm, {"oslo": (torch.zeros(4, 2), torch.zeros(4))})
    assert "'oslo'" in "".join(caught.value.__notes__)
    for strange in (2.0, 0.5, -0.5):
        with pytest.raises(fm.ClientError, match=f"holds the label {strange:g}"):
            run(algorithm, {"oslo": (torch.zeros(4, 3), torch.tensor([0, 1, strange, 1]))})
    with pytest.raises(fm.ClientError, match=r"'y' \(4, 2\) are not"):
        run(xgboost(inputs=3), {"oslo": (torch.zeros(4, 3), torch.zeros(4, 2))})


def test_labels_in_a_column_are_labels():
    x = torch.eye(3).repeat(10, 1)
    y = torch.arange(3).repeat(10)[:, None]
    algorithm = xgboost(inputs=3, classes=np.int64(3), depth=2)

    assert run(algorithm, {0: (x, y)}, 2, test=(x, y)).metrics["test_accuracy"] == 1


def test_without_the_library_a_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)

    with pytest.raises(fm.SettingsError, match=r"folkmoot\[xgboost\]"):
        xgboost(inputs=3)


def test_places_are_as_many_as_a_depth_has_room_for():
    assert [trees.empty(1, depth).depth for depth in (1, 2, 6, 16)] == [1, 2, 6, 16]
    assert Forest(*(part[:0] for part in trees.empty(1, 2))).depth == 2
