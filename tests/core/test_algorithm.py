"""Plans that cannot be done are refused with the reason."""

import pytest
import torch

from folkmoot.core.algorithm import Algorithm, LocalWork, Plan, unchanged
from folkmoot.core.errors import SettingsError
from folkmoot.local.sgd import checked


@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan(epochs=0),
        Plan(epochs=None, steps=3),
        Plan(epochs=None, steps=0),
        Plan(batch_size=None),
        Plan(batch_size=1, last="drop"),
        Plan(last="join", shuffle=False),
    ],
    ids=str,
)
def test_a_plan_that_can_be_done_is_returned(plan):
    assert checked(plan) is plan


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (Plan(epochs=1, steps=1), "give one of them, not epochs=1, steps=1"),
        (Plan(epochs=None), "give one of them, not epochs=None, steps=None"),
        (Plan(epochs=-1), "epochs must be a finite number above 0, but is -1"),
        (Plan(epochs=1.5), "epochs must be a whole number, but is 1.5"),
        (Plan(epochs=True), "epochs must be a whole number, but is True"),
        (Plan(epochs=None, steps=-2), "steps must be a finite number above 0, but is -2"),
        (Plan(epochs=None, steps="3"), "steps must be a whole number, but is '3'"),
        (Plan(batch_size=0), "batch_size must be at least 1, or None"),
        (Plan(batch_size=-5), "batch_size must be a finite number above 0, but is -5"),
        (Plan(batch_size=2.0), "batch_size must be a whole number, but is 2.0"),
        (Plan(last="kept"), '"keep", "drop" or "join", but is \'kept\''),
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_done_is_refused(plan, reason):
    with pytest.raises(SettingsError, match=reason):
        checked(plan)


def test_the_first_work_s_objective_judges_the_global_model():
    works = [LocalWork(name, f"objective of {name}", Plan(), *[None] * 3) for name in ("a", "b")]

    assert Algorithm("two", None, None, tuple(works)).objective == "objective of a"


def test_the_seam_leaves_a_gradient_alone_unless_a_transform_rides_on_it():
    gradient = {"w": torch.ones(1)}

    assert unchanged(gradient, {"w": torch.zeros(1)}, {}, {}) is gradient
    assert LocalWork("train", None, Plan(), *[None] * 3).correct is unchanged
