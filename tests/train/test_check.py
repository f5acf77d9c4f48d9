"""`check`: everything that is wrong before a run, and what the run would cost."""

import itertools
import json

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError
from folkmoot.train import probe, trials

INPUTS, CLASSES, ROWS = 8, 3, 20


def rows(number=ROWS, inputs=INPUTS, classes=CLASSES):
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(number, inputs, generator=generator)
    return x, torch.randint(classes, (number,), generator=generator)


def federation(**changed):
    """Ten good clients, of which some are changed: `c3=(x, y)` replaces client 3."""
    clients = {client: rows() for client in range(10)}
    return clients | {int(name.removeprefix("c")): data for name, data in changed.items()}


def fedavg(model=None, **local):
    model = model or nn.Linear(INPUTS, CLASSES)
    return fm.fedavg(fm.local.sgd(fm.classifier(model), **{"lr": 0.1, **local}))


def with_nan(leaf):
    x, y = rows()
    x[4, 2] = float("nan")
    return (x, y) if leaf == "x" else (y, x)


def test_good_clients_give_a_report_without_problems():
    report = fm.check(fedavg(), federation(), rounds=6, cohort=4, test=rows(), workers=2)

    assert report.ok
    assert (report.problems, report.warnings) == ([], [])
    assert (report.clients, report.looked_at, report.cohort) == (10, 10, 4)
    assert report.leaves == "x float32 (n, 8), y int64 (n,)"
    assert report.classes == 3
    assert report.evaluations == 6


def test_traffic_is_counted_from_the_leaves_that_travel():
    report = fm.check(fedavg(), federation(), cohort=4)

    model_bytes = 4 * (INPUTS * CLASSES + CLASSES)
    round_bytes = 8  # the round's number, int64
    assert report.cost.model_bytes == model_bytes
    assert report.cost.download_bytes == 4 * (model_bytes + round_bytes)
    assert report.cost.upload_bytes == 4 * (model_bytes + 8)  # the weight, float64


def test_time_is_that_of_the_rounds_and_a_stream_more_halves_it(monkeypatch):
    # A clock on which everything takes one second.
    seconds = itertools.count()
    monkeypatch.setattr(probe, "now", lambda: float(next(seconds)))
    monkeypatch.setattr(trials, "now", lambda: float(next(seconds)))

    def cost(**options):
        return fm.check(fedavg(), federation(), cohort=4, **options).cost

    one, two = cost(rounds=10, workers=1), cost(rounds=10, workers=2)

    assert one.total_s == pytest.approx(10 * one.round_s)
    assert two.round_s == pytest.approx(one.round_s / 2)
    assert (one.streams, two.streams) == (1, 2)


def test_memory_grows_with_the_batch_whose_activations_are_kept():
    model = nn.Sequential(nn.Linear(INPUTS, 512), nn.Tanh(), nn.Linear(512, CLASSES))

    small, large = (
        fm.check(fedavg(model, batch_size=size), federation()).cost.stream_bytes
        for size in (10, 20)
    )

    # Ten rows more: the 512 outputs of tanh, and at most as much again for what else is kept.
    assert 10 * 512 * 4 <= large - small <= 2 * 10 * 512 * 4 + 10 * (INPUTS + CLASSES) * 8


def test_all_problems_are_collected_and_each_names_its_client():
    x, y = rows()
    strange = torch.where(torch.arange(ROWS) == 0, 7, y)
    clients = federation(
        c1=with_nan("x"), c2=(x[:0], y[:0]), c3=(x, strange), c4=rows(inputs=9), c6=(x, y[:19])
    )

    report = fm.check(fedavg(), clients, cohort=11, best="f1", precision="fp8", test=rows(inputs=7))

    told = "\n".join(report.problems)
    for sentence in (
        "Client 1, train examples: leaf 'x' has a NaN in row 4",
        "Client 2, train examples: there are none.",
        "Client 3: leaf 'y' holds the label 7, but the model has outputs for 3 classes, 0 to 2.",
        "Client 4: the leaves are x float32 (n, 9), y int64 (n,), but those of most clients are",
        "Client 6, train examples: leaf 'x' has 20 rows but leaf 'y' has 19.",
        "A cohort of 11 clients was asked of a population of 10.",
        'precision must be "float32" or "bf16", but is \'fp8\'.',
        "best='f1' is no metric of the objective.",
        "The test set cannot be judged. RuntimeError: mat1 and mat2",
    ):
        assert sentence in told
    assert len(report.problems) == 9
    assert not report.ok


@pytest.mark.parametrize(
    ("clients", "sentence"),
    [
        (rows(), "this is one data set, not one a client"),
        ([], "there is no client"),
        ("mnist_writers", "pass the clients themselves"),
        ([with_nan("x")], "Client 0, train examples: leaf 'x' has a NaN"),
    ],
)
def test_clients_that_cannot_be_used_at_all_are_the_one_problem(clients, sentence):
    report = fm.check(fedavg(), clients)

    [problem] = report.problems
    assert sentence in problem


def test_a_loader_that_raises_is_a_problem_of_its_client():
    def load(client):
        if client == 3:
            raise OSError("the disk is gone")
        return rows()

    report = fm.check(fedavg(), fm.data.from_function(range(5), load))

    assert report.problems == ["Client 3 cannot be loaded. OSError: the disk is gone"]
    assert len(report.held) == 4


def test_an_error_of_the_model_comes_with_what_to_do():
    clients = [(x.double(), y) for x, y in [rows(), rows()]]

    [problem] = fm.check(fedavg(), clients).problems

    assert problem.startswith("Client 0 and 1 others cannot be trained. RuntimeError: ")
    assert "convert the data with .to(torch.float32), or the model." in problem


def test_a_label_of_the_test_set_without_an_output_is_told_once():
    x, y = rows()

    [problem] = fm.check(fedavg(), federation(), test=(x, y + 1)).problems

    assert problem.startswith("The test set: leaf 'y' holds the label 3, but the model has outputs")


def test_other_shapes_that_the_model_takes_are_a_warning():
    class Mean(nn.Linear):
        def forward(self, x):
            return super().forward(x.mean(dim=1, keepdim=True))

    report = fm.check(fedavg(Mean(1, CLASSES)), federation(c4=rows(inputs=9)))

    assert report.ok
    assert report.warnings[0].endswith("The model takes both.")


def test_clients_of_one_class_are_named():
    x, _ = rows()

    report = fm.check(fedavg(), federation(c5=(x, torch.full((ROWS,), 2))))

    assert report.warnings[0].startswith("1 of 10 clients holds one class only (5 only 2).")


def test_clients_that_no_batch_fits_are_a_warning_unless_all_are():
    clients = [rows(number) for number in (10, 20, 30)]

    some = fm.check(fedavg(batch_size=15, last="drop"), clients)
    everyone = fm.check(fedavg(batch_size=40, last="drop"), clients)

    assert some.ok
    assert "1 of 3 clients is left out of each round (0): it has 10 examples" in some.warnings[0]
    assert everyone.problems[0].startswith("Every client is left out of each round (0, 1, 2)")


def test_non_iid_score_is_the_mean_distance_to_the_pooled_labels():
    x = torch.randn(10, INPUTS)
    clients = [(x, torch.zeros(10).long()), (x, torch.ones(10).long())]
    alike = [(x, torch.arange(10) % 2)] * 2

    # Each knows one of two labels: |1 - 1/2| and |0 - 1/2|, halved. By chance, with n = 10 and
    # q = 1/2 twice: sqrt(2 * 1/4 / (10 pi)) = 0.126.
    assert fm.check(fedavg(), clients).non_iid == pytest.approx((0.5, 0.126), abs=1e-3)
    assert fm.check(fedavg(), alike).non_iid[0] == 0


def test_tokens_are_held_against_the_vocabulary():
    model = nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, 20))
    work = fm.local.sgd(fm.language_model(model), lr=0.1)
    y = torch.tensor([[0, 19, -100, 1, 2]])
    clients = [{"x": y.clamp(min=0), "y": y}, {"x": y.clamp(min=0), "y": y + (y == 19).long()}]

    [problem] = fm.check(fm.fedavg(work), clients).problems

    assert problem.startswith("Client 1: leaf 'y' holds the label 20, but the model has outputs")


def test_a_classifier_counts_every_label_also_the_one_that_torch_ignores():
    # Few of many rows, so that a trial step need not meet one.
    y = torch.zeros(500, dtype=torch.int64)
    y[499] = -100
    work = fm.local.sgd(fm.classifier(nn.Linear(2, 3)), lr=0.1, batch_size=10)

    problems = fm.check(fm.fedavg(work), [{"x": torch.zeros(500, 2), "y": y}]).problems

    assert any("Client 0: leaf 'y' holds the label -100" in problem for problem in problems)


def test_of_a_million_clients_a_sample_is_looked_at_and_the_report_says_so():
    asked = []

    def load(client):
        asked.append(client)
        return rows()

    clients = fm.data.from_function(range(1_000_000), load)
    report = fm.check(fedavg(), clients, cohort=100, most_clients=5)

    assert (report.clients, report.looked_at) == (1_000_000, 5)
    assert len(set(asked)) == 5
    assert "1,000,000, of which 5 were looked at" in str(report)


def test_nothing_of_a_check_reaches_the_model_or_the_run():
    model = nn.Linear(INPUTS, CLASSES)
    before = {name: leaf.clone() for name, leaf in model.state_dict().items()}
    algorithm = fedavg(model)

    def trained():
        return fm.run(algorithm, federation(), rounds=2, workers=1, progress=False).state_dict

    first = trained()
    fm.check(algorithm, federation(), rounds=2)
    second = trained()

    assert all(torch.equal(leaf, before[name]) for name, leaf in model.state_dict().items())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_printed_table_is_narrow_and_folds_what_is_alike():
    clients = {client: with_nan("x") for client in range(7)} | {8: rows(), 9: rows()}

    printed = str(fm.check(fedavg(), clients))

    assert max(map(len, printed.splitlines())) <= 80
    assert printed.count("has a NaN") == 3
    assert "and 4 more of this kind: see .problems and .warnings" in printed


def test_the_facts_are_plain_json():
    facts = fm.check(fedavg(), federation(), rounds=3).facts()

    assert json.loads(json.dumps(facts))["clients"] == 10


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(SettingsError, match=r"needs an algorithm first.*but was given a list"):
        fm.check([], federation())
    with pytest.raises(SettingsError, match=r"no option 'round'\. Did you mean 'rounds'\?"):
        fm.check(fedavg(), federation(), round=3)
