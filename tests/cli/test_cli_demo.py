"""`folkmoot demo`: the main job, announced in three lines, kept with picture and report."""

import pytest

from folkmoot.cli import demo


def test_the_demo_tells_what_it_does_and_where_its_picture_lies(folkmoot, here):
    ended = folkmoot("demo --rounds 1 --out a --workers 1")

    assert ended.exit_code == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("Training a small network to read digits")
    assert lines[1].startswith("1 round: 50 of 539 writers learn from their own digits")
    assert "10,000 test digits" in lines[2]
    assert "Picture: a/plot.png" in lines
    assert (here / "a" / "plot.png").exists()
    assert (here / "a" / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "environment", "rounds"),
    [
        ("", {}, 200),
        ("--quick", {}, 10),
        ("", {"FOLKMOOT_QUICK": "1"}, 10),
        ("--quick --rounds 3", {}, 3),
    ],
)
def test_quick_means_fewer_rounds(folkmoot, monkeypatch, words, environment, rounds):
    asked = []
    monkeypatch.setattr(demo, "_train", lambda *arguments: asked.append(arguments))

    folkmoot(f"demo {words}", **environment)

    assert asked[0][0] == rounds


@pytest.mark.slow
def test_the_whole_demo_reads_96_of_100_digits_of_unknown_writers(folkmoot, here):
    import folkmoot as fm

    ended = folkmoot("demo --out a")

    assert ended.exit_code == 0, ended.stderr
    assert fm.load_result(here / "a").metrics["test_accuracy"] >= 0.96
