"""What goes wrong in a client is named, hurts nobody else, and leaves no process behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.engine import Cohort, LeftOut, Setting
from folkmoot.core.errors import DivergenceError, InfrastructureError, QuorumError
from folkmoot.data.pooled import from_pool
from folkmoot.engines import forked, parallel, sequential
from folkmoot.engines.tasks import example
from folkmoot.train.loop import first_snapshot, run_round

ENGINES = {
    "sequential": sequential(),
    "processes": parallel(2, threads=False),
    "threads": parallel(2, threads=True),
}
every_engine = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)


class Odd(Exception):
    """An error of the user's own, with an argument that no message shows."""

    def __init__(self, why, code):
        super().__init__(why)
        self.code = code


def status_of(path):
    """Return state and parent of a process from its /proc entry, or nothing if it is gone."""
    try:
        fields = path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None, None
    return fields[0], int(fields[1])


def children():
    """Return all processes whose parent is this one, dead ones that nobody waited for included."""
    found = {path.parent.name: status_of(path) for path in Path("/proc").glob("[0-9]*/stat")}
    return [int(pid) for pid, (_, parent) in found.items() if parent == os.getpid()]


@pytest.fixture(autouse=True)
def no_process_is_left():
    before = children()
    yield
    assert children() == before


def rows(client):
    drawn = torch.Generator().manual_seed(client)
    return {"x": torch.randn(4, 3, generator=drawn), "y": torch.arange(4) % 2}


def work_of(**options):
    torch.manual_seed(1)
    options = {"batch_size": 2} | options
    return fm.local.sgd(fm.classifier(nn.Linear(3, 2)), lr=0.1, **options)


class Asked:
    """One task for everyone of twelve clients, as a sum or as single updates."""

    def __init__(self, engine, load, work, aggregator=None):
        self.engine = engine(Setting(fm.data.from_function(range(12), load), 0))
        sent = {**work.objective.init(), "round": torch.tensor(1)}
        self.task = fm.Task(sent, work, aggregator or fm.aggregators.weighted_mean())
        self.state = self.task.aggregator.init(example(self.task), 12)
        self.cohort = Cohort(3, tuple(range(12)), 12, 12)

    def sum(self):
        return self.engine.ask(self.task, self.state, self.cohort, {}).total

    def singles(self):
        return self.engine.stream(self.task, self.cohort, {})


STAGES = {
    "load": "In client 5, round 3, stage load.",
    "start": "In client 5, round 3, stage start.",
    "step": "In client 5, round 3, stage step 2.",
    "finish": "In client 5, round 3, stage finish.",
    "encode": "In client 5, round 3, stage encode.",
}


class Failing:
    """A loader, a work and a codec of which one stage fails for client 5, until it is mended."""

    def __init__(self, stage):
        self.stage = stage
        self.mended = False
        self.here = threading.local()
        work = work_of()

        def start(sent, own, key):
            self.meet("start")
            return work.start(sent, own, key)

        def step(self_work, sent, carry, batch):
            self.here.steps += 1
            if self.here.steps == 2:
                self.meet("step")
            return work.step(self_work, sent, carry, batch)

        def finish(sent, carry, seen):
            self.meet("finish")
            return work.finish(sent, carry, seen)

        def encode(state, vector, key):
            self.meet("encode")
            return vector

        self.work = work._replace(start=start, step=step, finish=finish)
        codec = fm.chain(fm.codecs.clip(1.0))._replace(encode=encode)
        self.aggregator = fm.aggregators.weighted_mean(codec)

    def load(self, client):
        self.here.client, self.here.steps = client, 0
        self.meet("load")
        return rows(client)

    def meet(self, stage):
        if not self.mended and stage == self.stage and getattr(self.here, "client", None) == 5:
            raise Odd("it is Tuesday", 42)


@every_engine
@pytest.mark.parametrize("stage", STAGES)
def test_an_error_of_a_client_comes_out_as_it_is_with_client_round_and_stage(engine, stage):
    failing, whole = Failing(stage), Failing("never")
    asked = Asked(engine, failing.load, failing.work, failing.aggregator)

    with pytest.raises(Odd) as found:
        asked.sum()
    failing.mended = True
    after = asked.sum()
    asked.engine.close()

    assert (str(found.value), found.value.code) == ("it is Tuesday", 42)
    assert STAGES[stage] in found.value.__notes__
    reference = Asked(sequential(), whole.load, whole.work, whole.aggregator).sum()
    assert torch.equal(after.value["vector"], reference.value["vector"])


@every_engine
def test_an_error_among_single_updates_comes_out_after_those_before_it(engine):
    failing = Failing("load")
    asked = Asked(engine, failing.load, failing.work)
    seen = []

    with pytest.raises(Odd) as found:
        seen.extend(client for client, _ in asked.singles())
    failing.mended = True
    after = [client for client, _ in asked.singles()]
    asked.engine.close()

    assert STAGES["load"] in found.value.__notes__
    assert seen == [0, 1, 2, 3, 4]
    assert after == list(range(12))


@every_engine
def test_whoever_stops_early_among_single_updates_leaves_nothing_behind(engine):
    asked = Asked(engine, rows, work_of())
    singles = asked.singles()

    first, _ = next(singles)
    singles.close()
    total = asked.sum()
    asked.engine.close()

    assert first == 0
    assert total.count == 12


def test_an_engine_may_be_closed_twice_and_in_the_middle():
    for engine in ENGINES.values():
        asked = Asked(engine, rows, work_of())
        singles = asked.singles()
        next(singles)

        asked.engine.close()
        singles.close()
        asked.engine.close()

        assert not list(singles)


def test_an_engine_may_be_closed_while_another_one_is_open():
    first, second = (Asked(ENGINES["processes"], rows, work_of()) for _ in range(2))
    assert first.sum().count == second.sum().count == 12

    # The workers of the second hold copies of the connections to those of the first.
    first.engine.close()
    second.engine.close()


def test_an_engine_may_be_closed_though_a_worker_never_comes_back():
    parent = os.getpid()

    def load(client):
        while client == 1 and os.getpid() != parent:
            pass
        return rows(client)

    asked = Asked(ENGINES["processes"], load, work_of())
    singles = asked.singles()
    first, _ = next(singles)

    asked.engine.close()

    assert first == 0


def test_a_fork_that_fails_leaves_no_worker_and_may_be_tried_again(monkeypatch):
    forks, fork = [], os.fork

    def second_fails():
        forks.append(1)
        if len(forks) == 2:
            raise BlockingIOError("too many processes")
        return fork()

    monkeypatch.setattr(os, "fork", second_fails)
    asked = Asked(ENGINES["processes"], rows, work_of())

    with pytest.raises(BlockingIOError):
        asked.sum()
    after = asked.sum()
    asked.engine.close()

    assert after.count == 12
    assert len(forks) == 3


def test_a_breakpoint_of_a_client_reaches_the_users_hook_in_the_default_engine(monkeypatch):
    met = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: met.append(os.getpid()))

    def load(client):
        if client == 7:
            breakpoint()
        return rows(client)

    clients = fm.data.from_function(range(12), load)

    plain = fm.run(
        fm.fedavg(work_of()), [rows(client) for client in range(12)], rounds=1, progress=False
    )
    result = fm.run(fm.fedavg(work_of()), clients, rounds=1, progress=False)
    fm.run(fm.fedavg(work_of()), clients, rounds=1, progress=False, workers=3)

    assert met == [os.getpid()] * 2
    assert torch.equal(result.model.weight, plain.model.weight)


def test_a_killed_worker_is_named_with_its_clients_and_the_engine_goes_on(tmp_path):
    parent, mark = os.getpid(), tmp_path / "killed"

    def load(client):
        if client == 5 and os.getpid() != parent and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return rows(client)

    asked = Asked(ENGINES["processes"], load, work_of())

    with pytest.raises(
        InfrastructureError, match="signal 9 while it trained clients 5 to 5"
    ) as found:
        asked.sum()
    after = asked.sum()
    asked.engine.close()

    assert "use fewer workers, or resume from the checkpoint" in str(found.value)
    assert after.count == 12


def test_a_killed_worker_is_named_with_what_it_trained_though_more_is_handed_to_it(
    monkeypatch, tmp_path
):
    parent, mark, hand_out = os.getpid(), tmp_path / "killed", forked.send

    def load(client):
        if client == 2 and os.getpid() != parent:
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return rows(client)

    def send_when_it_is_dead(connection, message, tree):
        while message["clients"][0] > 3:
            victim = mark.read_text() if mark.exists() else ""
            if victim and status_of(Path("/proc") / victim / "stat")[0] in ("Z", None):
                break
        hand_out(connection, message, tree)

    asked = Asked(ENGINES["processes"], load, work_of())
    monkeypatch.setattr(forked, "send", send_when_it_is_dead)

    with pytest.raises(InfrastructureError, match="signal 9 while it trained clients 2 to 2"):
        asked.sum()
    asked.engine.close()


def test_a_worker_that_is_killed_between_rounds_is_named_too():
    asked = Asked(ENGINES["processes"], rows, work_of())
    before = children()
    asked.sum()
    (victim, *_) = [pid for pid in children() if pid not in before]

    os.kill(victim, signal.SIGKILL)

    with pytest.raises(InfrastructureError, match=f"Worker process {victim} was ended by signal 9"):
        asked.sum()
    assert asked.sum().count == 12
    asked.engine.close()


def test_a_worker_that_leaves_by_itself_is_named_too():
    parent = os.getpid()

    def load(client):
        if client == 5 and os.getpid() != parent:
            os._exit(3)
        return rows(client)

    asked = Asked(ENGINES["processes"], load, work_of())

    with pytest.raises(InfrastructureError, match="ended with status 3 while it trained clients 5"):
        asked.sum()
    asked.engine.close()


def leaping():
    """Take two steps along all rows: the second meets what the first has made of huge ones."""
    return work_of(batch_size=None, epochs=2)


def huge(client):
    """Return rows of both classes that are finite, but whose products are not."""
    return {**rows(client), "x": torch.full((4, 3), 3e38)}


@every_engine
def test_a_client_whose_update_is_not_finite_is_left_out_and_the_round_goes_on(engine):
    def load(client):
        return huge(client) if client == 3 else rows(client)

    clients = fm.data.from_function(range(6), load)
    others = fm.sampling.fixed([0, 1, 2, 4, 5])

    result = fm.run(fm.fedavg(leaping()), clients, rounds=2, engine=engine, progress=False)
    without = fm.run(fm.fedavg(leaping()), clients, rounds=2, sampling=others, progress=False)

    assert [(left.client, left.round) for left in result.left_out] == [(3, 1), (3, 2)]
    assert "leaf params/weight holds 6 of 6 numbers that are NaN" in result.left_out[0].reason
    assert [row["answered"] for row in result.history] == [5, 5]
    assert torch.allclose(result.model.weight, without.model.weight, atol=1e-6)


@every_engine
def test_a_single_update_that_is_not_finite_is_told_apart(engine):
    def load(client):
        return huge(client) if client == 3 else rows(client)

    asked = Asked(engine, load, leaping())

    left = [found for _, found in asked.singles() if isinstance(found, LeftOut)]
    asked.engine.close()

    assert [(one.client, one.round) for one in left] == [(3, 3)]
    assert "leaf params/weight" in left[0].reason


@every_engine
def test_a_run_in_which_every_client_diverges_stops(engine):
    clients = fm.data.from_function(range(4), huge)

    with pytest.raises(
        DivergenceError,
        match=r"round 1: .* each of the 4 clients that trained .* client 0: .*leaf params/weight",
    ):
        fm.run(fm.fedavg(leaping()), clients, rounds=5, engine=engine, progress=False)


def test_a_client_without_rows_does_not_hide_that_all_others_diverge():
    x = torch.full((8, 3), 3e38)
    clients = from_pool({"x": x, "y": torch.arange(8) % 2}, [0, 1, 2], [0, 4, 4], name="pool")

    with pytest.raises(DivergenceError, match="Lower the learning rate"):
        fm.run(fm.fedavg(leaping()), clients, rounds=5, progress=False)


@every_engine
@pytest.mark.parametrize("sizes", [(0, 4, 4), (4, 0, 4), (4, 4, 0)])
def test_a_client_without_rows_is_left_out_wherever_it_stands(engine, sizes):
    whole = {"x": rows(0)["x"].repeat(2, 1), "y": rows(0)["y"].repeat(2)}
    clients = from_pool(whole, [0, 1, 2], sizes, name="pool")

    result = fm.run(fm.fedavg(work_of()), clients, rounds=1, engine=engine, progress=False)

    assert result.left_out == [LeftOut(sizes.index(0), 1, "it has no examples")]
    assert result.history[0]["answered"] == 2


@every_engine
def test_one_row_under_batch_statistics_is_left_out_with_the_reason(engine):
    sizes = (1, 4, 5)
    clients = fm.data.from_datasets(
        [{"x": torch.randn(size, 3), "y": torch.zeros(size).long()} for size in sizes]
    )
    normed = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    work = fm.local.sgd(fm.classifier(normed), lr=0.1, batch_size=4)

    result = fm.run(fm.fedavg(work), clients, rounds=1, engine=engine, progress=False)

    [left] = result.left_out
    assert left.client == 0
    assert "a batch of one row has no batch statistics" in left.reason
    assert result.history[0]["answered"] == 2


def test_three_rounds_without_an_answer_end_the_run_and_say_why():
    clients = fm.data.from_datasets([rows(client) for client in range(3)])
    work = fm.local.sgd(fm.classifier(nn.Linear(3, 2)), lr=0.1, batch_size=9, last="drop")

    with pytest.raises(
        QuorumError,
        match=r"3 rounds in a row .* client 0: it has 4 examples, fewer than the batch size 9",
    ):
        fm.run(fm.fedavg(work), clients, rounds=9, progress=False)


@every_engine
def test_a_callback_that_raises_ends_the_run_without_a_process_left(engine):
    def listen(event):
        if event.round == 2:
            raise Odd("enough", 1)

    clients = fm.data.from_datasets([rows(client) for client in range(4)])

    with pytest.raises(Odd, match="enough"):
        fm.run(
            fm.fedavg(work_of()),
            clients,
            rounds=5,
            engine=engine,
            callbacks=[listen],
            progress=False,
        )


PROGRAM = """
import sys, torch
import folkmoot as fm

def load(client):
    if client == 5:
        print("training", flush=True)
        while True:
            pass
    return {"x": torch.ones(4, 3), "y": torch.zeros(4).long()}

work = fm.local.sgd(fm.classifier(torch.nn.Linear(3, 2)), lr=0.1)
fm.run(fm.fedavg(work), fm.data.from_function(range(12), load), rounds=3, workers=2, progress=False)
"""


def session_of(leader):
    """Return the living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_program_that_is_ended_in_mid_round_leaves_no_worker(end):
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    with program:
        assert program.stdout.readline() == "training\n"

        program.send_signal(end)
        _, said = program.communicate(timeout=30)

    assert program.returncode == -end
    assert ("KeyboardInterrupt" in said) == (end == signal.SIGINT)
    # A dying process closes its pipes a moment before it is gone.
    assert any(not session_of(program.pid) for _ in range(10_000))


def test_workers_that_ended_with_the_thread_that_forked_them_are_forked_anew(line, pull):
    clients = fm.data.as_clients({0: pull(2.0), 1: pull(4.0)})
    algorithm = fm.fedavg(fm.local.sgd(line(0.0), lr=0.5))
    engine = parallel(2, threads=False)(Setting(clients, seed=0))
    snapshot = first_snapshot(algorithm)

    def one_round():
        nonlocal snapshot
        cohort = Cohort(snapshot.round + 1, (0, 1), 2, 2)
        snapshot, _ = run_round(algorithm, snapshot, engine, cohort, seed=0)

    with contextlib.closing(engine):
        for _ in range(2):
            thread = threading.Thread(target=one_round)
            thread.start()
            thread.join()

    # Each round moves by half of 3, the mean of the slopes 2 and 4.
    assert snapshot.state["params"]["w"].item() == -3
