"""`folkmoot privacy`: what a budget asks for, before any run, without torch."""

import json
import subprocess
import sys

import pytest

from folkmoot.privacy.accountants import epsilon
from folkmoot.privacy.events import FixedSizeGaussian, Gaussian, PoissonGaussian

POISSON = "--delta 1e-5 --population 10000 --cohort 100 --rounds 50"


def facts(folkmoot, options):
    ended = folkmoot(f"privacy {options} --json")
    assert ended.exit_code == 0, ended.stderr
    return json.loads(ended.stdout)


def test_the_noise_of_a_budget_stays_within_it(folkmoot):
    found = facts(folkmoot, f"--epsilon 2 {POISSON}")

    noise = found["noise_multiplier"]
    assert found["epsilon"] == epsilon([(PoissonGaussian(noise, 0.01), 50)], 1e-5)
    assert 2 * 0.99 <= found["epsilon"] <= 2 < found["epsilon_rdp"]
    assert found["noise_in_mean"] == noise / 100
    assert (found["sampling"], found["unit"]) == ("poisson", "client")
    assert (found["adjacency"], found["trust"]) == ("add-or-remove-one", "central")
    assert found["warning"] is None


@pytest.mark.parametrize(
    ("options", "event", "adjacency"),
    [
        ("--cohort 100 --sampling fixed", FixedSizeGaussian(4.0, 100, 10000), "replace-one"),
        ("--cohort 100", PoissonGaussian(4.0, 0.01), "add-or-remove-one"),
        ("--sampling all", Gaussian(4.0), "add-or-remove-one"),
        ("", Gaussian(4.0), "add-or-remove-one"),
    ],
)
def test_the_epsilon_of_a_noise_is_that_of_its_lot(folkmoot, options, event, adjacency):
    found = facts(folkmoot, f"--noise 4 --population 10000 --rounds 20 {options}")

    assert found["epsilon"] == epsilon([(event, 20)], 1e-5)
    assert (found["noise_multiplier"], found["adjacency"]) == (4.0, adjacency)


def test_the_table_shows_both_accountants_and_what_they_rest_on(folkmoot):
    shown = folkmoot(f"privacy --noise 1 {POISSON}").stdout

    assert shown.startswith("Noise multiplier 1\n")
    assert "by privacy loss distributions" in shown and "by Rényi divergences" in shown
    for word in ("Unit:", "add-or-remove-one", "Sampling:", "Secret:", "Trusted:", "coin"):
        assert word in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_a_fixed_cohort_is_never_sold_as_poisson(folkmoot):
    shown = folkmoot(f"privacy --noise 1 {POISSON} --sampling fixed").stdout

    assert "by Rényi divergences, the only proof there is" in shown
    assert "loss distributions" not in shown and "coin" not in shown
    assert "replace-one" in shown


def test_without_a_lot_nothing_need_be_secret(folkmoot):
    shown = folkmoot("privacy --noise 9 --population 1000 --rounds 5").stdout

    assert "epsilon   " in shown and "exactly" in shown
    assert "Secret:" not in shown


def test_the_shown_noise_is_rounded_up(folkmoot):
    budget = f"--epsilon 2 {POISSON}"
    exact = facts(folkmoot, budget)["noise_multiplier"]

    shown = float(folkmoot(f"privacy {budget}").stdout.splitlines()[0].split()[-1])

    assert exact <= shown <= exact + 1e-4


def test_no_noise_is_an_infinite_epsilon_and_null_for_machines(folkmoot):
    assert facts(folkmoot, f"--noise 0 {POISSON}")["epsilon"] is None
    assert "inf by" in folkmoot(f"privacy --noise 0 {POISSON}").stdout


def test_a_delta_that_a_run_refuses_is_announced(folkmoot):
    ended = folkmoot("privacy --noise 1 --delta 1e-5 --population 100000 --rounds 3")

    assert ended.exit_code == 0
    assert (
        "Warning\n  - A run refuses this. delta 1e-05 is not below 1 / population" in ended.stdout
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (POISSON, "Give a budget, --epsilon, to find its noise"),
        (f"--epsilon 1 --noise 1 {POISSON}", "one of them"),
        (f"--epsilon 0 {POISSON}", "epsilon must be a finite number above 0"),
        (f"--noise -1 {POISSON}", "noise_multiplier must be a finite number of at least 0"),
        (f"--noise 1 {POISSON} --delta 0", "delta must be above 0"),
        (f"--noise 1 {POISSON} --sampling all", "asks all 10000 clients, but --cohort is 100"),
        ("--noise 1 --population 9 --rounds 1 --sampling fixed", "say how large it is by --cohort"),
        ("--noise 1 --population 9 --rounds 1 --cohort 10", "cohort of 10 was asked"),
    ],
)
def test_what_cannot_be_is_refused_with_code_2(folkmoot, options, message):
    ended = folkmoot(f"privacy {options}")

    assert ended.exit_code == 2
    assert message in ended.stderr


def test_an_unknown_sampling_is_refused_with_the_known_ones(folkmoot):
    ended = folkmoot(f"privacy --noise 1 {POISSON} --sampling shuffle")

    assert ended.exit_code == 2
    assert "'poisson', 'fixed', 'all'" in ended.stderr


def test_the_command_does_without_torch():
    typed = ["privacy", "--noise", "3", "--population", "1000", "--rounds", "5", "--json"]
    script = "from folkmoot.cli import main\ntry:\n    main()\nexcept SystemExit as end:\n"
    script += "    import sys\n    assert 'torch' not in sys.modules and not end.code\n"

    ended = subprocess.run([sys.executable, "-c", script, *typed], capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["noise_multiplier"] == 3.0
