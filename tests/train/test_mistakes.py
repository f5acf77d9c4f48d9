"""What people get wrong, and the one sentence that names client, leaf and cure."""

import contextlib
import warnings

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import DataError, SettingsError
from folkmoot.train.stopping import patience, target


def rows(client=0, number=6):
    drawn = torch.Generator().manual_seed(client)
    x = torch.randn(number, 3, generator=drawn)
    return {"x": x, "y": (x[:, 0] > 0).long()}


def four(**change):
    """Build four clients, of which number 2 has some other leaves."""
    clients = [rows(client) for client in range(4)]
    clients[2] = clients[2] | change
    return clients


def lazy(**change):
    """Build the same four, loaded when they are asked."""
    given = four(**change)
    return fm.data.from_function(range(4), given.__getitem__)


def work_of(outputs=2, **options):
    model = nn.Linear(3, outputs)
    return fm.local.sgd(fm.classifier(model), **{"lr": 0.1, **options})


def run(clients=None, built=None, **options):
    options = {"rounds": 1, "workers": 1, "progress": False} | options
    clients = four() if clients is None else clients
    return fm.run(built or fm.fedavg(work_of()), clients, **options)


class Net(nn.Module):
    """A model of the user's own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x)


def frame():
    import pandas as pd

    return pd.DataFrame({"site": [1, 2], "x": [1.0, 2.0], "y": [0, 1]})


def damaged(folder):
    """Run, spoil what was stored, and go on."""
    with contextlib.suppress(RuntimeError):
        run(checkpoint=folder, callbacks=[fail])
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    run(checkpoint=folder, resume=True)


def fail(event):
    if event.round:
        raise RuntimeError


def nan_loss(outputs, targets):
    return outputs[:, 0] * float("nan")


def asking(aggregator):
    """Build an algorithm by hand, whose one task is combined by whatever is given."""
    usual = fm.fedavg(work_of())

    def round(state):
        yield fm.Task(state, usual.works[0], aggregator)
        return state

    return usual._replace(name="mine", round=round)


INF = float("inf")
CHOOSE = {
    "unknown": lambda clients, round, rng: [0, 99],
    "twice": lambda clients, round, rng: [1, 1],
    "none": lambda clients, round, rng: None,
}
LONG = torch.int64
MISTAKES = {
    # what is done -> what the sentence must say
    "rows of another shape": (
        lambda: run(four(x=torch.randn(6, 4))),
        ["client 2, round 1, stage step 1", "x float32 (6, 4)", "rows of this shape"],
    ),
    "rows of another shape everywhere": (
        lambda: run([{**rows(), "x": torch.randn(6, 4)}]),
        ["client 0, round 0", "x float32 (6, 4)"],
    ),
    "float64 inputs": (
        lambda: run(four(x=torch.randn(6, 3, dtype=torch.float64))),
        ["client 2", "Leaf x is float64", "parameters are float32", ".to(torch.float32)"],
    ),
    "integer inputs": (
        lambda: run(four(x=torch.ones(6, 3, dtype=LONG))),
        ["client 2", "Leaf x is int64", ".to(torch.float32)"],
    ),
    "classes as floats": (
        lambda: run(four(y=torch.zeros(6))),
        ["client 2", "Leaf y is float32", "classes must be int64", ".long()"],
    ),
    "a label out of range": (
        lambda: run(four(y=torch.tensor([0, 1, 2, 0, 1, 5]))),
        ["client 2", "Leaf y holds labels from 0 to 5", "one output a class"],
    ),
    "a negative label": (
        lambda: run(four(y=torch.tensor([0, 1, -1, 0, 1, 1]))),
        ["client 2", "Leaf y holds labels from -1 to 1", "Count labels from 0"],
    ),
    "a third class for one output": (
        lambda: run(four(y=torch.tensor([0, 1, 2, 0, 1, 1])), fm.fedavg(work_of(outputs=1))),
        ["client 2", "Leaf y holds labels from 0 to 2", "Count labels from 0"],
    ),
    "a NaN in the data": (
        lambda: run(four(x=torch.full((6, 3), float("nan")))),
        ["Client 2, train examples", "leaf 'x' has a NaN in row 0", "drop missing values"],
    ),
    "a NaN in data that are loaded later": (
        lambda: run(lazy(x=torch.full((6, 3), float("nan")))),
        ["Client 2, train examples", "leaf 'x' has a NaN", "client 2, round 1, stage load"],
    ),
    "a loss that is NaN": (
        lambda: run(built=fm.fedavg(fm.local.sgd(fm.objective(Net(), nan_loss), lr=0.1))),
        ["round 1", "client 0: leaf params/layer.weight", "NaN", "Lower the learning rate"],
    ),
    "an empty client": (
        lambda: run(four(x=torch.zeros(0, 3), y=torch.zeros(0, dtype=LONG))),
        ["Client 2, train examples: there are none", "Leave out"],
    ),
    "an empty client that is loaded later": (
        lambda: run(lazy(x=torch.zeros(0, 3), y=torch.zeros(0, dtype=LONG))),
        ["Client 2, train examples: there are none", "Leave out"],
    ),
    "leaves of two lengths": (
        lambda: run(four(y=torch.zeros(5, dtype=LONG))),
        ["Client 2", "leaf 'x' has 6 rows but leaf 'y' has 5", "one row an example"],
    ),
    "targets under another name": (
        lambda: run([{"x": rows()["x"], "label": rows()["y"]}]),
        ["client 0", "no leaf 'y' with the targets", "label int64 (6,)"],
    ),
    "a cohort above the population": (
        lambda: run(cohort=9),
        ["cohort of 9 clients", "population of 4", "at most 4"],
    ),
    "a share above 1": (lambda: run(cohort=1.5), ["cohort=1.5", "at most 1", "number of clients"]),
    "a cohort of nobody": (lambda: run(cohort=0), ["cohort must be", "above 0", "is 0"]),
    "a cohort as text": (lambda: run(cohort="3"), ["cohort must be a whole number", "'3'"]),
    "an unknown option": (lambda: run(cohorts=2), ["no option 'cohorts'", "mean 'cohort'?"]),
    "an unknown option of check": (
        lambda: fm.check(fm.fedavg(work_of()), four(), cohrt=2),
        ["no option 'cohrt'", "mean 'cohort'?"],
    ),
    "rounds of a check as text": (
        lambda: fm.check(fm.fedavg(work_of()), four(), rounds="x"),
        ["rounds must be a whole number of at least 1", "'x'"],
    ),
    "no worker of a check": (
        lambda: fm.check(fm.fedavg(work_of()), four(), workers=0),
        ["workers must be a whole number of at least 1", "is 0"],
    ),
    "no client of a check": (
        lambda: fm.check(fm.fedavg(work_of()), four(), most_clients=0),
        ["most_clients must be a whole number of at least 1", "is 0"],
    ),
    "a seed of a check that is no number": (
        lambda: fm.check(fm.fedavg(work_of()), four(), seed="a"),
        ["seed must be a whole number", "'a'"],
    ),
    "an option of a check that is planned": (
        lambda: fm.check(fm.fedavg(work_of()), four(), on="x"),
        ["check() has no option 'on' yet", "is planned"],
    ),
    "a monitor that is no flag": (
        lambda: run(monitor="on"),
        ["monitor must be True or False", "'on'"],
    ),
    "no round": (lambda: run(rounds=0), ["rounds must be a whole number of at least 1", "0"]),
    "rounds as text": (lambda: run(rounds="3"), ["rounds must be a whole number", "'3'"]),
    "rounds as a float": (lambda: run(rounds=2.0), ["rounds must be a whole number", "2.0"]),
    "a seed that is no whole number": (lambda: run(seed=1.5), ["seed must be", "1.5"]),
    "no seed": (lambda: run(seed=None), ["seed must be a whole number", "None"]),
    "a negative rate": (lambda: work_of(lr=-1), ["lr must be", "at least 0", "is -1"]),
    "a rate as text": (lambda: work_of(lr="0.1"), ["lr must be a finite number", "'0.1'"]),
    "a rate that is NaN": (lambda: work_of(lr=float("nan")), ["lr must be", "finite", "nan"]),
    "a momentum of 1": (lambda: work_of(momentum=1), ["momentum must be in [0, 1)", "is 1"]),
    "a momentum as text": (lambda: work_of(momentum="x"), ["momentum must be in [0, 1)", "'x'"]),
    "a share as text": (
        lambda: fm.optimizers.adam(0.1, beta_1="a"),
        ["beta_1 must be in [0, 1)", "is 'a'"],
    ),
    "no share": (
        lambda: fm.optimizers.yogi(0.1, beta_2=None),
        ["beta_2 must be in [0, 1)", "is None"],
    ),
    "a batch of nobody": (lambda: work_of(batch_size=0), ["batch_size must be at least 1", "None"]),
    "half a row": (lambda: work_of(batch_size=2.5), ["batch_size must be a whole number", "2.5"]),
    "epochs and steps": (
        lambda: work_of(epochs=1, steps=2),
        ["epochs or for steps", "one of them", "epochs=1, steps=2"],
    ),
    "an unknown last batch": (lambda: work_of(last="pad"), ['"keep", "drop" or "join"', "'pad'"]),
    "a negative pull": (
        lambda: fm.fedprox(work_of(), mu=-1),
        ["mu must be a finite number of at least 0", "-1"],
    ),
    "a model with nothing to train": (
        lambda: fm.classifier(nn.Linear(3, 2).requires_grad_(False)),
        ["Linear has no trainable parameter", "requires_grad"],
    ),
    "a class instead of a model": (
        lambda: fm.classifier(Net),
        ["must be an instance", "the class Net", "Net()"],
    ),
    "no model at all": (lambda: fm.classifier("resnet"), ["torch.nn.Module", "is a str"]),
    "a lazy layer": (
        lambda: fm.classifier(nn.LazyLinear(2)),
        ["lazy layers", "once on an example"],
    ),
    "a module instead of an objective": (
        lambda: fm.local.sgd(Net(), lr=0.1),
        ["needs an objective", "the module Net", "fm.classifier(model)"],
    ),
    "a class instead of an objective": (
        lambda: fm.local.sgd(Net, lr=0.1),
        ["needs an objective", "the class Net", "fm.classifier(model)"],
    ),
    "a module instead of work": (
        lambda: fm.fedavg(Net()),
        ["fedavg() needs local work", "given a Net", "fm.local.sgd"],
    ),
    "an objective instead of work": (
        lambda: fm.fedprox(fm.classifier(Net()), mu=1),
        ["fedprox() needs local work", "given a ModuleObjective", "fm.local.sgd"],
    ),
    "a class instead of work": (
        lambda: fm.local.proximal(Net, 0.1),
        ["proximal() needs local work", "given the class Net", "fm.local.sgd"],
    ),
    "a module instead of work in an algorithm by hand": (
        lambda: fm.check(fm.fedavg(work_of())._replace(works=(Net(),)), four()),
        ["fedavg() needs local work", "given a Net", "fm.local.sgd"],
    ),
    "work instead of an algorithm": (
        lambda: run(built=work_of()),
        ["run() needs an algorithm", "fm.fedavg(work)", "a LocalWork"],
    ),
    "work instead of a process": (
        lambda: fm.process(work_of()),
        ["process() needs an algorithm", "fm.fedavg(work)", "a LocalWork"],
    ),
    "the name of an aggregator": (
        lambda: fm.fedavg(work_of(), aggregator="median"),
        ["aggregator must be built", "fm.aggregators.weighted_mean()", "'median'"],
    ),
    "an aggregator that was not called": (
        lambda: fm.fedavg(work_of(), aggregator=fm.aggregators.uniform_mean),
        ["aggregator must be built", "fm.aggregators.weighted_mean()"],
    ),
    "the name of a server's optimizer": (
        lambda: fm.fedavg(work_of(), server="adam"),
        ["server must be an optimizer", "fm.optimizers.adam(0.01)", "'adam'"],
    ),
    "a task of the user's own without an aggregator": (
        lambda: run(built=asking(None)),
        ["algorithm 'mine'", "a Task of LocalWork, NoneType", "an aggregator"],
    ),
    "two metrics of one name": (
        lambda: fm.classifier(Net(), metrics=[fm.metrics.accuracy()]),
        ["Two metrics have one name", "accuracy, accuracy", "_replace(name="],
    ),
    "a table without the column of clients": (
        lambda: fm.data.from_frame(frame(), client="sites", target="y"),
        ["no client column 'sites'", "Did you mean 'site'?", "'site', 'x', 'y'"],
    ),
    "a table instead of clients": (lambda: run(frame()), ["from_frame(frame, client="]),
    "no clients": (
        lambda: fm.run(fm.fedavg(work_of()), None, rounds=1),
        ["clients= is a NoneType", "list or dict"],
    ),
    "an empty list of clients": (lambda: run([]), ["there is no client", "at least one"]),
    "one data set instead of many": (
        lambda: run((rows()["x"], rows()["y"])),
        ["one data set, not one a client", "fm.data.partition"],
    ),
    "ids of two kinds": (
        lambda: run({0: rows(), "a": rows()}),
        ["all integers or all strings", "0 and 'a'", "one type"],
    ),
    "an id twice": (
        lambda: fm.data.from_function([1, 2, 1], rows),
        ["Client id 1 is there more than once", "one id"],
    ),
    "a sampling that knows others": (
        lambda: run(sampling=CHOOSE["unknown"]),
        ["chose client 99 in round 1", "unknown"],
    ),
    "a sampling that asks twice": (
        lambda: run(sampling=CHOOSE["twice"]),
        ["Client 1 stands twice", "answer once"],
    ),
    "a sampling that returns nothing": (
        lambda: run(sampling=CHOOSE["none"]),
        ["must return a list of client ids", "NoneType"],
    ),
    "a sampling by name": (
        lambda: run(sampling="uniform"),
        ["fm.sampling or be a function", "'uniform'"],
    ),
    "a cohort and a sampling": (
        lambda: run(sampling=fm.sampling.uniform(2), cohort=2),
        ["cohort=2 and sampling=", "Give one"],
    ),
    "an unknown best metric": (
        lambda: run(best="acuracy", test=rows(9)),
        ["best='acuracy' is no metric", "mean 'accuracy'?"],
    ),
    "a best metric that is a number": (
        lambda: run(best=3, test=rows(9)),
        ["best=3 is no metric", "Known: accuracy, loss"],
    ),
    "best metrics in a list": (
        lambda: run(best=["loss"], test=rows(9)),
        ["best=['loss'] is no metric"],
    ),
    "a best metric of nothing": (
        lambda: run(best="accuracy"),
        ["best='accuracy' has nothing to judge", "test="],
    ),
    "a stop by an unknown column": (
        lambda: run(stop=target("test_acuracy", 0.9), test=rows(9)),
        ["no column 'test_acuracy'", "mean 'test_accuracy'?"],
    ),
    "a patience by an unknown column": (
        lambda: run(stop=patience(3, "accuracy"), test=rows(9)),
        ["no column 'accuracy'", "mean 'test_accuracy'?"],
    ),
    "a stop that is a number": (lambda: run(stop=3), ["stop must be a function", "is 3"]),
    "a callback that is not in a list": (
        lambda: run(callbacks=print),
        ["callbacks must be a list of functions"],
    ),
    "a test set of another shape": (
        lambda: run(test={"x": torch.randn(5, 4), "y": torch.zeros(5, dtype=LONG)}),
        ["In the test set", "x float32 (5, 4)"],
    ),
    "a test set of other labels": (
        lambda: run(test={"x": torch.randn(5, 3), "y": torch.full((5,), 7)}),
        ["In the test set", "Leaf y holds labels from 7 to 7"],
    ),
    "a test set with an infinity": (
        lambda: run(test={"x": torch.full((5, 3), INF), "y": torch.zeros(5, dtype=LONG)}),
        ["The test examples: leaf 'x' has an infinity in row 0"],
    ),
    "a test set as a path": (lambda: run(test="test.csv"), ["The test data", "a str", "(x, y)"]),
    "resume from nowhere": (lambda: run(resume=True), ["resume=True needs", 'checkpoint="runs/a"']),
    "a checkpoint that is no path": (lambda: run(checkpoint=3), ["checkpoint must be", "is 3"]),
    "an engine by name": (
        lambda: run(engine="parallel", workers=None),
        ["fm.engines.parallel(4)", "'parallel'"],
    ),
    "an engine that was not called": (
        lambda: run(engine=fm.engines.sequential, workers=None),
        ["engine=fm.engines.sequential()", "with ()"],
    ),
    "an engine and workers": (
        lambda: run(engine=fm.engines.sequential(), workers=2),
        ["workers=2 and engine=", "Give one"],
    ),
    "no worker": (lambda: run(workers=0), ["workers must be a whole number of at least 1", "0"]),
    "an unknown precision": (lambda: run(precision="fp8"), ['"float32" or "bf16"', "'fp8'"]),
    "an unknown data set": (
        lambda: fm.data.load("mnist_writer"),
        ["no data set 'mnist_writer'", "mean 'mnist_writers'?"],
    ),
}
FROM_BELOW = (RuntimeError, IndexError, KeyError, TypeError)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_a_sentence_that_names_what_and_how(mistake):
    make, fragments = MISTAKES[mistake]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Lazy modules")
        with pytest.raises((fm.FolkmootError, *FROM_BELOW)) as found:
            make()

    said = " ".join([str(found.value), *getattr(found.value, "__notes__", [])])
    assert all(fragment in said for fragment in fragments), said
    # What torch or the user's own code raises stays what it is, with notes; all else is ours.
    assert isinstance(found.value, fm.FolkmootError) or found.value.__notes__


def test_a_damaged_checkpoint_gets_a_sentence(tmp_path):
    with pytest.raises(fm.FolkmootError, match=r"0000001\.safetensors: .*Remove the folder"):
        damaged(tmp_path)


def test_a_mistake_in_the_options_is_found_before_any_client_is_loaded():
    loaded = []
    clients = fm.data.from_function(range(4), lambda client: loaded.append(client) or rows(client))

    for options in (
        {"rounds": 0},
        {"seed": "a"},
        {"engine": "parallel", "workers": None},
        {"stop": 3},
        {"resume": True},
    ):
        with pytest.raises(SettingsError):
            run(clients, **options)

    assert not loaded


def test_what_is_wrong_with_the_program_can_be_caught_as_a_value_error():
    assert issubclass(SettingsError, ValueError)
    assert issubclass(DataError, ValueError)
