"""`folkmoot run`: an app is run, shown and kept, and every mistake is told in a sentence."""

import json
import os

import pytest

import folkmoot as fm
from folkmoot.data.digest import digest_of


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_is_printed_and_kept_in_one_folder_beside_the_user(folkmoot, toy, here):
    ended = folkmoot("run toy.py --workers 1")

    assert ended.exit_code == 0, ended.stderr
    [folder] = (here / "runs").iterdir()
    assert folder.name.endswith("-toy")
    assert f"The run is kept in runs/{folder.name}: " in ended.stdout
    assert "accuracy" in ended.stdout
    kept = {path.name for path in folder.iterdir()}
    assert {"history.jsonl", "metrics.csv", "model.safetensors", "plot.png", "report.html"} <= kept
    assert {path.name for path in here.iterdir()} == {"runs", "toy.py"}


def test_away_from_a_terminal_each_round_is_a_line(folkmoot, toy):
    ended = folkmoot("run toy.py --workers 1 --set num_rounds=3")

    shown = [line.split("  ")[0] for line in ended.stderr.splitlines()]
    assert shown == ["round 1/3", "round 2/3", "round 3/3"]


def test_json_is_one_object_a_line_and_nothing_else(folkmoot, toy):
    ended = folkmoot("run toy.py --workers 1 --json --out a")

    events = lines_of(ended.stdout)
    assert [event["event"] for event in events] == ["start", "round", "round", "end", "result"]
    assert events[-1]["folders"] == ["a"]
    assert 0 <= events[-1]["metrics"]["test_accuracy"] <= 1
    assert ended.stderr == "the app speaks\n"


def test_quiet_says_only_what_the_app_says(folkmoot, toy):
    ended = folkmoot("run toy.py --workers 1 --quiet")

    assert (ended.stdout, ended.stderr) == ("the app speaks\n", "")


def test_settings_and_workers_of_the_command_line_reach_the_run(folkmoot, toy):
    folkmoot("run toy.py --workers 1 --set num_rounds=1 --set cohort=none --out a")

    settings = fm.load_result("a").settings
    assert settings["name"] == "toy"
    assert settings["engine"] == "sequential"
    assert settings["expected_cohort"] == 5
    assert settings["app"]["file"] == "toy.py"
    assert settings["app"]["set"] == {"num_rounds": 1, "cohort": None}


def test_a_resumed_run_has_the_bits_of_one_that_never_stopped(folkmoot, toy):
    folkmoot("run toy.py --workers 1 --set num_rounds=4 --out whole")
    folkmoot("run toy.py --workers 1 --set num_rounds=2 --out parts")
    ended = folkmoot("run toy.py --workers 1 --set num_rounds=4 --out parts --resume --json")

    rounds = [line["round"] for line in lines_of(ended.stdout) if line["event"] == "round"]
    assert rounds == [3, 4]
    whole, parts = (digest_of(fm.load_result(name).state_dict) for name in ("whole", "parts"))
    assert whole == parts


def test_resume_without_a_folder_goes_on_with_the_newest_run(folkmoot, toy, here):
    folkmoot("run toy.py --workers 1")
    ended = folkmoot("run toy.py --workers 1 --set num_rounds=3 --resume")

    assert ended.exit_code == 0, ended.stderr
    assert len(list((here / "runs").iterdir())) == 1
    assert "round 3/3" in ended.stderr
    assert "round 2/3" not in ended.stderr


def test_an_apps_second_run_has_a_folder_of_its_own(folkmoot, toy):
    toy.write_text(toy.read_text() + "\n\ndef both():\n    one()\n    return one()\n")
    toy.write_text(toy.read_text().replace("def app(", "def one(").replace("def both(", "def app("))

    ended = folkmoot("run toy.py --workers 1 --out a --json")

    assert lines_of(ended.stdout)[-1]["folders"] == ["a", "a-2"]


def test_an_error_in_client_code_shows_where_it_was_and_only_the_users_frames(folkmoot, toy):
    ended = folkmoot("run toy.py --workers 2 --set fail=yes")

    assert ended.exit_code == 3
    assert "Error: ValueError: the net is on strike" in ended.stderr
    assert "In client 0, round 0, stage step 1." in ended.stderr
    assert "toy.py, line 11, in forward" in ended.stderr
    assert "folkmoot/" not in ended.stderr
    assert "torch/" not in ended.stderr


def test_debug_shows_every_frame(folkmoot, toy):
    ended = folkmoot("run toy.py --workers 1 --set fail=yes --debug")

    assert "Traceback (most recent call last)" in ended.stderr
    assert "folkmoot/train/run.py" in ended.stderr


def test_an_error_leaves_no_process_behind(folkmoot, toy):
    toy.write_text(toy.read_text().replace("if strike and", "if strike and calls() > 9 and"))
    toy.write_text(
        toy.read_text()
        + "\n\ncount = iter(range(10**9))\n\n\ndef calls():\n    return next(count)\n"
    )

    ended = folkmoot("run toy.py --workers 2 --set fail=yes --set num_rounds=50")

    assert ended.exit_code == 3
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_with_json_an_error_is_an_object_too(folkmoot, toy):
    ended = folkmoot("run toy.py --json --set lr=-1")

    [told] = lines_of(ended.stdout)
    assert told["event"] == "error"
    assert told["exit_code"] == ended.exit_code == 2
    assert told["kind"] == "SettingsError"
    assert "lr must be a finite number of at least 0" in told["message"]


MISTAKES = {
    "no such setting": (
        "--set num_round=3",
        "toy.py has no setting 'num_round'. Did you mean 'num_rounds'? "
        "Its settings are num_rounds: int = 2, lr: float = 0.1",
    ),
    "not a number": ("--set lr=much", "--set lr=much: lr must be a number."),
    "no value": ("--set lr", "--set lr: write key=value, such as --set num_rounds=2."),
    "cohort": ("--set cohort=99", "A cohort of 99 clients was asked of a population of 5"),
    "rounds": ("--set num_rounds=0", "rounds must be a whole number of at least 1"),
    "nothing to resume": ("--resume", "There is no run of 'toy' with a checkpoint in runs/"),
    "out is a file": ("--out toy.py", "--out toy.py is a file. Name a folder."),
    "out is in use": ("--out .", ". is not empty. Name another folder, or add --resume"),
}


@pytest.mark.parametrize(("words", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_ends_with_code_2_and_a_sentence(folkmoot, toy, here, words, sentence):
    ended = folkmoot(f"run toy.py --workers 1 {words}")

    assert ended.exit_code == 2
    assert sentence in ended.stderr
    assert {path.name for path in here.iterdir()} == {"toy.py"}


FILES = {
    "no file": (None, 2, "There is no file app.py. `folkmoot new NAME` writes an app."),
    "no function": ("def build(): pass", 2, "app.py has no function app(...)."),
    "other function": ("def build(): pass", 2, "It defines build: call it app."),
    "returns nothing": ("def app(): pass", 3, "must return the run, what fm.run(...) gives back"),
    "syntax": ("def app(:", 3, "SyntaxError: invalid syntax\n  app.py, line 1\n    def app(:"),
    "import": ("import nowhere", 3, "ModuleNotFoundError: No module named 'nowhere'"),
    "exit": ("def app(): raise SystemExit(1)", 3, "The app ended the program by sys.exit(1)"),
    "needs a setting": ("def app(at): pass", 2, "app.py needs a value for 'at': --set at=..."),
}


@pytest.mark.parametrize(("text", "code", "sentence"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_app_is_refused_with_a_sentence(folkmoot, here, text, code, sentence):
    if text is not None:
        (here / "app.py").write_text(text)

    ended = folkmoot("run app.py")

    assert ended.exit_code == code
    assert sentence in ended.stderr


def test_a_folder_that_cannot_be_written_is_the_machines_fault(folkmoot, toy, here):
    (here / "a").mkdir()
    (here / "a" / "checkpoints").touch()

    ended = folkmoot("run toy.py --workers 1 --out a --resume")

    assert ended.exit_code == 5
    assert "The run cannot be kept in a/checkpoints: NotADirectoryError" in ended.stderr
    assert "Name another folder by --out." in ended.stderr


def test_another_program_in_the_folder_is_a_matter_of_settings_and_no_way_to_go_on(folkmoot, toy):
    folkmoot("run toy.py --workers 1 --out a")

    ended = folkmoot("run toy.py --workers 1 --out a --resume --set lr=0.2")

    assert ended.exit_code == 2
    assert "belongs to another program: " in ended.stderr
    assert "lr was 0.1 and is 0.2" in ended.stderr
    assert "To go on" not in ended.stderr


def test_a_checkpoint_that_cannot_be_read_is_no_way_to_go_on(folkmoot, toy, here):
    folkmoot("run toy.py --workers 1 --out a")
    for path in (here / "a" / "checkpoints").iterdir():
        path.write_bytes(b"")

    ended = folkmoot("run toy.py --workers 1 --out a --resume")

    assert ended.exit_code == 5
    assert "Remove the folder to begin anew." in ended.stderr
    assert "To go on" not in ended.stderr


def test_divergence_has_its_own_code_and_tells_how_to_go_on(folkmoot, toy):
    toy.write_text(toy.read_text().replace("return super().forward(x)", BURST))

    ended = folkmoot("run toy.py --workers 1 --set num_rounds=9")

    assert ended.exit_code == 4
    assert "Error: Training diverged in round 2: " in ended.stderr
    assert "Lower the learning rate, or clip the gradients" in ended.stderr
    assert "To go on: folkmoot run" in ended.stderr
    assert "--set num_rounds=9 --workers 1 --resume" in ended.stderr


BURST = """Net.calls = getattr(Net, "calls", 0) + self.training
        return super().forward(x) * (float("nan") if Net.calls > 5 else 1)"""
"""A model that gives NaN from round 2 on: one step is tried before the run, four make round 1."""
