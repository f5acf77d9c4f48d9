"""`folkmoot bench --secagg`: real sums, bytes that are those of messages, stated extrapolation."""

import json

import pytest
from typer.testing import CliRunner

from folkmoot.cli import commands
from folkmoot.cli.bench import secagg, tables
from folkmoot.secagg import terms

ABOUT = {"cpu": "a CPU", "cores": 2, "memory_gib": 8.0, "torch": "2.13.0", "python": "3.11.7"}
HEAD, ADVERT, SEALED, SHARE, PEER = 40, 96, 82, 34, 4  # bytes


def test_json_has_what_secure_sums_cost(monkeypatch):
    kept = {name: secagg.COHORTS[name] for name in ("100", "10,000")}
    monkeypatch.setattr(secagg, "COHORTS", kept)

    done = CliRunner().invoke(commands, ["bench", "--secagg", "--quick", "--json"])

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found) == {"secagg", "machine"}
    sums = found["secagg"]
    assert set(sums) == {"100", "10,000", "parts"}
    assert sums["100"]["exact"] and sums["10,000"]["exact"]
    assert sums["100"]["how"] == "whole vectors of all clients"
    assert "sample" in sums["10,000"]["how"]
    # Of 10,000 numbers here; the head is another 40 bytes.
    assert sums["100"]["bytes_a_number"] == pytest.approx(4.004)
    assert sums["10,000"]["bars"] == {"client_ms": 30, "server_s": 22, "else_share": 0.02}
    assert sums["100"]["client_phases_ms"].keys() == {
        "advertise", "share", "mask", "unmask", "terms"
    }  # fmt: skip
    assert sums["parts"].keys() >= {"mask_by_stream", "bar", "holds", "encode_ms"}


def test_the_cohorts_and_their_bars_are_those_that_were_promised():
    found = {
        name: (one.clients, one.dropped, one.client_ms, one.server_s, one.numbers)
        for name, one in secagg.COHORTS.items()
        if one.bits == 32
    }
    graphs = {name: secagg.COHORTS[name].terms(1) for name in found}

    assert found == {
        "100": (100, 5, 60, 0.5, 1_000_000),
        "1,000": (1_000, 50, 30, 2, 1_000_000),
        "10,000": (10_000, 500, 30, 22, 1_000_000),
    }
    assert {name: (one.degree, one.threshold) for name, one in graphs.items()} == {
        "100": (99, 67),
        "1,000": (30, 17),
        "10,000": (34, 20),
    }


def test_bytes_are_those_of_all_messages():
    played = secagg.play(terms(5, [(7, 32)]), gone={2})

    assert played.exact
    adverts, shares = 5 * (HEAD + ADVERT), 5 * (HEAD + 4 * (PEER + SEALED))
    masked, reveals = 4 * (HEAD + 7 * 4), 4 * (HEAD + 5 * (PEER + SHARE))
    assert played.bytes["up"] == adverts + shares + masked + reveals
    met, mail = 5 * (HEAD + 4 * (PEER + ADVERT)), 4 * (HEAD + 4 * (PEER + SEALED))
    assert played.bytes["down"] == met + mail + 4 * (HEAD + 1)
    assert (played.bytes["masked"], played.bytes["vectors"]) == (masked, 4 * 7 * 4)


def test_every_second_is_a_clients_or_the_servers(monkeypatch):
    clock = iter(range(1_000))
    monkeypatch.setattr(secagg, "process_time", lambda: next(clock))

    played = secagg.play(terms(3, [(1, 32)]), gone=set())

    # Each reading is a second later. A phase is two readings around two a client, and one before
    # the server takes what was said: 2 + 3 * 3 readings, 10 seconds, 3 of them of clients. One more
    # for each masked vector that was taken, and one second before anything is asked.
    phases = ("advertise", "share", "mask", "unmask")
    assert played.clients == {phase: [1, 1, 1] for phase in phases}
    assert played.server == {"advertise": 1 + 7, "share": 7, "mask": 7 + 3, "unmask": 7}
    assert played.additions == [1, 1, 1]


def test_the_server_takes_off_own_masks_and_those_shared_with_the_lost():
    # Four survivors' own; one is lost, and shared a mask with each of them.
    assert secagg._masks(terms(5, [(1, 32)]), {2}) == 4 + 4
    # Two are lost, and what they shared with each other is in no sum.
    assert secagg._masks(terms(6, [(1, 32)]), {0, 5}) == 4 + 2 * 4


def test_long_vectors_cost_what_a_sample_costs_for_each_of_them(monkeypatch):
    cohort = secagg.Cohort(clients=1_000, dropped=50, sampled=True, numbers=100, samples=1)
    agreed = cohort.terms(64)
    phases = {"advertise": 0.0, "share": 0.0, "mask": 1.0, "unmask": 1.0}

    def play(agreed, gone):
        long = agreed.vectors[0][0] == 100
        clients = {phase: [cost + 2.0 * long] for phase, cost in phases.items()}
        server = {phase: cost + 100.0 * long for phase, cost in phases.items()}
        return secagg.Played(clients=clients, server=server, additions=[0.5 + 3.0 * long])

    monkeypatch.setattr(secagg, "play", play)
    mine, servers = {"mask": 5.0, "unmask": 0.0}, {"mask": 7.0, "unmask": 9.0}

    secagg._add_long_vectors(mine, servers, cohort, agreed)

    # The sample is 30 peers and oneself, less 3. Its 28 vectors took 100 s more, and each of the
    # other 950 - 28 takes 3; it took 28 + 3 * 28 masks off.
    assert mine == {"mask": 5.0 + 2.0, "unmask": 0.0}
    assert servers["mask"] == pytest.approx(7.0 + 100 + 3 * (950 - 28))
    masks = secagg._masks(agreed, secagg._gone(cohort))
    assert servers["unmask"] == pytest.approx(9.0 + 100 / 112 * masks)


def test_a_secure_sum_above_its_bar_is_marked(capsys):
    figures = {
        "client_ms": 75.0, "server_s": 0.25, "else_share": 0.01, "bytes_a_number": 4.00004,
        "exact": True, "how": "whole vectors of all clients", "others_cores": 0.0,
        "bars": {"client_ms": 60.0, "server_s": 0.5, "else_share": 0.02},
        "holds": {"client_ms": False, "server_s": True, "else_share": True},
    }  # fmt: skip

    found = {"100": figures, "parts": {"mask_ms": 0.4}}
    tables.show({"secagg": found, "machine": ABOUT})

    shown = capsys.readouterr().out
    assert shown.count("!") == 1
    assert "75.00 !" in shown and "exact" in shown and "mask ms" in shown
