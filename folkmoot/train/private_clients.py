"""Hiding clients: the algorithm whose every sum is clipped, noised and paid for.

McMahan, Ramage, Talwar, Zhang, "Learning Differentially Private Recurrent Language Models", ICLR
2018, arXiv:1710.06963: each client's update is clipped as one vector, the sum of a cohort drawn by
Poisson sampling is noised, and divided by the expected cohort. Here that happens to every exchange
of any algorithm: its round is driven as it is, and the aggregators of what it asks are rebuilt.
"""

import functools
import math
import secrets
from collections.abc import Callable, Sequence, Sized
from typing import Any

import torch

from folkmoot.codecs.clip import clip
from folkmoot.codecs.correlated import banded_noise, tree_noise
from folkmoot.codecs.discount import discount
from folkmoot.codecs.local_noise import local_gaussian
from folkmoot.codecs.noise import gaussian
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import State, Update
from folkmoot.core.algorithm import Algorithm, LocalWork, Seen, Task
from folkmoot.core.codec import Codec
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.engines.tasks import example, noisy_example
from folkmoot.privacy.calibrate import refuse_delta
from folkmoot.privacy.dp import DP, Banded
from folkmoot.privacy.dp import Tree as NoiseTree
from folkmoot.privacy.events import (
    ZERO_OUT,
    Charge,
    Event,
    Gaussian,
    LocalGaussian,
    PoissonGaussian,
    adjacency,
)
from folkmoot.privacy.matrix import optimal_bands, participations, sensitivity, tree_height
from folkmoot.secagg.secure import Secure
from folkmoot.train.plan import Private, asked_in_a_round, solved
from folkmoot.train.private_shares import cost, loudness, refuse_beside_secure, stages
from folkmoot.train.sampling import Draw, Sampling, as_sampling, poisson, separated, uniform
from folkmoot.train.shielded import noised_by_clients, private_mean, shielded, with_works


def of_clients(
    dp: DP,
    algorithm: Algorithm,
    clients: Sized,
    rounds: int | None,
    cohort: int | float | None,
    sampling: Sampling | Draw | None,
    secure: Secure | None = None,
    largest: Sequence[int] | None = None,
) -> Private:
    """Plan a run in which each client is hidden, with all that it holds.

    Args:
        dp: The promise.
        algorithm: What is done; its aggregators are rebuilt.
        clients: Everyone who may be asked.
        rounds: Rounds of the run; None where the noise is given and rounds are driven by hand.
        cohort, sampling: As for `run`; a cohort that is a number is drawn by Poisson sampling.
        secure: What is asked of secure sums, in which clients then add the noise.
        largest: In a buffered run, in how many of the first rounds any one client has taken part at
            most, for each round: that is what is paid for.

    Raises:
        SettingsError: If the parts contradict each other, or a rule has no bound.
    """
    population = len(clients)
    if secure is not None:
        refuse_beside_secure(dp)
        # Who is asked is no secret from the server, and a sum's size must be known to its clients.
        sampling = as_sampling(sampling, cohort)
    drawn = private_sampling(dp, sampling, None if secure else cohort)
    expected = drawn.expected(population)
    stated, asked = dp.population or population, dp.cohort or expected
    refuse_delta(dp.delta, stated)
    tasks = asked_in_a_round(algorithm, population)
    for task, _ in tasks:
        _refuse_telling_bytes(task)
    sizes = [size for _, size in tasks]
    size, asking = max(sizes, default=0), round(expected)
    if secure is not None:
        # An adaptive clip sends one number more.
        event = cost(secure, asking, [size + 1 for size in sizes])
    else:
        event = _event(dp, drawn, population, rounds)
    key, paid = _payments(dp, len(sizes), rounds or 1, secure, largest)

    def charges_of(noise_multiplier: float) -> list[Charge]:
        return [(event(noise_multiplier), paid)]

    noise = solved(dp, charges_of, rounds)
    scale = expected / asked
    before = dp.clip if isinstance(dp.clip, Codec) else clip(dp.clip)
    if secure is not None:
        after = stages(dp, secure, noise, asking)
    else:
        hidden = _noise(dp, noise, scale, rounds)
        after = (hidden,) if largest is None else (discount(), hidden)
    mean = functools.partial(private_mean, algorithm.name, before, after, expected)
    rule = noised_by_clients(mean) if dp.trust == "local" else mean
    if dp.trust == "local" or secure is not None:
        # That a client has no usable update is said to nobody who is not trusted.
        algorithm = with_works(algorithm, _finite)
    return Private(
        dp=dp,
        algorithm=shielded(algorithm, rule),
        sampling=drawn,
        noise_multiplier=noise,
        charges=charges_of(noise),
        price=functools.partial(_price, event, noise, scale),
        key=key,
        exchanges=len(sizes),
        lot=_lot(dp, drawn, stated, asked, secure),
        adjacency=ZERO_OUT if secure else _neighbours(dp, drawn, event(noise)),
        population=stated,
        cohort=asked,
        expected=expected,
        size=size,
        loudness=functools.partial(_loudness, dp, before, expected, secure)
        if not dp.mechanism
        else None,
        secure=secure,
    )


def private_sampling(
    dp: DP, sampling: Sampling | Draw | None, cohort: int | float | None
) -> Sampling:
    """Return how cohorts are drawn under a promise, where nobody says otherwise.

    Raises:
        SettingsError: If correlated noise meets a sampling that may ask a client again too soon, or
            a larger federation is stated of a sampling that is not Poisson's.
    """
    if sampling is None and dp.mechanism is not None:
        return separated(cohort, dp.mechanism.separation)
    if sampling is None:
        return uniform(None) if cohort is None else poisson(cohort)
    found = as_sampling(sampling, cohort)
    if dp.population is not None:
        raise SettingsError(
            f"population={dp.population} states a larger federation whose cohorts are drawn by "
            f"Poisson sampling, but sampling is {found.name!r}. Leave sampling= out and give "
            "cohort=."
        )
    if dp.mechanism is not None and found.separation < dp.mechanism.separation:
        raise SettingsError(
            f"{dp.mechanism!r} needs {dp.mechanism.separation} rounds from one participation of a "
            f"client to its next, but the sampling {found.name!r} promises {found.separation}. "
            "Leave sampling= out, or use "
            f"fm.sampling.separated(cohort, rounds={dp.mechanism.separation})."
        )
    return found


def _lot(dp: DP, sampling: Sampling, population: int, cohort: float, secure: Secure | None) -> str:
    """Say how cohorts are drawn."""
    of = f"{cohort:g} of {population} clients a round"
    if dp.population is not None:
        return f"poisson, {of}"
    claimed = sampling.event is not None and dp.trust == "central" and dp.mechanism is None
    claimed = claimed and secure is None
    return f"{sampling.name}, {of}{'' if claimed else '; no amplification is claimed'}"


def _refuse_telling_bytes(task: Task) -> None:
    """Refuse work that packs its updates to sizes that hang on their numbers."""
    if example(task).packed_bytes != noisy_example(task).packed_bytes:
        raise SettingsError(
            f"The bytes that the work {task.work.name!r} packs hang on an update's numbers, and "
            "whoever counts them learns what no noise hides. Leave the entropy coding out of "
            "feedback()."
        )


def _finite(work: LocalWork) -> LocalWork:
    """Return work whose update is 0 where it would hold a NaN or an infinity."""

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        update, own = work.finish(sent, carry, seen)
        fine = torch.ones((), dtype=torch.bool)
        for leaf in trees.leaves(update.value):
            fine = fine & leaf.isfinite().all()
        value = trees.map(lambda leaf: torch.where(fine, leaf, 0), update.value)
        return update._replace(value=value), own

    return work.changed(finish=finish) if work.train else work


def _neighbours(dp: DP, sampling: Sampling, event: Event) -> str:
    """Say what neighbouring federations differ in.

    Who is asked may hang on who there is: then it is one client's data that are there or not.
    """
    claimed = sampling.event is not None or dp.population is not None or dp.trust == "local"
    return adjacency(event) if claimed and dp.mechanism is None else ZERO_OUT


def _event(
    dp: DP, sampling: Sampling, population: int, rounds: int | None
) -> Callable[[float], Event]:
    """Return what an exchange costs, by its noise."""
    if dp.trust == "local":
        return LocalGaussian
    if dp.mechanism is not None:
        sensitivity = _sensitivity(dp.mechanism, sampling.separation, rounds)
        return lambda noise: Gaussian(noise / sensitivity)
    if dp.population is not None and dp.cohort is not None:
        rate = dp.cohort / dp.population
        return lambda noise: PoissonGaussian(noise, rate) if rate < 1 else Gaussian(noise)
    if sampling.event is None:
        return Gaussian
    return lambda noise: sampling.event(noise, population)  # type: ignore[misc]


def _price(
    event: Callable[[float], Event],
    planned: float,
    scale: float,
    exchange: int,
    task: Task,
    stated: float,
) -> Charge:
    """Return what the noise that a chain states costs; to the last bit what was planned, if so."""
    found = stated / scale
    return event(planned if math.isclose(found, planned, rel_tol=1e-12) else found), 1


def _loudness(
    dp: DP, clipping: Codec, expected: float, secure: Secure | None, state: State
) -> float:
    """Return the root of the mean squared L2 norm of the noise in a mean; infinity: not known.

    What one coordinate is scaled by on its way back, a vector of ones shows.
    """
    bounds = state.bounds
    if bounds.size < state.layout.size:
        # What becomes of the noise of a short vector, only the codec around the rule knows.
        return math.inf
    scales, _ = clipping.decode(state.codec["0"], torch.ones(bounds.size), 0)
    if secure is not None:
        length = float(torch.linalg.vector_norm(scales))
        return loudness(secure, round(expected), state, length) / expected
    added = math.sqrt(expected) if dp.trust == "local" else 1.0
    return added * bounds.noise * bounds.l2 * float(torch.linalg.vector_norm(scales)) / expected


def _payments(
    dp: DP, exchanges: int, rounds: int, secure: Secure | None, largest: Sequence[int] | None
) -> tuple[Callable[[int, int], tuple[Any, ...]], int]:
    """Return what is paid for at once, by round and exchange, and how often a run pays."""
    if isinstance(dp.mechanism, NoiseTree):
        restart = dp.mechanism.restart
        trees_grown = math.ceil(rounds / restart)
        return lambda round, exchange: ((round - 1) // restart, exchange), exchanges * trees_grown
    if isinstance(dp.mechanism, Banded):
        return lambda round, exchange: (exchange,), exchanges
    if largest is not None and dp.trust == "central":
        # A round in which nobody takes part more often than anyone did before costs nothing more.
        return lambda round, exchange: (largest[round - 1], exchange), exchanges * largest[-1]
    if dp.trust == "local" or secure is not None:
        # What clients have sent is released; when asked again after a crash, they draw again.
        attempt = secrets.token_hex(4)
        return lambda round, exchange: (round, exchange, attempt), exchanges * rounds
    return lambda round, exchange: (round, exchange), exchanges * rounds


def _sensitivity(mechanism: NoiseTree | Banded, separation: int, rounds: int | None) -> float:
    """Return by how much one client moves what correlated noise hides, in units of the clip."""
    if isinstance(mechanism, NoiseTree):
        return math.sqrt(tree_height(mechanism.restart))
    if rounds is None:
        raise SettingsError(
            "Banded noise is made for a number of rounds: pass rounds=, or use "
            "fm.privacy.Tree(restart=...)."
        )
    coefficients = optimal_bands(rounds, mechanism.bands)
    return sensitivity(coefficients, rounds, participations(rounds, separation), separation)


def _noise(dp: DP, noise: float, scale: float, rounds: int | None) -> Codec:
    """Return the stage that hides one client's part."""
    if dp.trust == "local":
        return local_gaussian(noise, simulation=dp.simulation)
    if isinstance(dp.mechanism, NoiseTree):
        return tree_noise(noise, dp.mechanism.restart, simulation=dp.simulation)
    if isinstance(dp.mechanism, Banded):
        assert rounds is not None
        bands = optimal_bands(rounds, dp.mechanism.bands)
        return banded_noise(noise, bands, simulation=dp.simulation)
    return gaussian(noise, scale=scale, simulation=dp.simulation)
