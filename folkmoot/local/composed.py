"""What an algorithm or a transform is composed of: local work, and nothing else."""

from typing import Any

from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Correct, LocalWork
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.optimizers import Optimizer


def refuse_no_work(verb: str, work: Any) -> None:
    """Refuse, by kind, what is no local work: a module, an objective, an algorithm.

    Raises:
        SettingsError: Where the parts are composed, before any client is asked.
    """
    if not isinstance(work, LocalWork):
        raise SettingsError(
            f"{verb}() needs local work, such as fm.local.sgd(fm.classifier(model), lr=0.1), but "
            f"was given {kind_of(work)}."
        )


def refuse_private(verb: str, work: LocalWork, what: str) -> None:
    """Refuse a work whose gradients alone are private, where something else is asked of examples.

    Args:
        verb: Who asks.
        work: Its batches are sealed if it is private.
        what: Is asked, such as "measures losses".

    Raises:
        SettingsError: Where the parts are composed, before any client is asked.
    """
    if work.plan.poisson:
        raise SettingsError(
            f"{verb}() {what}, and example-level privacy covers nothing but the gradients of a "
            "step, one of each batch. Use an algorithm that takes no more, such as fedavg(), "
            "fedprox() or scaffold()."
        )


def kind_of(value: Any) -> str:
    """Return what a value is, with its article: a Linear, an int, the class Linear."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeioAEIO' else 'a'} {kind}"


def seam(verb: str, work: LocalWork) -> Correct:
    """Return a work's seam between gradient and step, on which a transform rides.

    Raises:
        SettingsError: If the work has none, or is no work.
    """
    refuse_no_work(verb, work)
    if work.correct is None:
        raise SettingsError(
            f"The work {work.name!r} writes its own step, so {verb}() cannot ride on it. Do what "
            "it does in that step, or build the work with fm.local.sgd(...)."
        )
    return work.correct


def optimizer_of(verb: str, work: LocalWork) -> Any:
    """Return the optimizer of a work's local steps.

    Raises:
        SettingsError: If the work has none, or is no work.
    """
    refuse_no_work(verb, work)
    if work.optimizer is None:
        raise SettingsError(
            f"The work {work.name!r} writes its own step, so {verb}() does not know how far one "
            "moves. Build the work with fm.local.sgd(...)."
        )
    return work.optimizer


def own_of(work: LocalWork, sent: Tree) -> Tree:
    """Return the first private state of a work, to which a transform adds its own part."""
    return work.own(sent) if work.own else {}


def refuse_no_optimizer(server: Any) -> None:
    """Refuse, as a server's, what is no optimizer, such as a name or a builder not called.

    Raises:
        SettingsError: Where the parts are composed, before any client is asked.
    """
    if not isinstance(server, Optimizer):
        raise SettingsError(
            f"server must be an optimizer, such as fm.optimizers.adam(0.01), but is {server!r}."
        )


def refuse_no_aggregator(aggregator: Any) -> None:
    """Refuse what is no aggregator, such as a name or a builder that was not called.

    Raises:
        SettingsError: Where the parts are composed, before any client is asked.
    """
    if not isinstance(aggregator, Aggregator):
        raise SettingsError(
            "aggregator must be built, such as fm.aggregators.weighted_mean(), but is "
            f"{aggregator!r}."
        )


def refuse_no_mean(verb: str, aggregator: Any) -> None:
    """Refuse an aggregator whose aggregate grows with the cohort.

    Raises:
        SettingsError: Where the parts are composed, before any client is asked.
    """
    refuse_no_aggregator(aggregator)
    if not aggregator.averages:
        raise SettingsError(
            f"{verb}() needs the mean over clients, but {aggregator.name}() gives their sum. Use "
            "fm.aggregators.weighted_mean() or uniform_mean()."
        )


def refuse_own_models(verb: str, work: LocalWork) -> None:
    """Refuse a work whose clients have models of their own already.

    Raises:
        SettingsError: Where the parts are composed, before any client is asked.
    """
    refuse_no_work(verb, work)
    if work.model is not None:
        raise SettingsError(
            f"{verb}() gives each client a model of its own, but the clients of work "
            f"{work.name!r} have one already. Use one or the other; name all personal leaves in "
            "one pattern."
        )
