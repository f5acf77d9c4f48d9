"""One call trains across clients: what it asks, when it judges, what it tells, what it keeps."""

import gc
import math
import tracemalloc
import weakref

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError
from folkmoot.train.sampling import draw_cohort
from folkmoot.train.stopping import target


def rows(client, number=5):
    drawn = torch.Generator().manual_seed(client if isinstance(client, int) else len(client))
    x = torch.randn(number, 3, generator=drawn)
    return {"x": x, "y": (x[:, 0] > 0).long()}


def algorithm(**options):
    torch.manual_seed(1)
    options = {"lr": 0.5, "batch_size": 5} | options
    return fm.fedavg(fm.local.sgd(fm.classifier(nn.Linear(3, 2)), **options))


def clients_of(number=4, load=rows, test=None):
    return fm.data.from_function(range(number), load, test=test)


def train(clients=None, built=None, **options):
    options = {"rounds": 2, "workers": 1} | options
    return fm.run(built or algorithm(), clients or clients_of(), progress=False, **options)


def test_the_first_program_runs_as_it_is_written(capsys):
    clients, test = fm.data.load("mnist_writers")
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    work = fm.local.sgd(fm.classifier(model), lr=0.2, epochs=1, batch_size=10)

    result = fm.run(fm.fedavg(work), clients, rounds=2, cohort=20, test=test, seed=0)
    print(result)

    assert result.rounds == 2
    assert result.metrics["test_accuracy"] > 0.3
    assert isinstance(result.model, nn.Sequential)
    assert list(result.model.state_dict()) == list(model.state_dict())
    said = capsys.readouterr()
    assert "test_accuracy" in said.out or "accuracy" in said.out
    assert said.err.count("of 20 clients") == 2


def test_one_full_step_of_one_client_is_gradient_descent():
    data, built = rows(0), algorithm(batch_size=None)
    model = built.objective.module(built.init())
    loss = nn.functional.cross_entropy(model(data["x"]), data["y"])
    (gradient, _) = torch.autograd.grad(loss, list(model.parameters()))
    expected = model.weight - 0.5 * gradient

    result = train([data], built, rounds=1)

    assert torch.allclose(result.model.weight, expected, atol=1e-7)


def test_a_share_of_the_population_is_asked():
    result = train(clients_of(10), cohort=0.3)

    assert [row["asked"] for row in result.history] == [3, 3]
    assert result.settings["expected_cohort"] == 3


def test_ids_may_be_text_and_come_back_as_they_are():
    names = ["north", "south-1", "a", "Ünïted"]
    clients = fm.data.from_function(names, rows, test=rows)

    for workers in (1, 2):
        result = train(clients, workers=workers, cohort=2, rounds=3)

        assert sorted(result.clients) == sorted(names)
        assert result.history[0]["asked"] == 2


@pytest.mark.parametrize(
    ("rounds", "every", "judged"),
    [(7, 3, [3, 6, 7]), (4, None, [1, 2, 3, 4]), (120, None, list(range(3, 121, 3))), (2, 9, [2])],
)
def test_the_global_model_is_judged_when_it_is_due_and_at_the_end(rounds, every, judged):
    result = train(clients_of(1), rounds=rounds, evaluate_every=every, test=rows(9))

    found = [row["round"] for row in result.history if row["evaluated"]]
    assert found == judged
    assert all(("test_loss" in row) == row["evaluated"] for row in result.history)


def test_the_judgement_of_a_round_is_that_of_its_model():
    test = rows(9, 40)

    result = train(rounds=3, test=test)

    right = (result.model(test["x"]).argmax(1) == test["y"]).double().mean().item()
    loss = nn.functional.cross_entropy(result.model(test["x"]), test["y"]).item()
    assert result.history[-1]["test_accuracy"] == right
    assert result.history[-1]["test_loss"] == pytest.approx(loss, abs=1e-6)


def test_the_best_model_is_the_one_of_its_round():
    test, seen = rows(9, 40), {}

    def growing(round):
        return 0.5 if round < 4 else 50.0  # the last rounds spoil the model

    result = train(built=algorithm(lr=growing), rounds=6, test=test, best="loss", evaluate_every=2)

    seen = {row["round"]: row["test_loss"] for row in result.history if row["evaluated"]}
    assert result.best.round == min(seen, key=seen.get)
    assert result.best.value == min(seen.values())
    again = train(built=algorithm(lr=growing), rounds=result.best.round, test=test)
    assert torch.equal(result.best_model.weight, again.model.weight)
    assert not torch.equal(result.best_model.weight, result.model.weight)


def test_a_run_ends_when_its_rule_says_so_with_the_reason():
    result = train(rounds=50, test=rows(9), stop=target("test_loss", 100.0), evaluate_every=3)

    assert result.rounds == 3
    assert "test_loss has reached" in result.ended


def test_a_rule_of_the_users_own_sees_the_history():
    seen = []

    def stop(history):
        seen.append([row["round"] for row in history])
        return "enough" if len(history) == 2 else None

    result = train(rounds=9, stop=stop, test=rows(9))

    assert (result.ended, result.rounds) == ("enough", 2)
    assert seen == [[1], [1, 2]]


def test_callbacks_hear_of_start_rounds_and_end_in_their_order():
    heard = []

    def listen(event):
        heard.append((event.kind, event.round, event.rounds))

    result = train(callbacks=[listen, lambda event: heard.append(event.row)], test=rows(9))

    assert heard[::2] == [("start", 0, 2), ("round", 1, 2), ("round", 2, 2), ("end", 2, 2)]
    assert heard[1]["engine"] == "sequential"
    assert heard[3] == result.history[0]
    assert heard[7] == result.history[1]


def test_clients_are_judged_on_their_own_tests_unless_it_is_switched_off():
    tested = clients_of(3, test=lambda client: rows(client + 50) if client else None)

    result = train(tested)
    without = train(tested, client_tests=False)

    assert list(result.clients) == [1, 2]
    assert result.clients[2].examples == 5
    x, y = rows(52)["x"], rows(52)["y"]
    assert result.clients[2].metrics["accuracy"] == (result.model(x).argmax(1) == y).double().mean()
    assert without.clients == {}
    assert "clients_loss" not in without.history[-1]


def test_workers_and_an_engine_are_two_answers_to_one_question():
    with pytest.raises(SettingsError, match=r"workers=2 and engine=.*Give one.*parallel\(2\)"):
        train(workers=2, engine=fm.engines.sequential())


def test_clients_are_loaded_when_they_are_asked_and_not_kept():
    loaded, held = [], []

    def load(client):
        loaded.append(client)
        data = rows(client)
        held.append(weakref.ref(data["x"]))
        return data

    result = train(clients_of(100, load), cohort=3, rounds=4)
    gc.collect()

    assert len(loaded) <= 3 * 4 + 2  # a look before the first round costs a client
    assert result.history[-1]["answered"] == 3
    assert [one() for one in held] == [None] * len(held)


def test_a_large_population_is_drawn_from_without_being_listed():
    clients = clients_of(100_000)
    tracemalloc.start()

    cohort = draw_cohort(fm.sampling.uniform(20), clients.ids, 1, 0)
    result = train(clients, cohort=20, rounds=1)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A list of the ids alone would take 100,000 times 8 bytes, and 32 more for each number.
    assert peak < 2_000_000
    assert len(set(cohort.clients)) == 20
    assert result.settings["population"] == 100_000


def living(references):
    return sum(reference() is not None for reference in references)


def most_updates_alive(cohort):
    """Run a round and return how many leaves of updates were ever alive together."""
    made, most = [], []
    built = algorithm()
    [work] = built.works

    def finish(sent, carry, seen):
        update, own = work.finish(sent, carry, seen)
        made.extend(weakref.ref(leaf) for leaf in fm.tree.leaves(update.value))
        most.append(living(made))
        return update, own

    train(clients_of(cohort), fm.fedavg(work._replace(finish=finish)), rounds=1)
    return max(most)


def test_the_server_holds_a_sum_and_not_the_updates():
    # A weight and a bias: of the client at work, of the one before it, and of the pattern that
    # every update must fit.
    assert most_updates_alive(200) == most_updates_alive(20) <= 6


def test_tensors_do_not_grow_in_number_with_rounds():
    counts = {}

    def count(event):
        if event.kind == "round" and event.round in (5, 50):
            gc.collect()
            counts[event.round] = sum(
                issubclass(type(one), torch.Tensor) for one in gc.get_objects()
            )

    train(rounds=50, cohort=2, test=rows(9), callbacks=[count], evaluate_every=1)

    assert counts[50] == counts[5]


def test_a_judgement_that_is_not_finite_is_told_as_nan_and_never_the_best():
    def loss(outputs, targets):
        return outputs[:, 0] / (1 - targets) * (1 - targets)  # 0 / 0 where a target is 1

    built = fm.fedavg(fm.local.sgd(fm.objective(nn.Linear(3, 2), loss), lr=0.1))
    fine = [{"x": rows(client)["x"], "y": torch.zeros(5)} for client in range(2)]

    result = train(fine, built, test={"x": rows(9)["x"], "y": torch.tensor([0.0, 0, 0, 0, 1])})

    assert [math.isnan(row["test_loss"]) for row in result.history] == [True, True]
    assert result.best.round == 0
    assert torch.equal(result.best_model.weight, result.model.weight)


class TestProcess:
    def test_two_verbs_do_what_run_does(self):
        process = fm.process(algorithm(), seed=4)
        state = process.initialize()
        data = [rows(client) for client in range(4)]

        for _ in range(3):
            state, report = process.next(state, data)

        straight = train(data, rounds=3, seed=4)
        assert torch.equal(process.model(state).weight, straight.model.weight)
        assert (report["round"], report["asked"], report["answered"]) == (3, 4, 4)

    def test_any_state_may_be_gone_on_from_again(self):
        process = fm.process(algorithm(), seed=4)
        first, _ = process.next(process.initialize(), [rows(0), rows(1)])
        before = first.state["params"]["weight"].clone()

        one, _ = process.next(first, [rows(2)])
        other, _ = process.next(first, [rows(2)])

        assert torch.equal(one.state["params"]["weight"], other.state["params"]["weight"])
        assert torch.equal(first.state["params"]["weight"], before)

    def test_each_round_may_have_clients_of_its_own(self):
        process = fm.process(algorithm())
        state, report = process.next(process.initialize(), {"a": rows(0), "b": rows(1)})

        state, report = process.next(state, {"c": rows(2)})

        assert (report["round"], report["asked"]) == (2, 1)

    def test_a_state_is_judged_on_any_examples(self):
        process = fm.process(algorithm())
        state, _ = process.next(process.initialize(), [rows(0)])
        x, y = rows(7)["x"], rows(7)["y"]

        found = process.evaluate(state, (x, y))

        assert found["accuracy"] == (process.model(state)(x).argmax(1) == y).double().mean()

    def test_processes_give_the_same_bits(self):
        data = [rows(client) for client in range(4)]
        models = []
        for engine in (fm.engines.sequential(), fm.engines.parallel(2, threads=False)):
            process = fm.process(algorithm(), engine=engine)
            state, _ = process.next(process.initialize(), data)
            models.append(process.model(state).weight)

        assert torch.equal(*models)
