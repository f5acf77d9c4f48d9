"""Who took part, and what each moved: by client, by round, and against centralising."""

import json
import math

import pytest
import torch

import folkmoot as fm
from folkmoot.core.errors import CheckpointError
from folkmoot.train.communication import centralising, heard, virtual_time
from folkmoot.train.participation import NeverHeard, Roll
from folkmoot.train.record import read_record, write_record
from folkmoot.train.summary import as_text
from folkmoot.train.tally import Tally


def roll_of(ids):
    """Of five clients two were heard, one of them twice; one was asked in vain."""
    tally = Tally.of(5).add([0, 2, 4], 100, [0, 4], [7, 9]).add([4], 100, [4], 1)
    return Roll(ids, tally)


@pytest.fixture
def counted(by_hand):
    """Two rounds by hand of five clients, with their counts."""

    def build(ids=range(10, 15), **more):
        rows = {"upload_bytes": 16, "download_bytes": 300}, {"upload_bytes": 1}
        return by_hand(*rows, roll=roll_of(ids), **more)

    return build


def test_participation_says_how_often_each_client_was_asked_and_heard(counted):
    found = counted().participation

    assert found == {10: (1, 1), 11: (0, 0), 12: (1, 0), 13: (0, 0), 14: (2, 2)}


def test_those_never_heard_are_named_and_those_never_asked_counted(counted):
    assert counted().never_heard == NeverHeard([11, 12, 13], 2)


def test_traffic_is_there_in_all_by_round_and_by_client(counted):
    traffic = counted().traffic

    assert traffic == (17, 2_300) and traffic.upload_bytes == 17
    assert traffic.by_round == [
        {"round": 1, "upload": 16, "download": 300, "cumulative_upload": 16},
        {"round": 2, "upload": 1, "download": 2_000, "cumulative_upload": 17},
    ]
    assert traffic.by_client[14] == (10, 200) and traffic.by_client[11] == (0, 0)


def test_a_run_without_counts_says_none_and_not_nobody(by_hand):
    result = by_hand({})

    assert result.participation is None and result.never_heard is None
    assert result.traffic.by_client is None and len(result.traffic.by_round) == 1
    assert heard(result) == ""


@pytest.mark.parametrize("ids", [range(10, 15), (1, 2, 5, 7, 9), ("a", "b\nc", 'd,"', "7", "é")])
def test_counts_are_saved_and_come_back(counted, tmp_path, ids):
    write_record(tmp_path, counted(ids, passes=1.5))

    found = read_record(tmp_path)

    assert found.participation == counted(ids).participation
    assert found.traffic.by_client == counted(ids).traffic.by_client
    assert found.passes == 1.5


def test_a_private_run_over_an_earlier_one_leaves_no_counts_behind(counted, by_hand, tmp_path):
    write_record(tmp_path, counted())
    assert (tmp_path / "participation.csv").read_text().splitlines()[:2] == [
        "id,asked,answered,upload_bytes,download_bytes",
        "10,1,1,7,100",
    ]

    write_record(tmp_path, by_hand({}))

    assert not (tmp_path / "participation.csv").exists()
    assert read_record(tmp_path).participation is None


def test_counts_that_were_lost_or_damaged_are_named(counted, tmp_path):
    write_record(tmp_path, counted())
    path = tmp_path / "participation.csv"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(CheckpointError, match=r"participation\.csv is damaged"):
        read_record(tmp_path)

    path.unlink()

    with pytest.raises(CheckpointError, match=r"has lost its participation\.csv"):
        read_record(tmp_path)


def test_a_run_of_an_earlier_version_has_no_counts(counted, tmp_path):
    write_record(tmp_path, counted())
    summary = json.loads((tmp_path / "summary.json").read_text())
    del summary["never_heard"], summary["passes"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))

    assert read_record(tmp_path).participation is None


def test_the_summary_says_how_many_were_heard_and_how_many_never_asked(counted):
    said = "2 of 5 clients; 2 were never asked and 1 was asked in vain"

    assert heard(counted()) == said
    assert f"heard        {said}" in as_text(counted()).splitlines()


def test_nothing_is_said_of_those_who_are_missing_where_nobody_is(by_hand):
    everyone = Roll((1, 2), Tally.of(2).add([0, 1], 1, [0, 1], 1))
    one_asked = Roll((1, 2), Tally.of(2).add([0, 1], 1, [0], 1))

    assert heard(by_hand({}, roll=everyone)) == "all of 2 clients"
    assert heard(by_hand({}, roll=one_asked)) == "1 of 2 clients; 1 was asked in vain"


def test_centralising_is_compared_in_bytes_and_in_passes(counted):
    # 17 bytes up and 2,300 down.
    result = counted(passes=0.05, settings={"data_bytes": 1_000})

    assert centralising(result).splitlines() == [
        "all examples have 1.0 kB, once; this run moved 2.3 kB, 2.32 times as much",
        "clients went through all examples 0.05 times; in one place, that work would be the "
        "server's",
    ]
    assert centralising(counted()) == ""


def test_virtual_time_is_the_last_rounds_end_and_the_median_round(by_hand):
    ends = [{"virtual_s": end, "round_s": took} for end, took in ((60, 60), (90, 20), (7200, 90))]

    assert virtual_time(by_hand(*ends)) == (
        "2 h 00 min on the fleet's clock, 1 min 00 s a round (median)"
    )
    assert virtual_time(by_hand({})) == ""


def test_numbers_of_the_clock_and_the_monitor_come_back_though_not_finite(by_hand, tmp_path):
    write_record(tmp_path, by_hand({"update_norm": math.inf, "virtual_s": math.nan}))

    [row] = read_record(tmp_path).history

    assert row["update_norm"] == math.inf and math.isnan(row["virtual_s"])


def test_a_table_has_one_value_where_a_row_has_a_list(by_hand):
    late = {"staleness": [[0, 3], [4, 1]], "spans": [[1, 0, 1, 2, 3, None]], "advice": "stalled: x"}

    first, second = by_hand(late, {}).table()

    assert first["staleness"] == 1.0 and math.isnan(second["staleness"])  # (3 * 0 + 4) / 4
    assert (first["advice"], second["advice"]) == ("stalled: x", None)
    assert "spans" not in first


def federation():
    """Clients of 2, 4 and 6 examples."""
    x = torch.arange(24.0).reshape(12, 2)
    y = torch.arange(12) % 2
    return [(x[:2], y[:2]), (x[2:6], y[2:6]), (x[6:], y[6:])]


@pytest.mark.parametrize(
    ("plan", "passes"),
    [
        # Two rounds of all twelve examples, twice each.
        ({"epochs": 2, "batch_size": 3}, 4.0),
        # Two rounds of three steps: batches of 2, 4 and 4, as far as there are examples.
        ({"steps": 3, "batch_size": 4}, 2 * 3 * (2 + 4 + 4) / 12),
        ({"steps": 1, "batch_size": None}, 2.0),
    ],
)
def test_a_real_run_counts_its_clients_and_their_passes(plan, passes):
    work = fm.local.sgd(fm.classifier(torch.nn.Linear(2, 2)), lr=0.1, **plan)

    result = fm.run(
        fm.fedavg(work), federation(), rounds=2, engine=fm.engines.sequential(), progress=False
    )

    assert result.participation == {0: (2, 2), 1: (2, 2), 2: (2, 2)}
    assert result.never_heard == NeverHeard([], 0)
    assert result.passes == pytest.approx(passes)
    up, down = map(sum, zip(*result.traffic.by_client.values(), strict=True))
    assert result.traffic == (up, down) and up > 0


def test_a_private_run_says_nothing_of_who_took_part(tmp_path):
    work = fm.local.sgd(fm.classifier(torch.nn.Linear(2, 2)), lr=0.1)

    result = fm.run(
        fm.fedavg(work),
        federation(),
        rounds=1,
        privacy=fm.DP(epsilon=8, delta=1e-2, clip=1.0),
        engine=fm.engines.sequential(),
        progress=False,
        save=tmp_path,
    )

    assert result.participation is None and result.passes is None
    assert result.traffic.by_client is None
    assert not (tmp_path / "participation.csv").exists()
