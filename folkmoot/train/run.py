"""The front door: one call trains a model across clients and returns what came of it."""

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from folkmoot.core.algorithm import Algorithm
from folkmoot.core.codec import Codec
from folkmoot.core.engine import Opener, Setting
from folkmoot.core.errors import SettingsError
from folkmoot.data import as_clients, as_examples
from folkmoot.engines import auto, sequential
from folkmoot.engines.clock import now
from folkmoot.engines.fleet import Fleet
from folkmoot.engines.secure import secure_sums
from folkmoot.local.chosen import Keep
from folkmoot.local.personal import personalize
from folkmoot.privacy.dp import DP
from folkmoot.secagg.secure import Secure
from folkmoot.staleness import Staleness
from folkmoot.train.asking import refuse_changing
from folkmoot.train.check import EVALUATIONS, check
from folkmoot.train.checkpoint import store_of
from folkmoot.train.downlink import down_codec
from folkmoot.train.environment import program_facts
from folkmoot.train.evaluation import Judge, shards
from folkmoot.train.events import Callback
from folkmoot.train.folders import checked_folders
from folkmoot.train.front import Checked, Handed, current
from folkmoot.train.guarantee import spent
from folkmoot.train.guard import guarded
from folkmoot.train.options import (
    refuse_engine,
    refuse_flags,
    refuse_folders,
    refuse_functions,
    refuse_memory,
    refuse_no_algorithm,
    refuse_numbers,
    refuse_seed,
    refuse_unfit,
    refuse_unknown,
)
from folkmoot.train.policy import policy_of
from folkmoot.train.preflight import first_client
from folkmoot.train.progress import Progress
from folkmoot.train.progress import shown as display_of
from folkmoot.train.promised import promised
from folkmoot.train.result import Result, result_of
from folkmoot.train.rounds import all_rounds
from folkmoot.train.sampling import Draw, Sampling
from folkmoot.train.standing import Program, begin, identity_of
from folkmoot.train.stopping import Stop
from folkmoot.train.store import CLIENT_MEMORY
from folkmoot.train.timed import made_of, started, timed, told_of
from folkmoot.train.whom import Places


def run(
    algorithm: Algorithm,
    clients: Any,
    *,
    rounds: int | None = None,
    cohort: int | float | None = None,
    sampling: Sampling | Draw | None = None,
    compress: Codec | None = None,
    compress_down: Codec | None = None,
    fleet: Fleet | None = None,
    deadline_s: float | None = None,
    over_select: float | None = None,
    quorum: int | float | None = None,
    pace_s: float | None = None,
    partial: bool = False,
    buffer: int | None = None,
    staleness: Staleness | Callable[[int], float] | None = None,
    personal: Keep | None = None,
    privacy: DP | None = None,
    secure: Secure | str | bool = False,
    test: Any = None,
    seed: int = 0,
    workers: int | None = None,
    engine: Opener | None = None,
    exact: bool = True,
    precision: str = "float32",
    evaluate_every: int | None = None,
    client_tests: bool = True,
    best: str | None = None,
    monitor: bool = True,
    stop: Stop | None = None,
    callbacks: Sequence[Callback] = (),
    progress: Progress | bool | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1,
    resume: bool = False,
    client_memory: int = CLIENT_MEMORY,
    save: str | Path | None = None,
    name: str | None = None,
    **unknown: Any,
) -> Result:
    """Train across clients and return the model, its history and what it cost.

    Args:
        algorithm: What is done, such as `fedavg(work)`.
        clients: Whose data: a `ClientData`, or a list or dict of torch Datasets, (x, y) pairs or
            trees.
        rounds: Rounds to run; a resumed run counts those already done.
        cohort: Clients asked in a round, as a number, or as a share of the population if it is a
            float; None is everyone.
        sampling: Another way to draw a cohort, from `fm.sampling`, or a function (clients, round,
            rng) -> list.
        compress: How updates travel, such as `fm.codecs.quantize(8)`; bytes are those of what it
            packs. Single numbers and statistics of layers travel as they are.
        compress_down: How differences of broadcasts travel, to clients that keep the last one.
        fleet: Whose devices clients are, such as `fm.fleets.phones()`: a virtual clock then says
            who is there, how long an answer takes, and who is lost.
        deadline_s: Virtual seconds after which a round closes with the answers that are there.
        over_select: Devices asked for each answer that is waited for, such as 1.3; `cohort` answers
            are.
        quorum: Fewest answers, or a float's share of those asked, with which a round has a result.
        pace_s: Least virtual seconds between the beginnings of two rounds.
        partial: Whether a device without the time for all steps sends what it has by the deadline.
        buffer: Answers that make a new model, asynchronously: `cohort` devices are always at work,
            and who is late goes on.
        staleness: How late answers count, from `fm.staleness`; None is 1 / sqrt(1 + staleness).
        personal: Leaves of the model that stay with each client: a pattern such as "head.*", layer
            types, a function of a leaf's name, or a list of these. `result.clients[id].model` is
            then that client's model, and what is judged on its test examples.
        privacy: A budget of differential privacy, such as `fm.DP(epsilon=8, delta=1e-5, clip=1.0)`:
            updates are clipped, sums noised, and `result.privacy` says what was spent. Means are
            then uniform over the expected cohort, a cohort given as a number is drawn by Poisson
            sampling, and clients' own tests stay unseen unless the budget declares them.
        secure: True for secure sums: the server learns the sum over those who answered, and nothing
            else; a third of the clients may vanish in mid-round. With `privacy` the clients add the
            noise inside the sum, and nobody is trusted. A simulation adds modulo a power of two;
            "protocol" plays the whole protocol, with the same bits. `fm.Secure(...)` states other
            numbers. Clients' own tests then stay unseen.
        test: Held-out examples that judge the global model: a tree, an (x, y) pair or a Dataset.
            With personal leaves there is no global model to judge.
        seed: The one seed; equal seeds give equal bits at any number of workers.
        workers: Streams of clients; None is one a core.
        engine: Where clients run, from `fm.engines`; None chooses among those that give the
            reference's bits.
        exact: False also allows vectorized and compiled arithmetic, whose last bits differ.
        precision: "float32", or "bf16" for gradients under autocast.
        evaluate_every: Rounds between evaluations; None evaluates about 50 times. The last round
            always is.
        client_tests: Whether the model is also judged on each client's own test examples, where
            they have some.
        best: The metric that chooses `result.best`, such as "accuracy"; None is accuracy where
            there is one, else the loss. On the held-out set, or over clients' tests where there is
            none.
        monitor: Whether divergence, a stall, and clients that drift apart are looked for, and told
            with advice.
        stop: When to end early: `fm.stopping.patience(...)`, `target(...)`, or a function of
            the history that returns why, or True.
        callbacks: Functions of an `Event`, called at the start, after each round and at the end.
        progress: How to show what happens; False for nothing; None for a live bar on a terminal or
            in a notebook, and a line for each evaluation elsewhere.
        checkpoint: Folder in which the run is stored after each round, so that it can go on after a
            kill.
        checkpoint_every: Rounds between checkpoints.
        resume: Go on from the folder's newest checkpoint, with the bits of a run that never
            stopped; begins anew where there is none.
        client_memory: Bytes of clients' private states (control variates, models of their own)
            that stay in memory, beside those of the last round. The others are written to the
            folder of checkpoints; without one, to a temporary folder, in `save` if that is given.
        save: Folder for the finished run: settings, history, model, picture and report.
        name: What the run is called in reports.

    Returns:
        A `Result`: print it, `plot` it, `save` it; `result.model` is an ordinary module.

    Raises:
        SettingsError: If the options contradict each other or the data; before the first round. If
            `resume` finds a run of another program; or if the folder holds a run that has not
            ended, and `resume` was not given. If `privacy` meets a rule that has no bound.
        BudgetError: If the run would overspend a ledger; before the first client is asked.
        DataError: If a client's examples cannot be used.
        DivergenceError: If no client's update is finite.
        QuorumError: If three rounds in a row that asked clients have no usable answer, or no round
            has one.
        CheckpointError: If `resume` finds nothing that can be read.
        InfrastructureError: If nothing can be written in `save` or `checkpoint`; before round 1.
        Exception: What client code raises comes out as it is, with client, round and stage as a
            note.
    """
    refuse_unknown("run", unknown, run.__kwdefaults__)
    refuse_no_algorithm("run", algorithm)
    if rounds is None:
        raise SettingsError("run() needs rounds=, the number of rounds to run.")
    refuse_numbers(rounds=rounds, evaluate_every=evaluate_every, checkpoint_every=checkpoint_every)
    refuse_seed(seed)
    refuse_functions(stop, callbacks)
    refuse_flags(monitor=monitor)
    refuse_folders(resume, checkpoint, save)
    refuse_memory(client_memory)
    refuse_engine(engine, workers)
    policy = policy_of(fleet, deadline_s, over_select, quorum, pace_s, partial, buffer, staleness)
    down = down_codec(compress_down)
    front = current()
    workers, progress = front.workers or workers, front.progress or progress
    promises: dict[str, Any] = {"privacy": privacy, "secure": secure, "compress": compress}
    asked = {"rounds": rounds, "cohort": cohort, "sampling": sampling, "personal": personal}
    if front.hands_over:
        released = {"privacy": privacy, "secure": secure, "seed": seed}
        raise Handed(algorithm, clients, asked | released)
    if front.checks:
        report = check(
            algorithm,
            clients,
            **asked | promises,
            test=test,
            seed=seed,
            workers=workers,
            precision=precision,
            evaluate_every=evaluate_every,
            client_tests=client_tests,
            best=best,
        )
        raise Checked(report)
    if personal is not None:
        algorithm = personalize(algorithm, personal)
    name = name or front.name or algorithm.name
    place = front.place(name) if front.place else None
    stored = checked_folders(checkpoint, save, place)
    federation, held_out = as_clients(clients), None if test is None else as_examples(test)
    setting = Setting(federation, seed, shards(held_out, algorithm.objective), precision)
    first_client(algorithm, setting, held_out)
    whom = (algorithm, federation, rounds, cohort, sampling)
    time = timed(fleet, policy, *whom, **promises, down=down, seed=seed)
    whom = (*whom[:3], time.cohort, time.sampling)
    promise = promised(*whom, **promises, largest=time.largest)
    algorithm, drawn, plan = promise.algorithm, promise.sampling, promise.plan
    if policy.carries:
        refuse_changing(algorithm, len(federation))
    if plan is not None and plan.dp.unit == "example":
        # A step that looks at examples otherwise shows it now.
        first_client(algorithm, setting, None)
    judged = client_tests and promise.client_tests and federation.has_tests
    judge = Judge(algorithm, setting, best, judged)
    expected = drawn.expected(len(federation))
    facts = program_facts(algorithm, federation, drawn.name, expected, seed, precision)
    facts |= promise.facts | told_of(fleet, policy, down, time)
    program = Program(
        algorithm,
        federation,
        drawn,
        seed,
        rounds,
        evaluate_every or max(1, math.ceil(rounds / EVALUATIONS)),
        judge,
        stop,
        stored,
        checkpoint_every,
        identity_of(facts, algorithm, drawn, judge, made_of(fleet, policy, down)),
        store_of(stored, client_memory, save),
        policy,
        down,
        time.difference_bytes,
        Places(federation.ids),
        monitor=monitor,
        measures=monitor and plan is None and promise.sums is None,
    )
    sums = promise.sums
    # The protocol asks one client after another.
    opener = engine or (
        sequential() if sums and sums.protocol else auto(algorithm, rounds, workers, exact=exact)
    )
    if sums is not None:
        opener = secure_sums(opener, sums)
    begun = now()
    standing = begin(program, resume := resume or front.resume)
    guard = guarded(plan, stored, resume, standing.snapshot.round) if plan else None
    program = started(program, time, guard, standing.snapshot.round)
    with (
        contextlib.closing(guard) if guard else contextlib.nullcontext(),
        contextlib.closing(opener(setting)) as opened,
        display_of(progress) as display,
    ):
        refuse_unfit(opened, algorithm.works)
        described = {"name": name, **promise.shown(facts), "rounds": rounds, "engine": opened.name}
        settings = described | front.app
        standing = all_rounds(program, standing, opened, settings, [display, *callbacks], guard)
        if guard:
            settings["privacy"] = spent(facts["privacy"], guard, standing.snapshot.round)
        # An engine that nobody named may have given way to another one.
        settings["engine"] = opened.name
    result = result_of(program, standing, settings, now() - begun)
    for folder in {Path(chosen) for chosen in (checkpoint, save, place) if chosen is not None}:
        result.save(folder)
    return result
