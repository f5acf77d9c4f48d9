"""Audit a run: put canaries into its federation, and guess from its releases which were there.

Steinke, Nasr, Jagielski, NeurIPS 2023, arXiv:2305.08846, with the canaries of Andrew et al., ICLR
2024, arXiv:2302.03098: clients whose update is one direction, far longer than the clip, so that
each moves the sum as far as one client can.

The auditor sees what the promise hides from: every aggregate behind the noise (each client's
message where clients add their own noise), the directions, what all other clients have sent where
each is drawn by itself, and which seats were drawn wherever the accounting claims nothing of the
lot. Canaries enlarge the population; the stated epsilon is that of
the enlarged federation, from its own run. The audit's releases go to nobody, so no ledger of a data
set is charged.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from folkmoot.audit.drowned import drowned
from folkmoot.audit.evidence import covariance_of, evidence
from folkmoot.audit.one_run import guess, refuse_shares
from folkmoot.audit.report import Audit
from folkmoot.audit.seating import (
    SUMS,
    clip_norm,
    first_norm,
    free_ids,
    largest_exchange,
    lot_of,
    number_of_canaries,
    refuse_unaudited,
)
from folkmoot.audit.strangers import audit_examples
from folkmoot.audit.watched import (
    HEAVY,
    Seats,
    Sighting,
    Watch,
    observed,
    of_seats,
    with_canaries,
)
from folkmoot.core import rng
from folkmoot.core.algorithm import Algorithm
from folkmoot.core.engine import Opener
from folkmoot.data import ClientData, as_clients
from folkmoot.engines import sequential
from folkmoot.local.chosen import Keep
from folkmoot.local.personal import personalize
from folkmoot.privacy.dp import DP
from folkmoot.secagg.secure import Secure, as_secure
from folkmoot.train.run import run
from folkmoot.train.sampling import Draw, Sampling

_LOUD = 1e3
"""How many times longer than the clip a canary's update is."""
_LOUDER = 10.0
"""How many times longer than another client's, where nothing is clipped."""


def audit(
    algorithm: Algorithm,
    clients: Any,
    *,
    rounds: int,
    cohort: int | float | None = None,
    sampling: Sampling | Draw | None = None,
    personal: Keep | None = None,
    privacy: DP | None = None,
    secure: Secure | str | bool = False,
    canaries: int | None = None,
    norm: float | None = None,
    delta: float = 1e-5,
    confidence: float = 0.95,
    seed: int = 0,
    engine: Opener | None = None,
) -> Audit:
    """Run once with canaries, and bound epsilon from below.

    Canaries are clients; of a promise whose unit is one example they are examples
    (`audit_examples`).

    Args:
        algorithm, clients, rounds, cohort, sampling, personal, privacy, secure, engine: As for
            `fm.run`. The engine is the sequential one where none is given. Without `privacy` the
            report says what a run without a promise gives away.
        canaries: Seats for canaries, each taken by a fair coin; None is 1,000, or as many as the
            model has numbers or delta allows.
        norm: L2 norm of a canary's update; None is far beyond the clip, or without privacy ten
            times that of the first client's first update.
        delta: For the bound where there is no promise; else the promise's own.
        confidence: How sure the bound is.
        seed: Of coins and directions, and the run's.

    Returns:
        The report: print it.

    Raises:
        SettingsError: If there are too many canaries, the promise is one of a larger federation, or
            `fm.run` refuses the options.
    """
    refuse_shares(delta=delta, confidence=confidence)
    federation = as_clients(clients)
    algorithm = algorithm if personal is None else personalize(algorithm, personal)
    if privacy is not None and privacy.unit == "example":
        return audit_examples(
            algorithm,
            federation,
            rounds=rounds,
            cohort=cohort,
            sampling=sampling,
            privacy=privacy,
            canaries=canaries,
            confidence=confidence,
            seed=seed,
            engine=engine,
        )
    if privacy is not None:
        refuse_unaudited(privacy)
        delta, privacy = privacy.delta, dataclasses.replace(privacy, ledger=None)
    layout = largest_exchange(algorithm, len(federation))
    number = number_of_canaries(canaries, layout.size, len(federation), privacy)
    ids = free_ids(federation, number)
    enlarged = ClientData(
        [*federation.ids, *ids], of_seats(federation, ids), name=f"{federation.name} with canaries"
    )
    sums = as_secure(secure)
    # The protocol has the bits of plain sums, and plays canaries' parts as anybody's.
    sums = None if sums is None else dataclasses.replace(sums, protocol=False)
    # The server of a secure sum knows who is in it.
    lot = SUMS if sums else lot_of(privacy, sampling, cohort, len(enlarged))
    bound = clip_norm(privacy, layout) if privacy else _LOUDER * first_norm(algorithm, federation)
    seats = Seats(
        ids=ids,
        coins=rng.generator(rng.derive(seed, purpose="canaries' coins")).random(number) < 0.5,
        norm=norm or (_LOUD * bound if privacy else bound),
        bound=bound if privacy else norm or bound,
        weight=HEAVY,
        opposed=lot.opposed,
        seed=seed,
        blank=sums is not None,
    )
    local = privacy is not None and privacy.trust == "local"
    watch = Watch(seats, local, knows_others=privacy is not None and lot.others_known)
    with drowned():
        result = run(
            observed(algorithm, watch),
            enlarged,
            rounds=rounds,
            cohort=cohort,
            sampling=sampling,
            privacy=privacy,
            secure=sums or False,
            seed=seed,
            engine=with_canaries(engine or sequential(), watch),
            evaluate_every=rounds,
            client_tests=False,
            progress=False,
        )
    scores = evidence(
        in_units_of(seats.bound, watch.seen),
        share=lot.share,
        opposed=lot.opposed,
        covariance=covariance_of(privacy.mechanism if privacy else None, rounds),
    )
    found = guess(scores, seats.coins, delta, confidence)
    return Audit(
        name=algorithm.name,
        method="one run (Steinke et al. 2023)",
        epsilon_lower=found.epsilon,
        epsilon_stated=float(result.privacy.epsilon) if result.privacy else math.inf,
        delta=delta,
        confidence=confidence,
        unit="client",
        canaries=number,
        guesses=found.guesses,
        correct=found.correct,
        rounds=rounds,
        clients=len(federation),
    )


def assert_private(
    algorithm: Algorithm,
    clients: Any,
    *,
    rounds: int,
    privacy: DP,
    cohort: int | float | None = None,
    sampling: Sampling | Draw | None = None,
    personal: Keep | None = None,
    secure: Secure | str | bool = False,
    canaries: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    engine: Opener | None = None,
) -> Audit:
    """Audit a run in a test, and fail if its promise is refuted.

    Args:
        algorithm, clients, rounds, privacy, cohort, sampling, personal, secure, canaries,
            confidence, seed, engine: As for `audit`. A right program fails once in
            1 / (1 - confidence) tests at most, and mostly far more rarely; with `seed` and seeded
            noise always or never.

    Returns:
        The report, of a promise that holds.

    Raises:
        AssertionError: With the report, if epsilon is shown to be larger than the stated one.
    """
    found = audit(
        algorithm,
        clients,
        rounds=rounds,
        cohort=cohort,
        sampling=sampling,
        personal=personal,
        privacy=privacy,
        secure=secure,
        canaries=canaries,
        confidence=confidence,
        seed=seed,
        engine=engine,
    )
    if not found.holds:
        raise AssertionError(str(found))
    return found


def in_units_of(norm: float, seen: Sequence[Sighting]) -> list[Sighting]:
    """Return what was seen with pulls in units of what one canary can add."""
    return [one._replace(pull=one.pull / norm) for one in seen]
