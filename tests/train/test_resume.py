"""A run that is killed at any instant and goes on ends as if it had never stopped."""

import functools
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import CheckpointError, SettingsError
from folkmoot.train.stopping import patience, target

ROUNDS = 5


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """Leave out what a finished run draws: it takes longer than all else here."""
    monkeypatch.setattr(fm.Result, "plot", lambda result, path: None)
    monkeypatch.setattr(fm.Result, "report", lambda result, path: None)


def rows(client):
    drawn = torch.Generator().manual_seed(client if isinstance(client, int) else len(client))
    x = torch.randn(7, 4, generator=drawn)
    return {"x": x, "y": (x[:, 0] > 0).long()}


def remembering(work):
    """Let each client keep its last update and lean that way."""

    def own(sent):
        return {"drift": trees.zeros_like(sent["params"])}

    def correct(gradient, params, sent, own):
        return trees.axpy(0.3, own["drift"], gradient)

    def finish(sent, carry, seen):
        update, _ = work.finish(sent, carry, seen)
        return update, {"drift": trees.clone(update.value["params"])}

    return work._replace(own=own, correct=correct, finish=finish)


def model(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 2)
    )


def algorithm(module=None, lr=0.1, batch_size=3, server_lr=0.1, clip=0.5):
    """Build a program whose every part has something to remember."""
    work = fm.local.sgd(
        fm.classifier(module or model()), lr=lr, batch_size=batch_size, momentum=0.5
    )
    mean = fm.aggregators.weighted_mean(fm.codecs.clip(clip))
    return fm.fedavg(remembering(work), server=fm.optimizers.adam(server_lr), aggregator=mean)


def clients_of(load=rows, ids=range(6), name="few"):
    return fm.data.from_function(ids, load, name=name)


def train(folder=None, built=None, clients=None, **options):
    options = {"rounds": ROUNDS, "cohort": 4, "seed": 3, "workers": 1, "test": rows(50)} | options
    return fm.run(
        built or algorithm(), clients or clients_of(), checkpoint=folder, progress=False, **options
    )


def told(result):
    """Return all that must be equal: model, best model, history but seconds, best."""
    bits = [
        leaf.numpy().tobytes()
        for one in (result.model, result.best_model)
        for leaf in one.state_dict().values()
    ]
    timeless = [
        {key: part for key, part in row.items() if not key.endswith("_s")} for row in result.history
    ]
    return (
        hashlib.sha256(b"".join(bits)).hexdigest(),
        repr(timeless),
        repr(result.best),
        result.ended,
    )


@functools.cache
def whole():
    return told(train())


def killed(function):
    """Do something in a forked process that must end by a kill."""
    pid = os.fork()
    if not pid:
        try:
            function()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dying_at(round):
    return lambda event: die() if event.kind == "round" and event.round == round else None


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("round", [1, 3, ROUNDS])
def test_a_run_that_was_killed_after_a_round_goes_on_with_the_same_bits(tmp_path, round, workers):
    killed(lambda: train(tmp_path, callbacks=[dying_at(round)], workers=workers))

    assert told(train(tmp_path, resume=True, workers=3 - workers)) == whole()


def test_a_run_that_was_killed_in_the_midst_of_a_round_goes_on_with_the_same_bits(tmp_path):
    rounds = []

    def load(client):
        if rounds == [1, 2]:
            die()
        return rows(client)

    note = lambda event: rounds.append(event.round) if event.kind == "round" else None  # noqa: E731
    killed(lambda: train(tmp_path, clients=clients_of(load), callbacks=[note]))

    assert told(train(tmp_path, resume=True)) == whole()


@pytest.mark.parametrize("round", [1, 3])
def test_a_run_that_was_killed_while_it_stored_a_round_goes_on_with_the_same_bits(tmp_path, round):
    move = Path.replace

    def replace(self, target):
        return die() if f"{round}.safetensors" in self.name else move(self, target)

    def run():
        Path.replace = replace
        train(tmp_path)

    killed(run)

    assert told(train(tmp_path, resume=True)) == whole()
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path):
    for round in range(1, ROUNDS + 1):
        killed(lambda at=round: train(tmp_path, resume=True, callbacks=[dying_at(at)]))

    assert told(train(tmp_path, resume=True)) == whole()


def test_another_process_goes_on_where_a_killed_program_stopped(tmp_path):
    home = Path(__file__).parent
    program = f"import sys; sys.path.insert(0, {str(home)!r}); import test_resume as it; "
    program += f"it.train({str(tmp_path)!r}, callbacks=[it.dying_at(2)], workers=2)"

    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)

    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert told(train(tmp_path, resume=True)) == whole()


def test_checkpoints_of_some_rounds_give_the_same_bits(tmp_path):
    killed(lambda: train(tmp_path, callbacks=[dying_at(3)], checkpoint_every=2))

    assert told(train(tmp_path, resume=True)) == whole()


def test_ids_that_are_text_keep_their_states(tmp_path):
    named = clients_of(ids=["a", "bb", "ccc", "dddd", "eeeee"])
    straight = told(train(clients=named))
    killed(lambda: train(tmp_path, clients=named, callbacks=[dying_at(2)]))

    assert told(train(tmp_path, clients=named, resume=True)) == straight


def newest(folder):
    return max((folder / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:300], lambda data: data[:-9] + b"\1" * 9]
)
def test_a_damaged_checkpoint_is_reported_and_its_round_done_again(tmp_path, damage):
    killed(lambda: train(tmp_path, callbacks=[dying_at(3)]))
    newest(tmp_path).write_bytes(damage(newest(tmp_path).read_bytes()))

    with pytest.warns(UserWarning, match="going on from round 2 instead"):
        resumed = train(tmp_path, resume=True)

    assert told(resumed) == whole()


def test_a_run_of_which_every_checkpoint_is_damaged_is_refused(tmp_path):
    killed(lambda: train(tmp_path, callbacks=[dying_at(3)]))
    for path in (tmp_path / "checkpoints").glob("checkpoint-*"):
        path.write_bytes(b"")

    with pytest.raises(CheckpointError, match="Remove the folder to begin anew"):
        train(tmp_path, resume=True)


def frozen(seed):
    """Build a model whose first layer is fixed, to another matrix for each seed."""
    built = model()
    torch.manual_seed(seed)
    nn.init.normal_(built[0].weight)
    built[0].requires_grad_(False)
    return built


OTHERS = {
    "lr was 0.1 and is 0.2": {"built": lambda: algorithm(lr=0.2)},
    "batch_size was 3 and is 2": {"built": lambda: algorithm(batch_size=2)},
    "server.step.lr was 0.1 and is 0.3": {"built": lambda: algorithm(server_lr=0.3)},
    "encode.norm was 0.5 and is 0.25": {"built": lambda: algorithm(clip=0.25)},
    "parameters was": {"built": lambda: algorithm(nn.Linear(4, 2))},
    "frozen_model was": {"built": lambda: algorithm(frozen(1))},
    "seed was 3 and is 4": {"seed": 4},
    "expected_cohort was 4 and is 5": {"cohort": 5},
    "precision was 'float32' and is 'bf16'": {"precision": "bf16"},
    "sampling was 'uniform without replacement' and is 'fixed'": {
        "cohort": None,
        "sampling": fm.sampling.fixed([0, 1, 2, 3]),
    },
    "population was 6 and is 7": {"clients": lambda: clients_of(ids=range(7))},
    "data was 'few' and is 'many'": {"clients": lambda: clients_of(name="many")},
    "best was 'test_accuracy' and is 'test_loss'": {"best": "loss"},
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder in which a run was killed after two rounds."""
    folder = tmp_path_factory.mktemp("stopped")
    killed(lambda: train(folder, callbacks=[dying_at(2)]))
    return folder


@pytest.mark.parametrize("sentence", OTHERS)
def test_another_program_is_refused_with_the_setting_that_differs(stopped, sentence):
    changed = {
        name: part() if callable(part) and not isinstance(part, tuple) else part
        for name, part in OTHERS[sentence].items()
    }

    with pytest.raises(SettingsError) as found:
        train(stopped, resume=True, **changed)

    assert sentence in str(found.value)
    assert "Restore these settings, or choose another folder." in str(found.value)


def test_two_frozen_models_are_two_programs(tmp_path):
    killed(lambda: train(tmp_path, built=algorithm(frozen(1)), callbacks=[dying_at(1)]))

    with pytest.raises(SettingsError, match="frozen_model was"):
        train(tmp_path, built=algorithm(frozen(2)), resume=True)


def test_a_model_that_was_built_without_a_seed_goes_on_from_the_checkpoint(tmp_path):
    killed(lambda: train(tmp_path, callbacks=[dying_at(2)]))

    assert told(train(tmp_path, built=algorithm(model(seed=9)), resume=True)) == whole()


def test_a_finished_run_comes_back_without_training(tmp_path):
    train(tmp_path)
    events = []

    again = train(tmp_path, resume=True, callbacks=[lambda event: events.append(event.kind)])

    assert told(again) == whole()
    assert events == ["start", "end"]


def test_more_rounds_than_before_go_on_to_the_same_bits(tmp_path):
    train(tmp_path, rounds=2)

    assert told(train(tmp_path, resume=True)) == whole()


@pytest.mark.parametrize(
    "stop", [target("test_loss", 100.0), patience(2, "test_loss", least=100.0)]
)
def test_a_run_that_stopped_early_does_not_go_on(tmp_path, stop):
    early = train(tmp_path, stop=stop)

    again = train(tmp_path, stop=stop, resume=True)

    assert early.rounds < ROUNDS
    assert told(again) == told(early)


def test_resume_begins_anew_where_nothing_is_stored(tmp_path):
    assert told(train(tmp_path / "new", resume=True)) == whole()


def test_a_run_that_forgot_to_resume_does_not_overwrite_what_was_stored(tmp_path):
    killed(lambda: train(tmp_path, callbacks=[dying_at(3)]))

    with pytest.raises(
        SettingsError, match=r"0000003.* has not ended\. Go on with it by resume=True"
    ):
        train(tmp_path)

    assert told(train(tmp_path, resume=True)) == whole()


def test_a_finished_run_gives_way_to_a_new_one(tmp_path):
    train(tmp_path, seed=8)
    killed(lambda: train(tmp_path, callbacks=[dying_at(1)]))

    assert told(train(tmp_path, resume=True)) == whole()


def with_states(name):
    """Build a program whose clients keep a state of one kind, and its options."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    work = fm.local.sgd(fm.classifier(module), lr=0.1, batch_size=3)
    return {
        "scaffold": (fm.scaffold(work), {}),
        "personal": (fm.fedavg(work), {"personal": "2.*"}),
        "both": (fm.scaffold(work), {"personal": "2.*"}),
    }[name]


def of_states(name, folder=None, **more):
    built, options = with_states(name)
    return train(folder, built, **{"rounds": 8, "cohort": 3, "test": None} | options | more)


def told_with_own(result):
    """Return all of `told`, and the bits of each client's own model."""
    models = [result.clients[client].model.state_dict().values() for client in result.clients]
    return told(result), [[leaf.numpy().tobytes() for leaf in model] for model in models]


@functools.cache
def whole_of_states(name):
    return told_with_own(of_states(name))


STATES = ["scaffold", "personal", "both"]


@pytest.mark.parametrize("name", STATES)
def test_states_that_were_all_spilled_give_the_same_bits(name, tmp_path):
    spilled = of_states(name, client_memory=0, save=tmp_path)

    assert told_with_own(spilled) == whole_of_states(name)
    assert list(tmp_path.glob(".folkmoot-states-*/*.states"))


@pytest.mark.parametrize(
    ("name", "memory"), [("scaffold", 0), ("personal", 0), ("both", 2_000), ("both", 2**30)]
)
def test_states_survive_kills_with_the_same_bits(name, memory, tmp_path):
    for round, options in {2: {}, 5: {"checkpoint_every": 2, "workers": 2}}.items():
        killed(
            lambda round=round, options=options: of_states(
                name,
                tmp_path,
                resume=True,
                client_memory=memory,
                callbacks=[dying_at(round)],
                **options,
            )
        )

    resumed = of_states(name, tmp_path, resume=True, client_memory=memory)

    assert told_with_own(resumed) == whole_of_states(name)


@pytest.mark.parametrize("count", range(2, 16, 3))
def test_a_kill_at_any_write_or_removal_goes_on_with_the_same_bits(count, tmp_path):
    done = []

    def instant(act):
        def acted(self, *args, **options):
            done.append(self)
            return die() if len(done) == count else act(self, *args, **options)

        return acted

    def run():
        Path.replace, Path.unlink = instant(Path.replace), instant(Path.unlink)
        of_states("both", tmp_path, client_memory=0)

    killed(run)
    resumed = of_states("both", tmp_path, resume=True, client_memory=0)

    assert told_with_own(resumed) == whole_of_states("both")
    folder = tmp_path / "checkpoints"
    assert not [*folder.glob(".*"), *folder.glob("states/.*")]


def test_a_lost_file_of_states_is_reported_and_its_round_done_again(tmp_path):
    killed(lambda: of_states("scaffold", tmp_path, callbacks=[dying_at(3)]))
    newest = max(
        (tmp_path / "checkpoints" / "states").iterdir(), key=lambda p: p.stat().st_mtime_ns
    )
    newest.unlink()

    with pytest.warns(UserWarning, match=r"state of client \d cannot be read.*round 2 instead"):
        resumed = of_states("scaffold", tmp_path, resume=True)

    assert told_with_own(resumed) == whole_of_states("scaffold")


@pytest.mark.parametrize("bytes", [-1, 1.5, True, "1 GiB"], ids=repr)
def test_what_is_no_number_of_bytes_is_refused(bytes):
    with pytest.raises(SettingsError, match=r"client_memory must be a whole number .*2\*\*30"):
        train(client_memory=bytes)
