"""The hospitals: the program ends as it promises, and its losses are those of the papers."""

import ast
import importlib.util
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "examples" / "hospitals"
NUMBER = re.compile(r"\d+\.\d+")


def module(name):
    """A file of the application, which is no package."""
    spec = importlib.util.spec_from_file_location(f"hospitals_{name}", FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def run(folder, **environment):
    """The lines that the program prints."""
    done = subprocess.run(
        [sys.executable, FOLDER],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip().splitlines()


def promised():
    program = FOLDER.joinpath("__main__.py").read_text("utf-8")
    return ast.get_docstring(ast.parse(program)).splitlines()[-1].strip()


def test_the_program_ends_as_it_promises(tmp_path):
    lines = run(tmp_path, FOLKMOOT_QUICK="1")

    assert NUMBER.sub("0", lines[-1]) == NUMBER.sub("0", promised())
    for row in ("pooled", "local only", "federated", "hidden and secure", "Cox, secure sums"):
        assert any(line.startswith(row) for line in lines)
    assert {path.name for path in tmp_path.iterdir()} == {
        "hospitals.png",
        "hospitals-survival.png",
    }


@pytest.mark.nightly
def test_the_program_prints_the_numbers_that_it_promises(tmp_path):
    line = run(tmp_path)[-1]

    found, numbers = (list(map(float, NUMBER.findall(text))) for text in (line, promised()))
    assert found == pytest.approx(numbers, abs=0.03)


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


def test_its_files_are_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in FOLDER.glob("*.*")}

    assert lengths.pop("README.md") <= 50
    assert max(lengths.values()) <= 110
