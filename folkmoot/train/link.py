"""What lies between a round and its clients: how broadcasts travel, and whose answers come late."""

import functools
from typing import NamedTuple

from folkmoot.aggregators.measured import measured
from folkmoot.core import rng
from folkmoot.core.aggregator import SUM
from folkmoot.core.algorithm import Task
from folkmoot.core.codec import Codec
from folkmoot.core.engine import Cohort
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.engines.tasks import example
from folkmoot.train.downlink import sent
from folkmoot.train.gathering import Part


class Link(NamedTuple):
    """One round's."""

    down: Codec | None = None
    """How differences of broadcasts are packed; None where all are sent whole."""
    late: tuple[Part, ...] = ()
    """Clients that answer in this round to older models."""
    live: frozenset[int] | None = None
    """Models that are worked on after this round, by the rounds that each had seen; None where no
    work goes on over the end of a round."""
    least: int = 1
    """Fewest usable answers with which a round has a result."""
    measures: bool = False
    """Whether it is measured how far clients' updates point apart."""

    def measured(self, task: Task) -> Task:
        """Return a task whose rule also measures, where that is asked and a sum can tell."""
        if not (self.measures and task.work.train and task.aggregator.sees is SUM):
            return task
        if not example(task).value.get("params"):
            return task
        return task._replace(aggregator=_measured(task.aggregator))

    def delivered(self, task: Task, codecs: Tree, cohort: Cohort, seed: int) -> tuple[Task, Tree]:
        """Return the task with what clients hear of its broadcast, and the states after that."""
        if self.down is None or not task.work.train:
            return task, codecs
        at = f"down {cohort.exchange}"
        key = rng.derive(seed, round=cohort.round, purpose=cohort.purpose("broadcast"))
        found = sent(self.down, codecs.get(at), task.broadcast, key)
        return task._replace(broadcast=found.held), {**codecs, at: found.kept}

    def with_base(self, bases: Tree, task: Task, cohort: Cohort) -> Tree:
        """Return the broadcasts that are kept: this one, and those that are still worked on."""
        if self.live is None:
            return bases
        if cohort.exchange:
            raise SettingsError(
                f"Round {cohort.round} asks a second time, but with buffer= its clients answer to "
                "different models, and at different times. Use an algorithm of one exchange a "
                "round, or leave buffer= out."
            )
        used = self.live | {part.base for part in self.late}
        known = {**bases, f"{cohort.round - 1}": task.broadcast}
        return {base: tree for base, tree in known.items() if int(base) in used}

    def parts(self, cohort: Cohort) -> list[Part]:
        """Return who is asked, by the model that they were given."""
        present = [Part(cohort)] if cohort.clients or not self.late else []
        return present + [part for part in self.late if part.cohort.clients]

    def answers(self, cohort: Cohort) -> int:
        """Return how many clients a sum may hold."""
        asked = [cohort, *(part.cohort for part in self.late)]
        return sum(len(one.clients) - len(one.absent) for one in asked)


PLAIN: Link = Link()

_measured = functools.lru_cache(measured)
