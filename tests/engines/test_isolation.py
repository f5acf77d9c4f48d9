"""Nothing leaks: from a pass into the data, from one client to the next, from a judgement."""

import functools

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError

ENGINES = {
    "sequential": fm.engines.sequential(),
    "processes": fm.engines.parallel(2, threads=False),
    "threads": fm.engines.parallel(2, threads=True),
}


class Running(nn.Module):
    """Subtracts a running mean of its inputs, written as people write it: by assignment."""

    def __init__(self, persistent=True):
        super().__init__()
        self.out = nn.Linear(2, 2)
        self.register_buffer("mean", torch.zeros(2), persistent=persistent)

    def forward(self, x):
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
        return self.out(x - self.mean)


class InPlace(nn.Module):
    """Shifts its inputs in place."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(2, 2)

    def forward(self, x):
        return self.out(x.sub_(0.5))


class Counting(nn.Module):
    """Counts every pass, also those of an evaluation."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(2, 2)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.passes += 1
        return self.out(x)


class Bounded(nn.Module):
    """An embedding that shortens its own rows while it is asked for them."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 2, max_norm=0.5)

    def forward(self, x):
        return self.words((x[:, 0].abs() * 5).long().clamp(max=4))


class Frozen(nn.Module):
    """Moves a parameter that is not trained."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(2, 2)
        self.shift = nn.Parameter(torch.zeros(2), requires_grad=False)

    def forward(self, x):
        self.shift.add_(1.0)
        return self.out(x + self.shift)


MODELS = {
    "running": Running,
    "not persistent": functools.partial(Running, persistent=False),
    "in place": InPlace,
    "counting": Counting,
    "bounded": Bounded,
    "frozen": Frozen,
}


def examples():
    torch.manual_seed(1)
    clients = {at: (torch.randn(7, 2) + at, torch.arange(7) % 2) for at in range(5)}
    return clients, (torch.randn(9, 2), torch.arange(9) % 2)


def trained(build, clients, test, engine, **options):
    torch.manual_seed(0)
    work = fm.local.sgd(fm.classifier(build()), lr=0.1, **({"batch_size": 4} | options))
    return fm.run(
        fm.fedavg(work), clients, rounds=3, test=test, evaluate_every=1, engine=engine,
        progress=False,
    )  # fmt: skip


def told(result):
    return {name: leaf.tolist() for name, leaf in result.state_dict.items()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", [{}, {"batch_size": None}, {"shuffle": False}], ids=str)
def test_every_exact_engine_has_the_same_bits_whatever_a_model_writes_into(name, options):
    results = [trained(MODELS[name], *examples(), engine, **options) for engine in ENGINES.values()]

    assert told(results[0]) == told(results[1]) == told(results[2])
    assert [row["test_loss"] for row in results[0].history] == [
        row["test_loss"] for row in results[1].history
    ]


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_examples_stay_as_they_were(engine, batch_size, shuffle):
    clients, test = examples()

    trained(InPlace, clients, test, engine, batch_size=batch_size, shuffle=shuffle)

    fresh, fresh_test = examples()
    assert all(torch.equal(clients[at][0], fresh[at][0]) for at in fresh)
    assert torch.equal(test[0], fresh_test[0])


def test_a_check_leaves_the_examples_as_they_were():
    clients, test = examples()
    work = fm.local.sgd(fm.classifier(InPlace()), lr=0.1, batch_size=None)

    fm.check(fm.fedavg(work), clients, rounds=1, test=test)

    fresh, fresh_test = examples()
    assert all(torch.equal(clients[at][0], fresh[at][0]) for at in fresh)
    assert torch.equal(test[0], fresh_test[0])


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_a_judgement_does_not_change_the_model(engine):
    _, test = examples()
    clients = {0: test, 1: test}

    result = trained(Counting, clients, test, engine, batch_size=None)

    # One step a round for three rounds; the passes that judge the model do not count.
    assert result.state_dict["passes"].item() == 3


def test_a_buffer_that_is_assigned_travels():
    x = torch.tensor([[2.0, 4.0], [4.0, 8.0]])
    torch.manual_seed(0)
    work = fm.local.sgd(fm.classifier(Running()), lr=0.1, batch_size=None)

    result = fm.run(
        fm.fedavg(work), [(x, torch.tensor([0, 1]))], rounds=2, progress=False, workers=1
    )

    # The mean of x is (3, 6): half of it after one step, three quarters after two.
    assert result.state_dict["mean"].tolist() == [2.25, 4.5]


def test_a_buffer_that_is_assigned_travels_from_vectorized_clients_too():
    clients, test = examples()

    mapped = trained(Running, clients, test, fm.engines.vectorized())
    exact = trained(Running, clients, test, fm.engines.sequential())

    torch.testing.assert_close(mapped.state_dict["mean"], exact.state_dict["mean"])
    torch.testing.assert_close(mapped.state_dict["out.weight"], exact.state_dict["out.weight"])


def test_a_model_that_writes_into_its_inputs_cannot_be_vectorized_and_harms_nobody():
    clients, test = examples()

    with pytest.raises(fm.SettingsError, match=r"cannot be vectorized.*in-place"):
        trained(InPlace, clients, test, fm.engines.vectorized())

    fresh, _ = examples()
    assert all(torch.equal(clients[at][0], fresh[at][0]) for at in fresh)


def test_a_buffer_that_changes_its_shape_is_refused_by_its_name():
    class Growing(Running):
        def forward(self, x):
            self.mean = torch.cat([self.mean, self.mean])
            return self.out(x)

    with pytest.raises(fm.SettingsError, match=r"Buffer mean has shape \(2,\).*put shape \(4,\)"):
        trained(Growing, *examples(), fm.engines.sequential())


def test_models_without_running_statistics_are_judged_on_pairs():
    def build():
        return nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False), nn.Linear(2, 2))

    clients, _ = examples()
    test = (torch.randn(501, 2), torch.arange(501) % 2)

    result = trained(build, clients, test, fm.engines.sequential())

    assert result.metrics["test_loss"] > 0


def counting(where):
    """Build work that counts its steps in what its client keeps, as its writer thinks."""
    plain = fm.local.sgd(fm.classifier(nn.Linear(2, 2)), lr=0.1)

    def own(sent):
        return {"seen": torch.zeros(2)}

    def step(work, sent, carry, batch):
        if where == "step":
            carry["own"]["seen"].add_(1)
        return plain.step(work, sent, carry, batch)

    def finish(sent, carry, seen):
        update, own = plain.finish(sent, carry, seen)
        if where == "finish":
            own["seen"].add_(1)
        if where == "sent":
            sent["params"]["bias"].zero_()
        return update, {"seen": own["seen"] + 1} if where == "nowhere" else own

    return plain.changed(own=own, step=step, finish=finish)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("step", "own/seen, which is what its client keeps"),
        ("finish", "own/seen, which is what its client keeps"),
        ("sent", "sent/params/bias, which is what is broadcast"),
    ],
)
def test_writing_into_what_is_kept_or_sent_is_refused_by_its_name(where, named, engine):
    clients, _ = examples()

    with pytest.raises(SettingsError, match=f"'train' writes into {named}"):
        fm.run(fm.fedavg(counting(where)), clients, rounds=1, engine=engine, progress=False)


def test_a_new_state_is_kept(one_round):
    data = {"x": torch.randn(4, 2), "y": torch.tensor([0, 1, 0, 1])}
    snapshot = None
    for _ in range(3):
        snapshot, _ = one_round(fm.fedavg(counting("nowhere")), {0: data}, snapshot)

    assert snapshot.own[0]["seen"].tolist() == [3.0, 3.0]


def test_a_mistake_in_the_test_set_is_not_put_down_to_a_client():
    clients, _ = examples()
    y = torch.arange(1_200) % 2
    y[700] = 9

    with pytest.raises(Exception, match=r"out of bounds|[Ll]abel") as caught:
        trained(InPlace, clients, (torch.randn(1_200, 2), y), fm.engines.sequential())

    said = str(caught.value) + " ".join(getattr(caught.value, "__notes__", []))
    assert "test" in said
    assert "client" not in said.replace("client's", "").replace("clients'", "")
