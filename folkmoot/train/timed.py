"""From a run's options about time and broadcasts to its clock, before anything else is promised."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm
from folkmoot.core.codec import Codec
from folkmoot.core.errors import SettingsError
from folkmoot.data import ClientData
from folkmoot.engines.fleet import Fleet
from folkmoot.privacy.dp import DP
from folkmoot.secagg.secure import Secure, as_secure
from folkmoot.train.asking import timeline_of
from folkmoot.train.attempt import attempt
from folkmoot.train.census import Fault
from folkmoot.train.compression import compressing
from folkmoot.train.downlink import difference_bytes, down_codec
from folkmoot.train.guard import Guard
from folkmoot.train.plan import asked_in_a_round
from folkmoot.train.policy import ALWAYS, Policy, policy_of
from folkmoot.train.sampling import Draw, Sampling, as_sampling, by_arrival, uniform
from folkmoot.train.standing import Program
from folkmoot.train.timeline import Timeline
from folkmoot.train.workload import Work


class Timed(NamedTuple):
    """A run's time."""

    policy: Policy
    sampling: Sampling | Draw | None
    """How cohorts are drawn, as privacy and secure sums are told."""
    cohort: int | float | None
    clock: Callable[..., Timeline] | None
    """From the lot of cohorts, and how they are drawn, to the clock; None without a fleet."""
    largest: list[int] | None = None
    """In a buffered private run, in how many of the first rounds any one client takes part at most,
    for each round."""
    in_flight: float | None = None
    """Devices that a buffered run keeps at work."""
    difference_bytes: int | None = None
    """Of what brings a client from one broadcast to the next; None where all are sent whole."""


def timed(
    fleet: Fleet | None,
    policy: Policy,
    algorithm: Algorithm,
    clients: ClientData,
    rounds: int,
    cohort: int | float | None,
    sampling: Sampling | Draw | None,
    *,
    privacy: DP | None,
    secure: Secure | str | bool,
    compress: Codec | None,
    down: Codec | None,
    seed: int,
) -> Timed:
    """Plan the time of a run.

    Args:
        fleet, algorithm, clients, rounds, cohort, sampling, privacy, secure, compress: As of `run`.
        policy: When rounds begin and end.
        down: How differences of broadcasts are packed.
        seed: The run's.

    Raises:
        SettingsError: If the parts contradict each other.
    """
    step = None if down is None else _differences_bytes(down, algorithm, len(clients))
    if fleet is None:
        return Timed(policy, sampling, cohort, None, difference_bytes=step)
    summed = as_secure(secure) is not None
    refuse_promises(policy, privacy, summed)
    if _hides(policy, privacy, summed):
        policy = replace(policy, hides=True)
    whom = as_sampling(sampling, cohort)
    if policy.carries:
        whom = _in_flight(policy, cohort, sampling)
    wanted = whom.expected(len(clients))
    if sampling is None:
        _refuse_quorum(policy.quorum, wanted)
    travelling = algorithm
    if compress is not None:
        travelling = compressing(algorithm, compress, secure=summed)
    # A secure sum is made for one number of clients, and claims nothing of a lot.
    by_lot = privacy is not None and not summed
    everyone = whom.tiers == 1 and (by_lot or sampling is not None)
    least_there = max(1, round(wanted)) if summed else 1
    work = Work(travelling, clients)

    def clock(lot: int, drawn: Sampling | None = None) -> Timeline:
        return timeline_of(
            fleet,
            policy,
            travelling,
            clients,
            drawn or whom,
            step,
            seed,
            lot,
            everyone=everyone,
            least_there=least_there,
            work=work,
        )

    if policy.buffer is None:
        return Timed(policy, sampling, cohort, clock, difference_bytes=step)
    largest = None if privacy is None else _participations(clock(seed), rounds, len(clients))
    return Timed(policy, by_arrival(policy.buffer), None, clock, largest, wanted, step)


def started(program: Program, time: Timed, guard: Guard | None, done: int) -> Program:
    """Return a program whose clock stands where its rounds do.

    Args:
        program: What the run does.
        time: Its plan.
        guard: What a private run draws its cohorts from.
        done: Rounds that a stored run has done, which the clock plays again.
    """
    if time.clock is None:
        return program
    # Buffers are not filled by lot: nothing of it is claimed, or secret.
    secret = guard.identity.cohorts if guard and not time.policy.carries else 0
    drawn = None if time.policy.carries else program.sampling
    clock = time.clock(program.seed ^ secret, drawn)
    clock.skip(done)
    return program._replace(clock=clock)


def made_of(fleet: Fleet | None, policy: Policy, down: Codec | None) -> dict[str, Any]:
    """Return what decides a run's time and broadcasts, by name, for `identity_of`."""
    found: dict[str, Any] = {} if down is None else {"compress_down.": down}
    if fleet is None:
        return found
    devices = {"availability": fleet.availability, "devices": fleet.table}
    return found | {"fleet.": devices, "policy.": policy}


def told_of(fleet: Fleet | None, policy: Policy, down: Codec | None, time: Timed) -> dict[str, Any]:
    """Return what a result tells of a run's time and broadcasts, as plain JSON."""
    facts: dict[str, Any] = {} if down is None else {"compress_down": down.name}
    if fleet is None:
        return facts
    options = asdict(policy) | {"staleness": policy.staleness and policy.staleness.name}
    if policy.staleness is not None:
        options["at_most"] = policy.staleness.at_most
    said = {name: value for name, value in options.items() if value != getattr(ALWAYS, name, None)}
    if time.in_flight is not None:
        said["in_flight"] = time.in_flight
    return facts | {"fleet": fleet.name, **said}


def _differences_bytes(down: Codec, algorithm: Algorithm, population: int) -> int:
    """Return the bytes of what brings a client from one round's broadcasts to the next one's."""
    return sum(
        difference_bytes(down, task.broadcast)
        if task.work.train
        else trees.num_bytes(task.broadcast)
        for task, _ in asked_in_a_round(algorithm, population)
    )


def time_faults(times: dict[str, Any]) -> list[Fault]:
    """Return what contradicts itself of a run's options about time and broadcasts, by name."""
    rest = dict(times)
    found = [attempt(down_codec, rest.pop("compress_down", None)), attempt(policy_of, **rest)]
    return [Fault("settings", str(error)) for error in found if isinstance(error, Exception)]


def _refuse_quorum(quorum: int | float, wanted: float) -> None:
    """Refuse a number of answers that no round waits for."""
    if isinstance(quorum, int) and quorum > max(1, round(wanted)):
        raise SettingsError(
            f"quorum={quorum} answers make a result, but a round waits for {wanted:g} at most. Ask "
            "for a larger cohort=, or a smaller quorum."
        )


def _in_flight(
    policy: Policy, cohort: int | float | None, sampling: Sampling | Draw | None
) -> Sampling:
    """Return how many devices are at work at once in a buffered run."""
    if sampling is not None:
        raise SettingsError(
            "With buffer= the next device is asked when one has answered, whoever is there. Leave "
            "sampling= out, and say by cohort= how many are at work at once."
        )
    if cohort is None:
        raise SettingsError(
            "With buffer= cohort= says how many devices are at work at once: pass cohort=, such as "
            f"{10 * (policy.buffer or 1)}."
        )
    return uniform(cohort)


def _participations(clock: Timeline, rounds: int, population: int) -> list[int]:
    """Return the most rounds that any client takes part in, up to each round.

    Who answers when follows from devices, sizes and the seed, not from what is learnt, so the clock
    can be played beforehand.
    """
    counts, largest = np.zeros(population, dtype=np.int64), []
    for _ in range(rounds):
        for flight in clock.turn().answers:
            counts[flight.place] += 1
        largest.append(int(counts.max()))
    return largest


def _hides(policy: Policy, privacy: DP | None, secure: bool) -> bool:
    """Tell whether the lot that draws a cohort is kept secret."""
    if privacy is None or policy.carries or secure:
        return False
    return privacy.unit == "client" and privacy.trust == "central"


def refuse_promises(policy: Policy, privacy: DP | None, secure: bool) -> None:
    """Refuse what a promise forbids about time.

    Raises:
        SettingsError: If who counts, or when, would hang on others, or come too late for the noise.
    """
    if secure and policy.carries:
        raise SettingsError(
            "A secure sum fixes its cohort before the first message, but with buffer= answers come "
            "as they come. Leave secure= or buffer= out."
        )
    if privacy is None:
        return
    if policy.over_select != 1:
        raise SettingsError(
            "With over_select= the first to answer count, so who counts hangs on everybody else, "
            "and one client's data may move more than its own part. Leave over_select= out; a "
            "larger cohort= and deadline_s= do the same, each client by itself."
        )
    if policy.quorum != 1:
        raise SettingsError(
            "With quorum= a round tells by having no result that too few took part, which no noise "
            "hides. Leave quorum= out under privacy=."
        )
    if _hides(policy, privacy, secure) and policy.deadline_s == math.inf:
        raise SettingsError(
            "Under privacy= the end of a round must not tell who took part: others are there when "
            "the next one begins, and no noise hides that. Pass deadline_s=: each round then lasts "
            "until its deadline, whoever answers."
        )
    if policy.carries and privacy.trust == "local":
        raise SettingsError(
            "With trust='local' each client adds its noise before anyone knows how stale its "
            "answer will be. Leave buffer= out, or trust the server."
        )
