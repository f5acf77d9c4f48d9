"""Anything that learns enters by three functions: closed forms, isolation, the same bits."""

import random

import numpy as np
import pytest
import torch

import folkmoot as fm
from folkmoot.adapters.functions import functions


class Line:
    """Least squares in plain numpy; `seen` counts rows, `fits` is no array and stays behind."""

    def __init__(self, inputs=2):
        self.w, self.b, self.seen = np.zeros(inputs), 0.0, np.array([0])
        self.fits = 0

    def fit(self, x, y):
        self.fits += 1
        *self.w, self.b = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
        self.w, self.seen = np.array(self.w), self.seen + len(x)


def get(learner):
    return {"line": {"w": learner.w, "b": learner.b}, "seen": learner.seen}


def put(learner, arrays):
    learner.w, learner.b = arrays["line"]["w"], arrays["line"]["b"]
    learner.seen = arrays["seen"]


def fit(learner, data):
    learner.fit(data["x"], data["y"])


def predict(learner, data):
    return data["x"] @ learner.w + learner.b


def square(outputs, targets):
    return (outputs - targets).square()


def line(**changed):
    functions_of = {"learner": Line(), "get": get, "set": put, "fit": fit, **changed}
    return functions(**functions_of)


def judged(**changed):
    return line(predict=predict, loss=square, metrics=[fm.metrics.mae()], **changed)


def clients(number=4, dtype=torch.float64):
    draw, found = torch.Generator().manual_seed(0), {}
    for client in range(number):
        x = torch.randn(10 + 5 * client, 2, generator=draw, dtype=dtype)
        noise = torch.randn(len(x), generator=draw, dtype=dtype)
        found[client] = (x, x @ torch.tensor([1.0, -2.0], dtype=dtype) + 0.5 + noise)
    return found


def run(work, rounds=1, data=None, **more):
    more = {"workers": 1} | more if "engine" not in more else more
    return fm.run(fm.fedavg(work), data or clients(), rounds=rounds, progress=False, **more)


def mean_of_lines(data):
    """The mean by examples of each client's least squares, by the normal equations."""
    solved, sizes = [], []
    for x, y in data.values():
        rows = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
        solved.append(torch.linalg.solve(rows.T @ rows, rows.T @ y))
        sizes.append(len(x))
    shares = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    return shares @ torch.stack(solved)


def test_one_round_gives_the_mean_of_local_solutions_by_examples():
    mine = Line()

    result = run(judged(learner=mine), test=clients()[0])

    learnt = result.model.learner
    found = torch.tensor([*learnt.w, learnt.b])
    torch.testing.assert_close(found, mean_of_lines(clients()), rtol=1e-12, atol=1e-12)
    x, y = clients()[0]
    assert result.metrics["test_mae"] == pytest.approx((x @ found[:2] + found[2] - y).abs().mean())
    assert torch.equal(result.model(x), torch.as_tensor(predict(learnt, {"x": x.numpy()})))
    assert (mine.fits, mine.w.tolist()) == (0, [0, 0])


def test_dtypes_and_kinds_of_arrays_are_those_of_the_learner():
    learnt = run(line()).model.learner

    assert (learnt.w.dtype, type(learnt.b)) == (np.float64, float)
    # Whole numbers are averaged by examples and rounded: (10^2 + 15^2 + 20^2 + 25^2) / 70.
    assert (learnt.seen.dtype, learnt.seen.tolist()) == (np.int64, [19])


def test_nothing_but_arrays_goes_from_one_client_to_the_next():
    def counted(learner, data):
        assert learner.fits == 0
        learner.fit(data["x"], data["y"])

    run(line(fit=counted), rounds=2)


@pytest.mark.parametrize(
    "engine", [fm.engines.parallel(2, threads=False), fm.engines.parallel(3, threads=True)]
)
def test_a_fit_that_draws_has_the_same_bits_in_every_exact_engine(engine):
    def noisy(learner, data):
        fit(learner, data)
        learner.w += (
            1e-3 * np.random.randn(2) + 1e-3 * random.random() + 1e-3 * torch.rand(1).item()
        )

    one, other = (run(line(fit=noisy), 2, engine=e) for e in (fm.engines.sequential(), engine))

    assert one.model.learner.w.tolist() == other.model.learner.w.tolist()
    assert one.model.learner.w.tolist() != run(line(), 2).model.learner.w.tolist()


def test_global_generators_are_where_they_were():
    def noisy(learner, data):
        fit(learner, data)
        np.random.randn(2), random.random(), torch.rand(1)

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    run(line(fit=noisy))

    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize(
    "number", [np.float32(1), np.int32(1), np.float64(1), np.bool_(1), 1, 1.0, True], ids=repr
)
def test_a_number_keeps_its_type_and_dtype_over_rounds(number):
    class Learner:
        w, more = np.zeros(1), number

    def put(learner, arrays):
        learner.w, learner.more = arrays["w"], arrays["more"]

    def fit(learner, data):
        learner.w += 1

    work = functions(Learner(), lambda one: {"w": one.w, "more": one.more}, put, fit)
    learnt = run(work, 2).model.learner

    assert (type(learnt.more), learnt.more, learnt.w) == (type(number), 1, [2])


def test_what_numpy_takes_for_an_array_is_given_back_as_one():
    pandas = pytest.importorskip("pandas")

    def fit(learner, data):
        learner["w"] = pandas.Series(learner["w"]) + 1

    work = functions({"w": pandas.Series([0.0, 1.0])}, dict, dict.update, fit)

    assert run(work, 2).model.learner["w"].tolist() == [2, 3]


def test_arrays_may_lie_in_lists_and_be_tensors():
    class Lists:
        parts = (torch.zeros(2, dtype=torch.float64), [np.zeros(1)])

    def put(learner, arrays):
        learner.parts = arrays

    def fit(learner, data):
        learner.parts[0] += 3
        learner.parts[1][0] = learner.parts[1][0] + data["y"].mean()

    data = {0: (torch.zeros(4, 2), torch.ones(4)), 1: (torch.zeros(4, 2), 2 * torch.ones(4))}
    found = run(functions(Lists(), lambda learner: learner.parts, put, fit), 2, data)

    assert found.model.learner.parts[0].tolist() == [6, 6]
    assert found.model.learner.parts[1][0].tolist() == [3]
    assert list(found.model.state_dict()) == ["0", "1.0"]


def test_sums_may_be_secure_clipped_noised_and_compressed():
    plain = run(line()).model.learner.w

    secure = run(line(), secure=True).model.learner.w
    private = fm.DP(noise_multiplier=1e-3, delta=1e-3, clip=10.0, simulation=True)
    noised = run(line(), privacy=private).model.learner.w
    packed = run(line(), compress=fm.codecs.quantize(8)).model.learner.w

    assert np.abs(secure - plain).max() < 1e-3
    assert np.abs(packed - plain).max() < 0.05
    # The uniform mean, which is another one.
    assert np.abs(noised - plain).max() < 0.2


def test_a_leaf_may_stay_with_each_client():
    result = run(line(), personal="line.b")

    for client, (x, y) in clients().items():
        mine = mean_of_lines({client: (x, y)})
        assert result.clients[client].model.learner.b == pytest.approx(float(mine[2]), rel=1e-12)
    assert result.model.learner.b == 0


def test_a_server_optimizer_steps_along_the_mean_delta():
    algorithm = fm.fedavg(line(), server=fm.optimizers.sgd(0.5))

    found = fm.run(algorithm, clients(), rounds=1, workers=1, progress=False).model.learner

    torch.testing.assert_close(torch.tensor([*found.w, found.b]), mean_of_lines(clients()) / 2)


def test_a_run_that_was_stopped_goes_on_and_is_read_back(tmp_path):
    def pulled(learner, data):
        before = learner.w
        fit(learner, data)
        learner.w = (learner.w + before) / 2

    work = judged(fit=pulled)
    whole = run(work, 4)
    run(work, 2, checkpoint=tmp_path)

    resumed = run(judged(fit=pulled), 4, checkpoint=tmp_path, resume=True)
    module = work.objective.module(work.objective.init())
    read = fm.load_result(tmp_path, model=module)

    assert resumed.model.learner.w.tolist() == whole.model.learner.w.tolist()
    assert read.model.learner.w.tolist() == whole.model.learner.w.tolist()


def test_who_predicts_nothing_is_judged_by_nobody():
    result = run(line(), test=clients()[0])

    assert np.isnan(result.metrics["test_loss"])
    with pytest.raises(fm.SettingsError, match="predict="):
        result.model(clients()[0][0])


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (
            {"loss": lambda outputs, targets: square(outputs, targets).mean()},
            r"\(2,\), but returned \(\) of",
        ),
        (
            {"predict": lambda one, data: predict(one, data)[:, None]},
            r"returned \(2, 2\) of outputs \(2, 1\)",
        ),
    ],
)
def test_a_loss_that_is_not_one_number_a_row_is_told(changed, found):
    work = line(**{"predict": predict, "loss": square, **changed})

    with pytest.raises(fm.SettingsError, match=found):
        run(work, test=clients()[0])


def test_a_fit_that_is_not_finite_is_left_out_by_name():
    def broken(learner, data):
        fit(learner, data)
        learner.w = learner.w * (np.nan if len(data["y"]) == 15 else 1)

    [left] = run(line(fit=broken)).left_out

    assert (left.client, "line.w" in left.reason) == (1, True)


def test_a_shape_that_changes_is_told_with_leaf_and_client():
    def grown(learner, data):
        learner.w = np.zeros(3 if len(data["y"]) == 15 else 2)

    with pytest.raises(fm.ClientError, match=r"leaf 'line.w' from \(2,\) to \(3,\)") as caught:
        run(line(fit=grown))

    assert any("client 1, round 1" in note for note in caught.value.__notes__)


def test_a_set_that_forgets_a_leaf_is_told():
    def forgetful(learner, arrays):
        learner.w = arrays["line"]["w"]

    with pytest.raises(fm.ClientError, match=r"'line\.b', but get"):
        run(line(set=forgetful), rounds=2)


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (lambda: line(fit=None), "fit must be a function"),
        (lambda: line(predict=predict), "give predict= and loss="),
        (lambda: line(get=lambda learner: learner.w), "in a dict or a list"),
        (lambda: line(get=lambda learner: {"w": "text"}), "'w' as a str that is no array"),
        (lambda: line(get=lambda learner: {"w": np.array([1j])}), "'w' as a .* real numbers"),
        (lambda: line(get=lambda learner: {"w": np.array([np.nan])}), "'w' with a NaN"),
        (lambda: line(get=lambda learner: {"n": np.array([1])}, set=lambda *_: 0), "no floating"),
        (lambda: line(learner=(n for n in [1])), "cannot be copied"),
        (lambda: line(learner={"w": 2 * torch.ones(2, requires_grad=True)}), "cannot be copied"),
        (lambda: line(learner=Line), "itself after a copy"),
        (lambda: line(set=lambda learner, arrays: setattr(learner, "w", arrays["line"]["w"] + 1)),
         "does not return the arrays"),
        (lambda: fm.scaffold(line()), "writes its own step"),
        (lambda: run(line(), precision="bf16"), "Leave precision= out"),
        (lambda: run(line(), engine=fm.engines.vectorized()), "not a PyTorch module"),
        (lambda: run(line(), engine=fm.engines.compiled(1)), "not a PyTorch module"),
        (lambda: run(line(), fleet=fm.fleets.phones()), "shows no gradient"),
        (lambda: run(line(), privacy=fm.DP(epsilon=8, delta=1e-3, unit="example")),
         "looks at a client's examples"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_sentence(program, sentence):
    with pytest.raises(fm.SettingsError, match=sentence):
        program()


def test_an_engine_that_nobody_named_is_never_one_program():
    result = fm.run(fm.fedavg(line()), clients(), rounds=1, workers=1, exact=False, progress=False)

    assert result.settings["engine"] == "sequential"
