"""`folkmoot bench`: fixed workloads, equal work, and figures under the names that are promised."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from folkmoot import algorithms
from folkmoot.cli import commands
from folkmoot.cli.bench import algorithms as beside
from folkmoot.cli.bench import newcomer, private, race, tables
from folkmoot.cli.bench.bars import BARS, Bar
from folkmoot.cli.bench.federated import train as by_folkmoot
from folkmoot.cli.bench.models import build, flat
from folkmoot.cli.bench.plain import train as by_hand
from folkmoot.cli.bench.workloads import WORKLOADS, generate, read, write
from folkmoot.engines import sequential
from folkmoot.train.loop import RoundReport

NAMES = list(WORKLOADS)
ABOUT = {"cpu": "a CPU", "cores": 2, "memory_gib": 8.0, "torch": "2.13.0", "python": "3.11.7"}
SMALL = {name: replace(WORKLOADS[name].cut(), rounds=1) for name in NAMES}


@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_workloads_have_the_shapes_of_the_table():
    facts = {
        name: (w.clients, w.cohort, w.examples, w.batch_size, w.lr) for name, w in WORKLOADS.items()
    }
    parameters = {name: len(flat(build(w.model))) for name, w in WORKLOADS.items()}

    assert facts == {
        "mlp": (1_000, 100, 60, 10, 0.1),
        "femnist-cnn": (1_000, 20, 200, 20, 0.05),
        "char-lstm": (200, 10, 100, 10, 0.8),
        "tiny": (1_000, 1_000, 1, 1, 0.1),
    }
    assert parameters == {
        "mlp": 101_770,  # 785 * 128 + 129 * 10
        "femnist-cnn": 1_690_046,
        "char-lstm": 819_920,
        "tiny": 22,
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_is_the_same_each_time(name):
    workload = SMALL[name]

    first, again = generate(workload), generate(workload)

    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert workload.cohorts() == workload.cohorts()
    assert torch.equal(flat(build(workload.model)), flat(build(workload.model)))


def test_a_clients_examples_do_not_depend_on_who_else_is_asked():
    few, many = SMALL["mlp"], replace(SMALL["mlp"], rounds=3)
    client = few.cohorts()[0][0]

    alone, among_others = generate(few), generate(many)

    x = among_others.x[among_others.rows_of(client)]
    assert np.array_equal(alone.x[alone.rows_of(client)], x)


def test_sizes_of_the_cnn_vary_around_their_mean():
    sizes = WORKLOADS["femnist-cnn"].sizes()

    # The lognormal law has mean 200 and deviation 107; cutting its ends moves the mean by about 2.
    assert abs(sizes.mean() - 200) < 4 * 107 / 1_000**0.5 + 2
    assert sizes.min() >= 20 and sizes.max() <= 500


def test_a_stored_pool_is_read_back(tmp_path):
    pool = generate(SMALL["tiny"])

    write(pool, tmp_path)

    assert all(np.array_equal(one, other) for one, other in zip(pool, read(tmp_path), strict=True))


SLOW = {"femnist-cnn", "char-lstm"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NAMES]
)
def test_plain_and_folkmoot_do_the_same_work(name, in_float64):
    workload, pool = SMALL[name], generate(SMALL[name]).in_float64()
    first = flat(build(workload.model).double())

    plain = flat(by_hand(workload, pool, build(workload.model).double(), lambda: None))
    ours = by_folkmoot(
        workload, pool, build(workload.model).double(), lambda: None, engine=sequential()
    )

    # Rounding in float64 is 1e-16 a number; sums of thousands of terms over tens of steps, and
    # their amplification by the network, stay far below 1e-9 of the whole update.
    distance = (flat(ours.model) - plain).norm() / (plain - first).norm()
    assert distance < 1e-9


@pytest.fixture
def short(monkeypatch):
    """Let races take two clients and one timed round."""
    cut = replace(WORKLOADS["tiny"], cohort=2, warm_up=1, rounds=1)
    monkeypatch.setitem(WORKLOADS, "tiny", cut)
    return cut


@pytest.mark.slow
def test_json_has_the_promised_keys(short, monkeypatch):
    monkeypatch.setitem(race.VARIANTS, "tiny", {})

    done = CliRunner().invoke(commands, ["bench", "--only", "tiny", "--quick", "--json"])

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["tiny"].keys() >= {
        "vs_plain", "share_of_plain", "engine", "runs", "us_per_client", "plain_us_per_client",
        "first_round_s", "overhead_share", "max_difference", "plain_threads",
    }  # fmt: skip
    assert found["tiny"]["runs"] == 1
    assert found["tiny"]["max_difference"] < 1e-5
    assert found["machine"].keys() >= {"cpu", "cores", "torch", "python"}


def _run(seconds, parameters, **more):
    answer = {
        "engine": "sequential", "overhead_share": 0.25, "threads": 2, "first_round_s": 1.5,
        "rounds_s": [9.0, *seconds], **more,
    }  # fmt: skip
    return race.Run(answer, np.array(parameters), None, 0.0)


def test_figures_are_medians_over_rounds_and_runs():
    workload = replace(WORKLOADS["tiny"], cohort=10, warm_up=1)
    found = {
        "plain": [_run([4.0, 6.0, 5.0], [1.0]), _run([3.0], [1.0]), _run([7.0], [1.0])],
        "default": [_run([2.0], [1.5]), _run([2.5], [1.0]), _run([9.0], [1.0])],
        "exact_false": [_run([1.0], [1.0])] * 3,
    }

    figures = race._figures(workload, found)

    assert figures["plain_us_per_client"] == pytest.approx(5.0 / 10 * 1e6)  # of 5, 3 and 7
    assert figures["us_per_client"] == pytest.approx(2.5 / 10 * 1e6)
    assert figures["vs_plain"] == pytest.approx(2.0)
    assert figures["exact_false"]["vs_plain"] == pytest.approx(5.0)
    assert figures["max_difference"] == pytest.approx(0.5)
    assert figures["runs"] == 3


def test_other_work_is_not_compared():
    workload = WORKLOADS["tiny"]
    first = flat(build(workload.model)).numpy()
    found = {
        "plain": [_run([1.0], first + 1.0)],
        "default": [_run([1.0], first + 1.01)],
    }

    with pytest.raises(race.DisagreementError, match=r"'default' differ .* by 1.0e-02 of all"):
        race._refuse_other_work(workload, found)


def test_an_unknown_workload_is_refused():
    done = CliRunner().invoke(commands, ["bench", "--only", "mpl"])

    assert done.exit_code == 2
    assert "no workload 'mpl'. Did you mean 'mlp'?" in done.stderr


def test_tables_warn_of_other_programs(capsys):
    figures = {
        "vs_plain": 2.0, "engine": "parallel (2 processes)", "us_per_client": 500.0,
        "plain_us_per_client": 1_000.0, "first_round_s": 2.0, "overhead_share": 0.1,
        "plain_threads": 2, "others_cores": 0.9,
    }  # fmt: skip

    tables.show({"mlp": {**figures, "exact_false": figures}, "machine": ABOUT})

    shown = capsys.readouterr().out
    assert "2.00" in shown and "plain loop with 2 threads" in shown
    assert "other programs used up to 0.9 cores" in shown


def test_the_newcomers_program_has_at_most_fifteen_lines():
    assert len(newcomer.WITH_FOLKMOOT.splitlines()) <= 15
    assert all(len(line) <= 100 for line in newcomer.WITH_FOLKMOOT.splitlines())


def test_every_bar_is_an_algorithm_s_and_has_a_reason():
    assert set(BARS) <= set(algorithms.__all__) - {"fedavg"}
    assert all(bar.why and bar.time >= 1 for bar in BARS.values())


def test_json_has_each_algorithm_s_cost_beside_fedavg(monkeypatch):
    monkeypatch.setattr(algorithms, "__all__", ["fedavg", "scaffold"])

    done = CliRunner().invoke(commands, ["bench", "--algorithms", "--quick", "--json"])

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found) == {"algorithms", "machine"}
    figures = found["algorithms"]["scaffold"]
    # Model and control; the number of the round is 8 bytes of 407,088.
    assert figures["up"] == pytest.approx(2, rel=1e-4)
    assert figures["down"] == pytest.approx(2, rel=1e-4)
    assert figures["holds"]["up"] and figures["holds"]["down"]
    assert figures["bars"] == {"time": 1.15, "up": 2.0, "down": 2.0}
    assert figures.keys() >= {"time", "client_time", "fedavg_client_ms", "why", "others_cores"}


def test_an_algorithm_without_a_bar_is_measured_without_a_verdict(monkeypatch, capsys):
    monkeypatch.delitem(BARS, "scaffold")

    found = beside.algorithms(quick=True, names=["scaffold"])

    figures = found["scaffold"]
    assert (figures["bars"], figures["holds"]) == ({}, {})
    assert figures["why"] == "no bar is stated"
    assert figures["up"] == pytest.approx(2, rel=1e-4)
    tables.show({"algorithms": found, "machine": ABOUT})
    assert "scaffold" in capsys.readouterr().out


def test_an_algorithm_without_a_bar_that_needs_arguments_is_skipped(monkeypatch, capsys):
    monkeypatch.delitem(BARS, "ditto")
    told = []

    found = beside.algorithms(quick=True, names=["ditto"], tell=told.append)

    assert told == ["ditto: no bar is stated, and it needs arguments"]
    tables.show({"algorithms": found, "machine": ABOUT})
    assert "ditto" in capsys.readouterr().out


def _reports(client_s, up):
    return RoundReport(1, 4, 4, [], client_s, up, 100), 2 * client_s


def test_a_cost_is_the_median_of_the_pairs_ratios(monkeypatch):
    seconds = [(2.0, 1.0), (9.0, 3.0), (1.0, 2.0)]
    pairs = [(_reports(ours, 150), _reports(theirs, 100)) for ours, theirs in seconds]
    monkeypatch.setattr(beside, "_pairs", lambda runners, rounds: pairs)
    fedavg = algorithms.fedavg(beside._work(norm=False))

    found = beside.figures(fedavg, fedavg, Bar("why", 1.9, up=1.5), {0: None, 1: None}, 3)

    assert found["time"] == pytest.approx(2.0)  # of 2, 3 and 0.5
    assert found["client_time"] == pytest.approx(2.0)
    assert found["fedavg_client_ms"] == pytest.approx(2.0 / 2 * 1e3)
    assert (found["up"], found["down"]) == (1.5, 1.0)
    assert found["holds"] == {"time": False, "up": True, "down": True}


def test_rounds_take_turns_and_who_begins_changes():
    begun = []

    class Recording:
        algorithm = algorithms.fedavg(beside._work(norm=False))

        def __init__(self, name):
            self.name = name

        def round(self, snapshot):
            begun.append(self.name)
            return snapshot, self.name, 0.0

    pairs = beside._pairs([Recording("a"), Recording("b")], rounds=2)

    assert pairs == [[("a", 0.0), ("b", 0.0)]] * 2
    assert begun == ["b", "a", "a", "b"] * 2  # two pairs of warm-up, two that count


def test_a_cost_above_its_bar_is_marked(capsys):
    figures = {
        "time": 1.3, "client_time": 1.2, "up": 2.0, "down": 1.0, "others_cores": 0.0,
        "bars": {"time": 1.1, "up": 2.0, "down": 1.0}, "why": "a pass",
        "holds": {"time": False, "up": True, "down": True},
    }  # fmt: skip

    tables.show({"algorithms": {"mine": figures}, "machine": ABOUT})

    shown = capsys.readouterr().out
    assert shown.count("!") == 1
    assert "1.30 !" in shown and "mine" in shown


def test_json_has_the_cost_of_example_level_privacy(monkeypatch):
    monkeypatch.setattr(private, "PRIVATE", {"mlp-600": private.PRIVATE["mlp-600"]})

    done = CliRunner().invoke(commands, ["bench", "--private", "--quick", "--json"])

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found) == {"private", "machine"}
    figures = found["private"]["mlp-600"]
    assert figures["bar"] == 2.5
    assert figures["parameters"] == 101_770
    assert figures.keys() >= {"time", "holds", "noise_share", "plain_ms_a_step", "others_cores"}


def test_a_private_round_above_its_bar_is_marked(capsys):
    figures = {
        "time": 3.0, "bar": 2.5, "holds": False, "private_ms_a_step": 6.0, "plain_ms_a_step": 2.0,
        "noise_share": 0.25, "others_cores": 0.0,
    }  # fmt: skip
    without = {**figures, "bar": None, "holds": None}

    tables.show({"private": {"mine": figures, "other": without}, "machine": ABOUT})

    shown = capsys.readouterr().out
    assert shown.count("!") == 1
    assert "3.00 !" in shown and "25%" in shown
