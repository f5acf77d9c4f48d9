"""The hospitals: the program ends as it promises, and its losses are those of the papers."""

import importlib.util
import math

import pytest
import torch
from promises import EXAMPLES, form, promised, run

FOLDER = EXAMPLES / "hospitals"


def module(name):
    """A file of the application, which is no package."""
    spec = importlib.util.spec_from_file_location(f"hospitals_{name}", FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_program_ends_as_it_promises(tmp_path):
    code, lines, errors = run(FOLDER, tmp_path, FOLKMOOT_QUICK="1")

    assert code == 0, errors
    assert form(lines[-1]) == form(promised(FOLDER / "__main__.py"))
    for row in ("pooled", "local only", "federated", "hidden and secure", "Cox, secure sums"):
        assert any(line.startswith(row) for line in lines)
    assert {path.name for path in tmp_path.iterdir()} == {
        "hospitals.png",
        "hospitals-survival.png",
    }


def test_the_partial_likelihood_is_the_share_of_risk_of_those_who_die():
    risk = torch.tensor([[0.0], [1.0], [2.0]])
    y = torch.tensor(
        [[3.0, 1.0], [1.0, 1.0], [2.0, 0.0]]
    )  # the second dies first, the third leaves

    loss = module("cox").partial_likelihood(risk, y)

    all_three = 1 + math.e + math.e**2
    assert loss.item() == pytest.approx((math.log(all_three / math.e) + math.log(1.0)) / 2)


def test_a_patient_pays_for_each_interval_lived_through_and_for_the_one_of_death():
    logits = torch.full((3, 6), math.log(1 / 3))  # a chance of 1/4 to die in each
    y = torch.tensor([[2.5, 1.0], [2.5, 0.0], [0.5, 1.0]])

    losses = module("cox").by_years(logits, y)

    lived, died = -math.log(3 / 4), -math.log(1 / 4)
    assert losses.tolist() == pytest.approx([2 * lived + died, 2 * lived, died])


def test_the_concordance_joins_pairs_of_several_regions():
    cox = module("cox")
    y = torch.tensor([[1.0, 1.0], [2.0, 0.0], [3.0, 1.0]])  # pairs: first with both others

    right = cox.pairs(torch.tensor([[3.0], [2.0], [1.0]]), y)
    half = cox.pairs(torch.tensor([[1.0], [1.0], [2.0]]), y)

    assert right == (2, 2.0)
    assert half == (2, 0.5)
    assert cox.concordance([right, half]) == 2.5 / 4
