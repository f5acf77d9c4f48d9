"""`folkmoot check`: what an app would run is looked at, and not run."""

import json


def test_check_prints_the_report_and_trains_nothing(folkmoot, toy, here):
    ended = folkmoot("check toy.py --workers 1 --set num_rounds=7")

    assert ended.exit_code == 0, ended.stderr
    assert "Check of fedavg on clients: no problem" in ended.stdout
    assert "7 rounds of" in ended.stdout
    assert {path.name for path in here.iterdir()} == {"toy.py"}


def test_check_ends_with_code_2_where_there_are_problems(folkmoot, toy):
    toy.write_text(toy.read_text().replace("Net(8, 3)", "Net(8, 2)"))

    ended = folkmoot("check toy.py --set cohort=6")

    assert ended.exit_code == 2
    assert "A cohort of 6 clients was asked of a population of 5." in ended.stdout
    assert "the model has outputs for 2" in ended.stdout


def test_check_writes_its_facts_for_machines(folkmoot, toy):
    ended = folkmoot("check toy.py --json")

    [told] = [json.loads(line) for line in ended.stdout.splitlines()]
    assert told["event"] == "check"
    assert told["ok"] is True
    assert told["clients"] == 5
    assert told["cost"]["upload_bytes"] == 4 * (4 * (8 * 3 + 3) + 8)  # four clients; weights too


def test_an_app_that_runs_nothing_cannot_be_checked(folkmoot, here):
    (here / "app.py").write_text("def app(): return 1")

    ended = folkmoot("check app.py")

    assert ended.exit_code == 3
    assert "came to its end without calling fm.run(...)" in ended.stderr
