"""All rounds of a run, one after another, with what is told of them."""

from collections.abc import Sequence
from typing import Any

from folkmoot.core.engine import Engine
from folkmoot.core.errors import BudgetError
from folkmoot.train.events import Callback, Event
from folkmoot.train.guard import Guard
from folkmoot.train.standing import Program, Standing, advance, is_over, refuse_nothing_learnt


def all_rounds(
    program: Program,
    standing: Standing,
    engine: Engine,
    settings: dict[str, Any],
    listeners: Sequence[Callback],
    guard: Guard | None,
) -> Standing:
    """Go on until no round is left, and tell what happens."""

    def tell(kind: str, facts: dict[str, Any]) -> None:
        for listener in listeners:
            listener(Event(kind, standing.snapshot.round, program.rounds, facts))

    tell("start", settings)
    while not is_over(program, standing):
        try:
            standing = advance(program, standing, engine, guard)
        except BudgetError as error:
            # After a crash a round may be paid for twice; what was learnt by then is worth keeping.
            if not standing.history:
                raise
            standing = standing._replace(ended=str(error))
            break
        # A bound of microseconds, to look at; the result has the epsilon that is spent.
        meter = {"epsilon_bound": guard.meter()} if guard else {}
        tell("round", standing.history[-1] | meter)
    refuse_nothing_learnt(standing.history)
    if not standing.judged:
        # A run that was over when it was resumed has not judged its model.
        judged = program.judge.clients(standing.snapshot, engine)
        standing = standing._replace(judged=judged)
    tell("end", standing.history[-1] if standing.history else {})
    return standing
