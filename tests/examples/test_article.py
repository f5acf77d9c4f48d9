"""Each program of the article does what it claims; they are run in their quick form.

What a program leaves behind is looked at, not only what it prints.
"""

import math
import runpy

import pytest
from promises import ARTICLE, EXAMPLES, form, promised, text_of, tidy

import folkmoot as fm

BY_NAME = {path.stem: path for path in ARTICLE}


@pytest.fixture
def left_by(monkeypatch, tmp_path, capsys):
    """A function from a program's name to the variables that it leaves."""
    monkeypatch.setenv("FOLKMOOT_QUICK", "1")
    monkeypatch.chdir(tmp_path)

    def run(name):
        left = runpy.run_path(str(BY_NAME[name]))
        assert form(tidy(capsys.readouterr().out)[-1]) == form(promised(BY_NAME[name]))
        return left

    return run


def test_server_and_clients_learn_and_the_mean_counts_examples(left_by):
    left = left_by("server_and_clients")

    assert left["accuracies"][-1] > left["accuracies"][0] + 0.2
    assert len(set(left["sizes"])) > 1
    assert left["difference"] < 1e-6
    unweighted = sum(left["alone"]) / len(left["alone"])
    assert (unweighted - left["by_hand"]).abs().max() > 1e-4


def test_fedprox_keeps_a_client_near_what_it_was_sent(left_by):
    left = left_by("fedprox")

    assert left["moved"]["FedProx"] < 0.8 * left["moved"]["FedAvg"]


def test_workers_learn_in_turn_and_give_no_data(left_by):
    left = left_by("workers")

    try:
        assert left["accuracy"](left["model"]) > left["before"] + 0.5
        assert left["told"] == "could not be fetched"
        for worker in left["workers"]:
            with pytest.raises(fm.remote.Refused, match="data never leave"):
                worker.data["digits"].x[:64].get()
    finally:
        for worker in left["workers"]:
            worker.close()


def test_dp_sgd_stays_within_its_budget_and_refuses_to_overspend(left_by):
    left = left_by("dp_sgd")

    guarantee = left["result"].privacy
    assert 0 < guarantee.epsilon <= left["EPSILON"]
    assert left["spent"] == pytest.approx(guarantee.epsilon, rel=1e-3)
    assert left["outcome"] == "a second run is refused"


def test_secure_aggregation_shows_the_server_the_sum_alone(left_by):
    left = left_by("secure_aggregation")

    assert len(left["masked"]) == left["NUM_CLIENTS"]
    # Of 7,850 independent pairs a correlation deviates by 0.011; twenty stay below five of those.
    assert max(left["correlations"]) < 5 / math.sqrt(7850)
    # Whole numbers on a grid of the clip: far below what a round changes.
    assert left["difference"] < 1e-4
    assert (left["secret"] - left["first"]).abs().max() > 1e-2


def test_compression_sends_fewer_bytes_as_its_codecs_say(left_by):
    fewer = left_by("compression")["fewer"]

    # 8 bits of 32, and 1 bit of 32 with a few scales; of top_k a value and a place of 1 in 100.
    assert fewer["quantize"] == pytest.approx(4, rel=0.02)
    assert fewer["eden"] == pytest.approx(32, rel=0.02)
    assert 50 < fewer["top_k"] < 100


def test_personal_layers_stay_with_each_client(left_by):
    left = left_by("personal_layers")

    assert left["heads_differ"] and left["bodies_agree"]
    head = sum(leaf.numel() for leaf in left["model"][6].parameters())
    assert left["sizes"][1] - left["sizes"][0] == pytest.approx(4 * head, rel=0.05)


def test_buffers_do_not_wait_for_the_slowest(left_by):
    left = left_by("asynchronous_updates")

    assert left["seconds"][1] < left["seconds"][0]
    for result in (left["rounds"], left["buffers"]):
        assert result.metrics["test_accuracy"] >= left["TARGET"]


def test_every_program_is_walked_through():
    page = text_of(EXAMPLES.parent / "docs" / "article.md")

    assert [path.name for path in ARTICLE if f"(../examples/article/{path.name})" not in page] == []
