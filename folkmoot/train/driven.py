"""An algorithm whose rounds are driven with something between it and whoever answers."""

from collections.abc import Callable
from typing import Any

from folkmoot.core.aggregator import Aggregate
from folkmoot.core.algorithm import Algorithm, Round, Task
from folkmoot.core.tree import Tree
from folkmoot.train.loop import begun, check_task


def driven(
    algorithm: Algorithm,
    *,
    ask: Callable[[Task], Task] = lambda task: task,
    hear: Callable[[Task, Aggregate], None] = lambda task, answer: None,
    end: Callable[[Tree], Tree] = lambda state: state,
) -> Algorithm:
    """Return an algorithm that asks and ends a round otherwise, or is listened to.

    Args:
        algorithm: What is driven, as it is.
        ask: From what a round asks for to what is asked.
        hear: Is told of each aggregate, with what was asked.
        end: From the state that a round returns to the next state.
    """

    def round(state: Tree) -> Round:
        steps = begun(algorithm, state)
        # A generator begins with None.
        answer: Any = None
        while True:
            try:
                task = ask(check_task(algorithm, steps.send(answer)))
            except StopIteration as done:
                return end(done.value)
            answer = yield task
            hear(task, answer)

    return algorithm._replace(round=round)
