"""`folkmoot privacy`: the noise that a budget asks for, or the epsilon of a noise; no run."""

import enum
import json as jsons
import math
import sys
import textwrap
from collections.abc import Callable
from typing import Annotated, Any

import typer

from folkmoot.cli.errors import reported
from folkmoot.cli.run import Debug, Json
from folkmoot.core.errors import SettingsError

_WIDTH = 80


class Lot(enum.StrEnum):
    """How cohorts are drawn."""

    POISSON = "poisson"
    FIXED = "fixed"
    ALL = "all"


def privacy(
    population: Annotated[int, typer.Option("--population", min=1, help="Clients in all.")],
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds of the run.")],
    cohort: Annotated[
        int | None,
        typer.Option("--cohort", min=1, help="Clients a round, on average; everyone if not given."),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="The budget: find the least noise for it.")
    ] = None,
    delta: Annotated[
        float, typer.Option("--delta", help="At which epsilon holds; below 1 / population.")
    ] = 1e-5,
    noise: Annotated[
        float | None,
        typer.Option("--noise", metavar="Z", help="The noise multiplier: find its epsilon."),
    ] = None,
    sampling: Annotated[
        Lot | None,
        typer.Option(
            "--sampling",
            help="How a cohort is drawn: poisson, each by a coin of its own; fixed, so many "
            "without replacement; all, everyone.",
            show_default="poisson, or all without --cohort",
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Solve the noise of a private run from its budget, or the epsilon from its noise.

    Client-level privacy as fm.run(..., privacy=fm.DP(...)) promises it: one exchange a round, noise
    added by the server to the sum of clipped updates.
    """
    machine = sys.stdout if json else None
    with reported(debug, machine):
        lot = sampling or (Lot.ALL if cohort is None else Lot.POISSON)
        event = _event(lot, cohort, population)
        found = _spent(event, rounds, epsilon, delta, noise)
        found |= {"sampling": str(lot), "population": population, "cohort": cohort or population}
        found |= {"noise_in_mean": found["noise_multiplier"] / found["cohort"]}
        found |= {"unit": "client", "trust": "central", "assumptions": _assumptions(lot, found)}
        found |= {"warning": _warning(delta, population)}
        if machine is not None:
            finite = {name: None if value == math.inf else value for name, value in found.items()}
            print(jsons.dumps({"event": "privacy", **finite}), file=machine)
        else:
            print(_table(found))


def _event(lot: Lot, cohort: int | None, population: int) -> Callable[[float], Any]:
    """Return what a round costs, by its noise, or refuse a cohort that the lot cannot have."""
    from folkmoot.privacy.events import FixedSizeGaussian, Gaussian, PoissonGaussian

    if lot is Lot.ALL:
        if cohort not in (None, population):
            raise SettingsError(
                f"--sampling all asks all {population} clients, but --cohort is {cohort}. Leave "
                "--cohort out, or draw by --sampling poisson."
            )
        return Gaussian
    if cohort is None:
        raise SettingsError(f"--sampling {lot} draws a cohort: say how large it is by --cohort.")
    if cohort > population:
        raise SettingsError(
            f"A cohort of {cohort} was asked of a population of {population}. Ask for at most "
            f"{population}."
        )
    size = cohort  # Which is a number from here on, also inside of what is returned.
    if lot is Lot.FIXED:
        return lambda noise: FixedSizeGaussian(noise, size, population)
    return lambda noise: PoissonGaussian(noise, size / population)


def _spent(
    event: Callable[[float], Any],
    rounds: int,
    epsilon: float | None,
    delta: float,
    noise: float | None,
) -> dict[str, Any]:
    """Solve for what was not given, and account for it by both accountants."""
    from folkmoot.privacy.accountants import epsilon as epsilon_of
    from folkmoot.privacy.accountants import epsilon_bound
    from folkmoot.privacy.calibrate import noise_for
    from folkmoot.privacy.events import adjacency

    if (epsilon is None) == (noise is None):
        raise SettingsError(
            "Give a budget, --epsilon, to find its noise, or a noise multiplier, --noise, to find "
            "its epsilon; one of them."
        )
    if noise is None:
        assert epsilon is not None
        noise = noise_for(epsilon, delta, lambda tried: [(event(tried), rounds)])
    charges = [(event(noise), rounds)]
    return {
        "noise_multiplier": noise,
        "epsilon": epsilon_of(charges, delta),
        "epsilon_rdp": epsilon_bound(charges, delta),
        "epsilon_target": epsilon,
        "delta": delta,
        "rounds": rounds,
        "adjacency": adjacency(charges[0][0]),
    }


def _warning(delta: float, population: int) -> str | None:
    """Return why a run will refuse this delta, if it will; here it may be looked at."""
    from folkmoot.privacy.calibrate import refuse_delta

    try:
        refuse_delta(delta, population)
    except SettingsError as error:
        return f"A run refuses this. {error}"
    return None


def _assumptions(lot: Lot, found: dict[str, Any]) -> list[str]:
    """Say what the numbers rest on, as sentences."""
    size, everyone = found["cohort"], found["population"]
    return [
        "Unit: a whole client, with all its examples; neighbouring federations differ in one "
        f"({found['adjacency']}).",
        {
            Lot.POISSON: f"Sampling: each client is in a round by a coin of its own, with chance "
            f"{size / everyone:.3g}: {size:,} of {everyone:,} on average.",
            Lot.FIXED: f"Sampling: {size:,} of {everyone:,} clients without replacement. Only "
            "Rényi divergences are proved for it, and they count a client's place in the cohort as "
            "twice its norm.",
            Lot.ALL: f"Sampling: none. All {everyone:,} clients are asked in every round.",
        }[lot],
        *(
            []
            if lot is Lot.ALL
            else ["Secret: who was asked in a round. Nobody outside the server may learn it."]
        ),
        "Trusted: the server, which adds the noise and sees the sums; noise hides them from all "
        "others.",
        "One exchange a round, whose sum is divided by the expected cohort.",
    ]


def _table(found: dict[str, Any]) -> str:
    """Write what was found for people."""
    # Rounded up: who types what is shown must not overspend.
    shown = math.ceil(found["noise_multiplier"] * 1e4) / 1e4
    way = {
        Lot.POISSON: "by privacy loss distributions, as results state it",
        Lot.FIXED: "by Rényi divergences, the only proof there is",
        Lot.ALL: "exactly",
    }[Lot(found["sampling"])]
    rows = [("epsilon", f"{found['epsilon']:.4g} {way}")]
    if found["sampling"] != Lot.FIXED:
        rows += [("", f"{found['epsilon_rdp']:.4g} by Rényi divergences, the quick bound")]
    rows += [
        ("delta", f"{found['delta']:g}; 1 / population is {1 / found['population']:.3g}"),
        ("noise", f"{shown:g} x the clip norm in a round's sum"),
        ("", f"{found['noise_in_mean']:.3g} x the clip norm in its mean, in each number"),
        ("rounds", f"{found['rounds']:,}"),
    ]
    lines = [f"Noise multiplier {shown:g}", ""]
    lines += [f"  {name:<8}  {said}" for name, said in rows]
    lines += _listed("Assumptions", found["assumptions"])
    lines += _listed("Warning", [found["warning"]]) if found["warning"] else []
    return "\n".join(lines)


def _listed(title: str, sentences: list[str]) -> list[str]:
    """Write sentences under a title, as lines."""
    lines = ["", title]
    for sentence in sentences:
        lines += textwrap.wrap(sentence, _WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return lines
