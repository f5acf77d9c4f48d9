"""The page of a run: whole by itself, well formed, and safe whatever clients are called."""

import html.parser
import math
import re

import pytest

from folkmoot.train.report import card, page, write_report

EMPTY = {"meta", "br", "use", "path", "image"}


class Reader(html.parser.HTMLParser):
    """Follows tags, and collects the cells of tables and all attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.cells, self.faults = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag in EMPTY:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data


def test_a_page_loads_nothing_and_runs_nothing(finished):
    text = page(finished)

    loads = [value for name, value in Reader(text).attributes if name in ("src", "href")]
    assert loads == []
    links = [value for name, value in Reader(text).attributes if name == "xlink:href"]
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"<script|<link|<iframe|@import|url\((?!#)", text)


@pytest.mark.parametrize("form", [page, card])
def test_every_tag_is_closed(judged, by_hand, form):
    for result in (judged, by_hand(), by_hand({"left_out": [[1, "x"]]})):
        reader = Reader(form(result))

        assert reader.faults == [] and reader.open == []


def test_names_and_reasons_are_text_and_never_markup(by_hand):
    bad = '<b>"x"</b><script>'
    result = by_hand(
        {"left_out": [[bad, bad]], "evaluated": True, f"test_{bad}": 0.5},
        accuracies={bad: 0.5},
        settings={"name": bad, "data": bad, bad: bad},
        ended=bad,
        environment={bad: {"deep": bad}},
    )

    for text in (page(result), card(result)):
        assert "<b>" not in text and "<script" not in text
        assert "&lt;b&gt;&quot;x&quot;" in text


def test_the_numbers_of_the_run_are_on_its_page(judged):
    cells = Reader(page(judged)).cells

    assert ["accuracy", "0.7500", "0.8750"] in cells
    assert ["accuracy", "0.5000", "0.2500", "0.5000", "1.0000", "0.2500", "0.7500"] in cells
    assert ["client work", "4.00 s", "40%"] in cells
    assert ["up", "3.0 kB, 1.0 kB a round"] in cells
    assert ["seed", "7"] in cells


def test_few_clients_are_all_listed_worst_first_and_nan_is_the_worst(by_hand):
    accuracies = {1: 0.9, 2: 0.1, 3: math.nan, 4: 0.5}

    cells = Reader(page(by_hand({}, accuracies=accuracies))).cells

    listed = [row[0] for row in cells if len(row) == 4 and row[1] == "5"]
    assert listed == ["3", "2", "4", "1"]


def test_of_many_clients_the_worst_ten_and_the_best_ten_are_listed(by_hand):
    accuracies = {client: client / 100 for client in range(30)}

    cells = Reader(page(by_hand({}, accuracies=accuracies))).cells

    listed = [int(row[0]) for row in cells if len(row) == 4 and row[1] == "5"]
    assert listed == [*range(10), *range(29, 19, -1)]


@pytest.mark.parametrize("count", [4, 30])
def test_whose_models_were_judged_is_on_the_page(by_hand, count):
    accuracies = {client: client / 100 for client in range(count)}
    own = {"name": "a run", "own_models": True}

    common = page(by_hand({}, accuracies=accuracies))
    personal = page(by_hand({}, accuracies=accuracies, settings=own))

    assert f"{count} clients, each with the final model on its own test examples" in common
    assert f"{count} clients, each with its own model on its own test examples" in personal


def test_reasons_are_counted_and_the_first_answers_named(by_hand):
    lost = [[client, "too late"] for client in range(30)] + [[99, "a NaN in params/w"]]

    text = page(by_hand({"left_out": lost}))

    cells = Reader(text).cells
    assert ["too late", "30"] in cells and ["a NaN in params/w", "1"] in cells
    assert ["1", "19", "too late"] in cells and ["1", "20", "too late"] not in cells
    assert "And 11 more, in history.jsonl." in text


def test_a_page_without_any_evaluation_says_so(by_hand):
    assert "No round was evaluated" in page(by_hand({}))
    assert "No round was evaluated" in card(by_hand())


def test_a_page_follows_the_readers_light_or_dark(by_hand):
    assert "@media (prefers-color-scheme: dark)" in page(by_hand({}))


def test_a_report_is_one_file(finished, tmp_path):
    path = write_report(tmp_path / "deep" / "report.html", finished)

    assert [found.name for found in path.parent.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8") == page(finished)
