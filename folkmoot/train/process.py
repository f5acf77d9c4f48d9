"""The two-verb process: drive the rounds by hand.

process = fm.process(algorithm)
state = process.initialize()
state, metrics = process.next(state, clients)

The verbs are those of TensorFlow Federated's processes. What `next` tells beside the state is what
happened in the round; how good a model is, `evaluate` says, for a client sends nothing beside its
update.
"""

import contextlib
from typing import Any

from torch import nn

from folkmoot.core.algorithm import Algorithm
from folkmoot.core.codec import Codec
from folkmoot.core.engine import ClientId, Cohort, Opener, Setting
from folkmoot.core.errors import BudgetError, SettingsError
from folkmoot.core.fold import ascending
from folkmoot.core.tree import Tree
from folkmoot.data import as_clients, as_examples
from folkmoot.engines import sequential
from folkmoot.engines.secure import secure_sums
from folkmoot.local.evaluate import evaluate
from folkmoot.privacy.dp import DP
from folkmoot.secagg.secure import Secure, as_secure
from folkmoot.secagg.terms import SMALLEST_COHORT
from folkmoot.train.compression import compressing
from folkmoot.train.evaluation import model_of_client, on_held_out, shards
from folkmoot.train.guarantee import Guarantee, guarantee_of, planned, spent
from folkmoot.train.guard import Guard, guarded
from folkmoot.train.loop import Snapshot, first_snapshot, run_round
from folkmoot.train.options import (
    refuse_engine,
    refuse_no_algorithm,
    refuse_numbers,
    refuse_seed,
)
from folkmoot.train.plan import Private
from folkmoot.train.preflight import first_client
from folkmoot.train.private import private
from folkmoot.train.sampling import Sampling
from folkmoot.train.secure import secured
from folkmoot.train.weights import weights_of

_ROOM = 4


class Process:
    """An algorithm as two verbs; it holds no state of its own, so any state may be gone on from."""

    def __init__(
        self,
        algorithm: Algorithm,
        seed: int,
        engine: Opener,
        plan: Private | None = None,
        rounds: int | None = None,
    ) -> None:
        self.algorithm = algorithm
        self.seed = seed
        self.guard = None if plan is None else guarded(plan, None, resume=False)
        """What private rounds pay through; its ledger is what a process keeps, beside counts."""
        self._engine = engine
        self._plan, self._rounds = plan, rounds
        self._calls = self._released = 0

    def initialize(self) -> Snapshot:
        """Return the state before any round."""
        return first_snapshot(self.algorithm)

    def next(self, state: Snapshot, clients: Any) -> tuple[Snapshot, dict[str, Any]]:
        """Run one round with all of the clients that are given.

        Args:
            state: What `initialize` or the last `next` returned; it stays as it is.
            clients: This round's clients: a `ClientData`, or a list or dict of Datasets, (x, y)
                pairs or trees.

        Returns:
            The next state, and what happened: round, clients asked and answered, who was left out
            and why, seconds of client work, bytes.

        Raises:
            BudgetError: If the round would overspend, or is one more than a private process is for;
                nobody has been asked then.
        """
        if not isinstance(state, Snapshot):
            raise SettingsError(
                "next() needs the state that initialize() or the last next() returned, but was "
                f"given a {type(state).__name__}."
            )
        if self.guard is not None and self._calls == self._rounds:
            raise BudgetError(
                f"This process is for {self._rounds} private rounds, which have been run (a round "
                "that is run again counts again), so nobody was asked. Build a process for more: "
                f"fm.process(..., rounds={self._rounds + 1})."
            )
        federation = as_clients(clients)
        setting = Setting(federation, self.seed)
        if state.round == 0:
            first_client(self.algorithm, setting, None)
        # Rounds by hand vary: whole numbers get room for more clients than there are in the first.
        ids, room = ascending(federation), _ROOM * len(federation)
        cohort = Cohort(state.round + 1, ids, len(federation), room)
        guard, paid = self._guard(), self._paid()
        try:
            with contextlib.closing(self._engine(setting)) as engine:
                following, report = run_round(
                    self.algorithm, state, engine, cohort, self.seed, guard
                )
        finally:
            # A round that was refused before anyone was asked is none.
            self._calls += self._paid() > paid
        self._released += 1
        return following, report._asdict()

    def _guard(self) -> Guard | None:
        """Return a guard that charges this call: a round that is run twice is released twice."""
        if self.guard is None:
            return None
        call = self._calls
        return self.guard._replace(key=lambda round, exchange: (call, exchange))

    def _paid(self) -> int:
        """Return how much was charged so far, as a number that only grows."""
        return 0 if self.guard is None else sum(times for _, times in self.guard.charges())

    @property
    def privacy(self) -> Guarantee | None:
        """What the rounds so far have spent, and what it rests on; None where none is private."""
        if self._plan is None or self.guard is None:
            return None
        facts = spent(planned(self._plan), self.guard, self._released)
        return guarantee_of({"privacy": facts})

    def evaluate(
        self, state: Snapshot, examples: Any, client: ClientId | None = None
    ) -> dict[str, float]:
        """Return the objective's metrics of a state's model on some examples.

        Args:
            state: From `initialize` or `next`.
            examples: A tree, an (x, y) pair or a Dataset.
            client: Whose model, as in `model`.

        Raises:
            SettingsError: If some leaves stay with each client, and none is named.
        """
        objective, kept = self.algorithm.objective, self.algorithm.works[0].personal
        if client is None and kept:
            raise SettingsError(
                f"There is no global model to judge: {', '.join(sorted(kept)[:3])} stay with each "
                "client. Say whose model is meant: evaluate(state, examples, client=...)."
            )
        pieces = shards(as_examples(examples), objective)
        with contextlib.closing(sequential()(Setting({}, self.seed, pieces))) as engine:
            work, model = evaluate(objective), self._model(state, client)
            return on_held_out(work, model, engine, len(pieces), state.round)

    def model(self, state: Snapshot, client: ClientId | None = None) -> nn.Module:
        """Return a state's model as an ordinary module.

        Args:
            state: From `initialize` or `next`.
            client: Whose own model, where clients have some; one that was never asked has what it
                would begin with. None is the global model, in which leaves that stay with clients
                are the first model's.
        """
        return self.algorithm.objective.module(self._model(state, client))

    def get_model_weights(self, state: Snapshot, client: ClientId | None = None) -> Any:
        """Return a state's weights as arrays of numpy.

        Either form has `assign_weights_to(model)`, for a model that was built alike.

        Args:
            state: From `initialize` or `next`.
            client: Whose own model, as in `model`.

        Returns:
            Of a module, a dict by name; of a Keras model, a list in Keras' own order.
        """
        objective, model = self.algorithm.objective, self._model(state, client)
        own_form = getattr(objective, "weights", None)
        return own_form(model) if own_form else weights_of(objective.module(model))

    def _model(self, state: Snapshot, client: ClientId | None) -> Tree:
        if client is None:
            return state.state
        return model_of_client(self.algorithm.works[0], state.state, state.own, client)


def process(
    algorithm: Algorithm,
    *,
    privacy: DP | None = None,
    secure: Secure | str | bool = False,
    compress: Codec | None = None,
    rounds: int | None = None,
    cohort: int | None = None,
    seed: int = 0,
    engine: Opener | None = None,
) -> Process:
    """Drive rounds by hand, with clients of your own choice in each.

    Args:
        algorithm: What is done, such as `fedavg(work)`.
        privacy: A budget of differential privacy. How you choose clients is not known here, so no
            amplification is claimed: each round costs what it would if it asked everyone.
        secure: Secure sums, as for `run`; with `privacy` clients add the noise inside them.
        compress: How updates travel, as for `run`.
        rounds: Rounds that a private process is for, those that are run again among them; one more
            is refused. None is for any number, where the noise is given.
        cohort: Clients that a private round asks on average, by which its sums are divided.
        seed: The one seed.
        engine: Where clients run; None is one after another, in this process.

    Raises:
        SettingsError: If the first argument is no algorithm, or a private process lacks numbers.
    """
    refuse_no_algorithm("process", algorithm)
    refuse_seed(seed)
    refuse_engine(engine, None)
    refuse_numbers(rounds=rounds, cohort=cohort)
    opener, sums = engine or sequential(), as_secure(secure)

    def packed(promised: Algorithm) -> Algorithm:
        if compress is None:
            return promised
        return compressing(promised, compress, privacy=privacy, secure=sums is not None)

    if sums is not None:
        opener = secure_sums(opener, sums)
    if privacy is None:
        if sums is not None:
            size = cohort or SMALLEST_COHORT
            algorithm = secured(sums, algorithm, size, size, private=False).algorithm
        return Process(packed(algorithm), seed, opener)
    if cohort is None:
        raise SettingsError(
            "A private process divides by the expected cohort, whoever comes: pass cohort=."
        )
    if privacy.mechanism is not None:
        raise SettingsError(
            f"{privacy.mechanism!r} needs a sampling that keeps clients apart, which a process by "
            "hand has not. Use fm.run(...), or leave mechanism= out."
        )
    by_hand = Sampling("by hand", lambda clients, round, rng: list(clients), lambda _: cohort)
    plan = private(privacy, algorithm, range(cohort), rounds, sampling=by_hand, secure=sums)
    algorithm = plan.algorithm
    if sums is not None:
        inside = privacy.unit == "client"
        algorithm = secured(sums, algorithm, cohort, cohort, private=inside).algorithm
    return Process(packed(algorithm), seed, opener, plan, rounds)
