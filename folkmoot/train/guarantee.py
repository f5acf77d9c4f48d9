"""What a result says of privacy: the budget that was spent, and everything it rests on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from folkmoot.core.codec import Codec
from folkmoot.privacy.accountants import epsilon, epsilon_curve
from folkmoot.privacy.events import as_json, from_json
from folkmoot.train.guard import Guard
from folkmoot.train.plan import Private


@dataclass(frozen=True, kw_only=True, repr=False)
class Guarantee:
    """(epsilon, delta)-differential privacy of one run, with its assumptions. Print it."""

    epsilon: float
    """Spent by what was released, by the tightest accountant there is for it."""
    delta: float
    unit: str
    """Whose presence is hidden: "client" or "example"."""
    adjacency: str
    """What neighbouring federations differ in."""
    sampling: str
    """How cohorts, or batches, were drawn."""
    trust: str
    """Who adds the noise: "central", "local", or all clients together in a "secure sum"."""
    noise_multiplier: float
    """Standard deviation of the noise over the clip norm."""
    clip: str
    mechanism: str
    """How noise of several rounds hangs together."""
    population: int
    cohort: float
    """Clients a round on average."""
    rounds: int
    """Rounds that were released."""
    noise_to_signal: float
    """L2 norm of a round's noise over the largest norm that its mean can have."""
    simulation: bool
    """Whether the run only stands for a private one, so that it must not be released."""
    assumptions: tuple[str, ...]
    charges: tuple[tuple[dict[str, Any], int], ...] = field(default=())
    """What was paid for, as the ledger holds it."""

    def curve(self, points: int = 12) -> list[tuple[int, float]]:
        """Return (round, epsilon) for about so many rounds of the run.

        Args:
            points: Rounds at which epsilon is computed; each costs a tenth of a second or so.
        """
        charges = [(from_json(event), times) for event, times in self.charges]
        return epsilon_curve(charges, self.rounds, self.delta, points)

    def __str__(self) -> str:
        budget = f"epsilon {self.epsilon:.3g} at delta {self.delta:g} for each {self.unit}"
        lines = [f"Simulation only, not to be released: {budget}" if self.simulation else budget]
        lines += [f"noise {self.noise_multiplier:.4g} x the clip norm, {self.mechanism}"]
        lines += [f"- {assumption}" for assumption in self.assumptions]
        return "\n".join(lines)

    __repr__ = __str__


def planned(plan: Private) -> dict[str, Any]:
    """Return what a promise is made of, as plain JSON; a run that goes on must share it."""
    dp = plan.dp
    return {
        "epsilon_target": dp.epsilon,
        "delta": dp.delta,
        "unit": dp.unit,
        "adjacency": plan.adjacency,
        "sampling": plan.lot,
        "trust": dp.trust if plan.secure is None else "secure sum",
        "noise_multiplier": plan.noise_multiplier,
        "clip": dp.clip.name if isinstance(dp.clip, Codec) else f"clip({dp.clip:g})",
        "mechanism": "drawn anew each round" if dp.mechanism is None else repr(dp.mechanism),
        "population": plan.population,
        "cohort": plan.cohort,
        "simulation": dp.simulated,
        "noise_to_signal": plan.noise_to_signal,
        "assumptions": list(assumptions(plan)),
    }


def spent(facts: Mapping[str, Any], guard: Guard, rounds: int) -> dict[str, Any]:
    """Return a promise's facts with what its run has spent, as plain JSON.

    Args:
        facts: From `planned`.
        guard: With the run's ledger.
        rounds: Done.
    """
    charges = list(guard.charges())
    return {
        **facts,
        "rounds": rounds,
        "epsilon": epsilon(charges, facts["delta"]),
        "charges": [[as_json(event), times] for event, times in charges],
    }


def guarantee_of(settings: Mapping[str, Any]) -> Guarantee | None:
    """Return what a finished run's settings say of privacy; None where nothing was promised."""
    facts = settings.get("privacy")
    if facts is None or "epsilon" not in facts:
        return None
    known = {name: value for name, value in facts.items() if name in Guarantee.__annotations__}
    charges = tuple((event, times) for event, times in facts["charges"])
    # Plain JSON has no infinity, which is what a release without noise has cost.
    known |= {"epsilon": float(facts["epsilon"]), "charges": charges}
    return Guarantee(**{**known, "assumptions": tuple(facts["assumptions"])})


def assumptions(plan: Private) -> tuple[str, ...]:
    """Say what the numbers rest on, as sentences."""
    dp, found = plan.dp, []
    if dp.unit == "client":
        hidden, differ = "a whole client", "federations"
    else:
        hidden, differ = "one example of one client", "clients' data"
    found.append(f"Unit: {hidden}; neighbouring {differ} differ in one ({plan.adjacency}).")
    found.append(f"Sampling: {plan.lot}.")
    if dp.unit == "example":
        found.append(
            "Every client may take part in every round, and the guarantee is its own. Numbers of "
            "examples are public."
        )
        found.append("Trusted: each client with its own examples, and nobody else.")
    elif plan.secure is not None:
        clients = round(plan.expected)
        providers, bad = plan.secure.providers(clients), plan.secure.colluders(clients)
        found.append(
            f"Trusted: nobody, while the server sees secure sums alone and at most {bad} of "
            f"{clients} clients collude with it."
        )
        found.append(
            f"Noise: in shares that suffice of {providers} clients; a sum of all {clients} has "
            f"{clients / providers:.2f} times the variance."
        )
    elif dp.trust == "local":
        found.append("Trusted: each client, which adds its own noise; the server is not.")
    else:
        if "no amplification" not in plan.lot:
            found.append("Nobody outside the server learns who was asked in a round.")
        found.append(
            "Trusted: the server, which sees what it adds; noise hides it from all others."
        )
    found.append(
        "Released: the models. The history's counts, seconds and bytes are not: they tell who "
        "answered."
    )
    if any(work.model is not None for work in plan.algorithm.works):
        found.append("Not private: each client's own model, which is for that client alone.")
    if dp.client_tests:
        found.append("Not private, as declared: metrics on clients' own tests.")
    if dp.population is not None:
        found.append(
            f"Simulated: {plan.cohort:g} of {plan.population} clients a round, by noise scaled to "
            f"this run's {plan.expected:g}."
        )
    if dp.simulation:
        found.append("Noise and cohorts follow from the run's seed: whoever knows it sees through.")
    return tuple(found)
