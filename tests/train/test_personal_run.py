"""`fm.run(..., personal=...)`: whose model is whose, what is judged, and how a run goes on."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import folkmoot as fm
from folkmoot.data import as_clients
from folkmoot.local.personal import personalize
from folkmoot.train.environment import program_facts
from folkmoot.train.front import Checked, Front, behind

IDS = [3, 7, 11, 20]


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """Leave out what a finished run draws: it takes longer than all else here."""
    monkeypatch.setattr(fm.Result, "plot", lambda result, path: None)
    monkeypatch.setattr(fm.Result, "report", lambda result, path: None)


def rows(client, count):
    """Give a client examples whose labels are another client's turned around."""
    draw = torch.Generator().manual_seed(client + count)
    x = torch.randn(count, 3, generator=draw)
    return {"x": x, "y": ((x[:, 0] > 0) ^ bool(client % 2)).long()}


def clients():
    return fm.data.from_function(IDS, lambda one: rows(one, 9), test=lambda one: rows(one, 40))


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def algorithm(name="fedavg", **options):
    work = fm.local.sgd(fm.classifier(model()), lr=0.3, batch_size=3, momentum=0.5)
    return getattr(fm, name)(work, **options)


def run(what=None, **options):
    given = {"rounds": 3, "progress": False, "engine": fm.engines.sequential(), **options}
    return fm.run(what or algorithm(), clients(), **given)


def numbers(result):
    """Return all that a run has learnt: the shared state, and each client's own model."""
    own = {one: found.model.state_dict() for one, found in result.clients.items()}
    return [
        *result.state_dict.values(),
        *(leaf for state in own.values() for leaf in state.values()),
    ]


def alike(left, right):
    return all(map(torch.equal, numbers(left), numbers(right)))


def test_every_client_has_a_model_of_its_own_under_its_id():
    result = run(personal="2.*")

    assert list(result.clients) == IDS
    models = [found.model.state_dict() for found in result.clients.values()]
    heads, bodies = [found["2.weight"] for found in models], [found["0.weight"] for found in models]
    assert not any(torch.equal(heads[0], head) for head in heads[1:])
    assert all(torch.equal(body, result.state_dict["0.weight"]) for body in bodies)
    # Nobody's head is in the global model, which keeps the first one.
    assert torch.equal(result.state_dict["2.weight"], model()[2].weight)


def test_clients_tests_are_judged_by_their_own_models():
    result, common = run(personal="2.*", rounds=8), run(rounds=8)

    for one, found in result.clients.items():
        held = rows(one, 40)
        outputs = found.model(held["x"])
        assert found.metrics["loss"] == pytest.approx(F.cross_entropy(outputs, held["y"]).item())
        assert found.examples == 40
    # Clients disagree on every label, so that one model for all is no better than a coin.
    assert result.metrics["clients_accuracy"] > 0.8
    assert common.metrics["clients_accuracy"] < 0.6


def test_a_client_that_was_never_asked_has_the_first_model_s_leaves():
    asked = run(personal="*", sampling=lambda found, number, draw: found[:2], rounds=2)

    first = model().state_dict()
    for one, found in asked.clients.items():
        same = all(
            torch.equal(leaf, first[name]) for name, leaf in found.model.state_dict().items()
        )
        assert same == (one in IDS[2:])


def test_a_common_test_set_is_not_judged_and_the_result_says_so():
    result = run(personal=["2.*", nn.BatchNorm1d], test=rows(0, 20))

    assert "test_loss" not in result.metrics
    assert result.settings["personal"] == [
        *("1.bias", "1.num_batches_tracked", "1.running_mean", "1.running_var", "1.weight"),
        *("2.bias", "2.weight"),
    ]
    said = str(result)
    assert "personal     1.bias, 1.num_batches_tracked, 1.running_mean and 4 more\n" in said
    assert "clients' own tests judge their own models, test= none\n" in said
    assert "personal" not in str(run(rounds=1))


def test_where_clients_have_whole_models_the_result_says_which_tests_judge_what():
    said = str(run(algorithm("ditto", lam=0.1), test=rows(0, 20), rounds=1))

    judge = "clients' own tests judge their own models, test= result.model"
    assert f"personal     {judge}\n" in said


def test_a_run_without_tests_of_clients_says_what_would_judge_it():
    result = run(personal="2.*", client_tests=False, test=rows(0, 20))

    assert "give fm.run() clients with tests of their own." in str(result)
    with pytest.raises(fm.SettingsError, match="Give clients with tests of their own"):
        run(personal="2.*", client_tests=False, test=rows(0, 20), best="accuracy")


def test_a_model_that_is_all_personal_is_trained_by_each_client_alone():
    work = fm.local.sgd(fm.classifier(model()), lr=0.25, batch_size=None, epochs=2)

    result = run(fm.fedavg(work), personal="*", rounds=2)

    for one, found in result.clients.items():
        alone, data = model(), rows(one, 9)
        for _ in range(4):
            alone.zero_grad()
            F.cross_entropy(alone(data["x"]), data["y"]).backward()
            with torch.no_grad():
                for leaf in alone.parameters():
                    leaf.sub_(0.25 * leaf.grad)
        torch.testing.assert_close(found.model.state_dict(), dict(alone.state_dict()))
    # A weight a client up, the number of the round down.
    assert result.traffic == (2 * len(IDS) * 8, 2 * len(IDS) * 8)


@pytest.mark.parametrize("personal", ["2.*", nn.BatchNorm1d, "*"], ids=str)
def test_processes_give_the_bits_of_one_after_another(personal):
    engine = fm.engines.parallel(2)

    assert alike(run(personal=personal, rounds=2), run(personal=personal, rounds=2, engine=engine))


PROGRAMS = {
    "fedavg": {},
    "fedprox": {"mu": 0.1},
    "scaffold": {},
    "fedrep": {"personal": "2.*", "head": 1},
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_run_that_goes_on_has_the_bits_of_one_that_never_stopped(name, tmp_path):
    given = {} if name == "fedrep" else {"personal": ["2.*", nn.BatchNorm1d]}

    def part(rounds, folder, **more):
        program = algorithm(name, **PROGRAMS[name])
        return run(program, rounds=rounds, cohort=2, checkpoint=folder, **given, **more)

    straight = part(4, tmp_path / "straight")
    part(2, tmp_path / "halved")
    resumed = part(4, tmp_path / "halved", resume=True)

    assert alike(resumed, straight)
    assert resumed.metrics == straight.metrics


@pytest.mark.parametrize("other", ["0.*", ["2.*", "0.bias"], None], ids=str)
def test_a_run_goes_on_with_its_own_personal_leaves_only(other, tmp_path):
    run(personal="2.*", rounds=1, checkpoint=tmp_path)

    # Other words for the same leaves are no other program.
    run(personal=["2.weight", "2.bias"], rounds=2, checkpoint=tmp_path, resume=True)
    with pytest.raises(
        fm.SettingsError, match=r"program: personal was \['2.bias', '2.weight'\] and is"
    ):
        run(personal=other, rounds=3, checkpoint=tmp_path, resume=True)


def test_who_is_asked_after_a_kill_begins_with_the_leaves_of_those_before(tmp_path):
    def part(rounds, seed, **more):
        torch.manual_seed(seed)
        work = fm.local.sgd(fm.classifier(nn.Linear(3, 2)), lr=0.3)
        return run(fm.fedavg(work), rounds=rounds, cohort=1, checkpoint=tmp_path, **more)

    part(1, 0, personal="bias")

    # Personal leaves of who was not asked yet are in no checkpoint.
    with pytest.raises(fm.SettingsError, match=r"initial_model was .*same weights.*manual_seed"):
        part(2, 1, personal="bias", resume=True)
    assert part(2, 0, personal="bias", resume=True).rounds == 2


def test_what_a_program_is_known_by_is_the_same_in_another_process():
    from folkmoot.train.sampling import as_sampling
    from folkmoot.train.standing import identity_of

    class Judged:
        class best:
            metric = "loss"

    def known(personal):
        what = personalize(algorithm("scaffold"), personal)
        facts = program_facts(what, as_clients(clients()), "all", 4.0, 0, "float32")
        return json.dumps(identity_of(facts, what, as_sampling(None, None), Judged))

    # An address would be another one in each process.
    assert " at 0x" not in known("2.*")
    assert known("2.*") == known("2.*") != known("0.*")


def test_a_pattern_that_means_no_leaf_is_refused_before_any_data_is_loaded():
    def load(client):
        raise AssertionError("a client was asked")

    with pytest.raises(fm.SettingsError, match=r"meant by 'tail.\*'. Its leaves are 0.weight, 0.b"):
        fm.run(algorithm(), fm.data.from_function([0], load), rounds=1, personal="tail.*")


def test_an_algorithm_whose_clients_have_models_already_is_refused():
    with pytest.raises(fm.SettingsError, match="have one already"):
        run(algorithm("fedper", personal="2.*"), personal="2.*")


@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
def test_a_check_knows_of_personal_leaves(name):
    data = clients()

    report = fm.check(algorithm(name), data, personal="2.*", test=rows(0, 20))
    whole = fm.check(algorithm(name), data, test=rows(0, 20))
    wrong = fm.check(algorithm(name), data, personal="tail.*")

    assert report.ok
    assert wrong.problems == [
        "No leaf of the model is meant by 'tail.*'. Its leaves are 0.weight, 0.bias, 1.weight, "
        "1.bias, 2.weight, 2.bias, 1.running_mean, 1.running_var, 1.num_batches_tracked."
    ]
    # 10 numbers of 4 bytes less for each of the 4 clients, and with SCAFFOLD their controls.
    less = 4 * 40 * (2 if name == "scaffold" else 1)
    assert whole.cost.upload_bytes - report.cost.upload_bytes == less
    assert whole.cost.model_bytes == report.cost.model_bytes


def test_a_check_in_front_of_an_app_knows_of_them_too():
    with behind(Front(checks=True)), pytest.raises(Checked) as good:
        run(personal="2.*")
    with behind(Front(checks=True)), pytest.raises(Checked) as bad:
        run(personal="tail.*")

    assert good.value.report.ok
    assert "No leaf of the model is meant by 'tail.*'" in str(bad.value.report)
