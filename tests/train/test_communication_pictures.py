"""Pictures of what learning costs: each curve at its numbers, each device in its phases."""

import math

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from folkmoot.core.errors import SettingsError
from folkmoot.train.gantt import _PHASES, _kind, spans_of
from folkmoot.train.participation import Roll
from folkmoot.train.plot import draw_efficiency, draw_round, draw_traffic
from folkmoot.train.record import read_record, write_record
from folkmoot.train.report import page
from folkmoot.train.tally import Tally
from folkmoot.train.traffic_panels import parts

INF = math.inf


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def learnt(accuracy, **more):
    return {"evaluated": True, "test_accuracy": accuracy} | more


@pytest.fixture
def fleet(by_hand):
    """Three rounds, evaluated in the first and the last, of two hours each, with the last's spans:
    one device heard, one lost in training, one too late."""

    def build(**more):
        spans = [
            ["c", 14_400.0, 15_000.0, 19_000.0, 99_999.0, "it was not done at the deadline of 7 s"],
            ["a", 14_400.0, 15_000.0, 18_000.0, 20_000.0, None],
            [
                "b",
                14_400.0,
                16_000.0,
                INF,
                16_500.0,
                "it went offline at 16,500 s while it trained",
            ],
        ]
        clock = [{"virtual_s": 7_200.0 * end, "round_s": 7_200.0} for end in (1, 2, 3)]
        rows = learnt(0.25, **clock[0]), clock[1], learnt(0.5, spans=spans, **clock[2])
        settings = {"name": "fleet", "deadline_s": 7_200.0} | more
        return by_hand(*rows, settings=settings)

    return build


def line(axes, place=0):
    curve = axes.lines[place]
    return list(curve.get_xdata()), list(curve.get_ydata())


def test_a_metric_is_drawn_against_rounds_bytes_and_hours(fleet):
    # A plain row is 1,000 bytes up.
    rounds, sent, time = draw_efficiency(fleet()).axes

    assert line(rounds) == ([1, 3], [0.25, 0.5])
    assert line(sent) == ([1, 3], [0.25, 0.5])
    assert (sent.get_xlabel(), time.get_xlabel()) == ("sent up (kB)", "virtual time (hours)")
    assert line(time) == ([2, 6], [0.25, 0.5])


def test_without_a_fleet_there_is_no_time_to_draw(by_hand, fleet):
    plain = by_hand(learnt(0.5), learnt(0.75))

    assert len(draw_efficiency(plain).axes) == 2
    # A run that has none beside it takes the time away.
    assert len(draw_efficiency(fleet(), {"plain": plain}).axes) == 2


def test_recipes_are_drawn_beside_each_other_by_name(by_hand):
    whole, packed = by_hand(learnt(0.5)), by_hand(learnt(0.375, upload_bytes=50))

    figure = draw_efficiency(whole, {"$quantize(8)_": packed})

    sent = figure.axes[1]
    assert [line(sent, place) for place in (0, 1)] == [([1_000], [0.5]), ([50], [0.375])]
    assert sent.get_xscale() == "log"  # 20 times apart.
    assert {"a run 0.5000", "$quantize(8)_ 0.3750"} <= set(texts(figure))
    colours = {curve.get_color() for curve in figure.axes[0].lines}
    assert len(colours) == 2


def test_runs_that_cannot_be_compared_are_refused_by_name(by_hand):
    good, none, other = (
        by_hand(learnt(0.5)),
        by_hand({}),
        by_hand({"evaluated": True, "test_f1": 1}),
    )

    with pytest.raises(
        SettingsError, match=r"'bad' has no 'test_accuracy'.*no round was evaluated"
    ):
        good.plot_efficiency(others={"bad": none})
    with pytest.raises(
        SettingsError, match=r"'bad' has no 'test_accuracy'.*are test_f1\. Evaluate"
    ):
        good.plot_efficiency(others={"bad": other})


def test_two_runs_of_one_name_or_a_folder_are_refused(by_hand):
    result = by_hand(learnt(0.5))

    with pytest.raises(SettingsError, match=r"called 'a run', and so is one of others="):
        result.plot_efficiency(others={"a run": result})
    with pytest.raises(SettingsError, match=r"others\['b'\] must be a result, but is 'runs/b'"):
        result.plot_efficiency(others={"b": "runs/b"})


@pytest.mark.parametrize("values", [[math.nan], [math.nan, 0.5, math.inf], [0.5] * 300])
def test_odd_curves_can_be_drawn(by_hand, values, tmp_path):
    result = by_hand(*map(learnt, values))

    assert result.plot_efficiency(tmp_path / "a.png").stat().st_size > 1_000


def bars(figure):
    """Of each line of a round's picture, (begin, end) of its phases by colour."""
    found = {}
    for bar in figure.axes[0].patches:
        at = round(bar.get_y() + bar.get_height() / 2)
        phase = next(name for name, hue in _PHASES.items() if hue == to_hex(bar.get_facecolor()))
        begun = bar.get_x()
        found.setdefault(at, {})[phase] = (begun, begun + bar.get_width())
    return found


def test_a_device_is_drawn_in_three_phases_since_the_round_began(fleet):
    figure = draw_round(fleet())

    # In hours, from 14,400 s on; by their ends b, a, c.
    found = bars(figure)
    assert found[1]["download"] == pytest.approx((0, 600 / 3600))
    assert found[1]["training"] == pytest.approx((600 / 3600, 1))
    assert found[1]["upload"] == pytest.approx((1, 5600 / 3600))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "a", "c"]
    assert figure.axes[0].get_xlabel().endswith("(hours)")


def test_a_lost_device_ends_where_it_was_lost_and_a_late_one_with_the_round(fleet):
    found = bars(draw_round(fleet()))

    assert found[0]["training"] == pytest.approx((1600 / 3600, 2100 / 3600))
    assert found[0]["upload"] == pytest.approx((2100 / 3600, 2100 / 3600))
    assert found[2]["upload"] == pytest.approx((4600 / 3600, 2))


def test_losses_are_marked_and_counted_by_reason(fleet):
    figure = draw_round(fleet())

    marks = {
        curve.get_label(): list(zip(*curve.get_data(), strict=True))
        for curve in figure.axes[0].lines
        if "lost" in curve.get_label()
    }
    assert marks["1 lost: went offline while it trained"] == [(pytest.approx(2100 / 3600), 0)]
    assert marks["1 lost: was not done at the deadline"] == [(pytest.approx(2.0), 2)]
    assert "1 of 3 devices answered" in texts(figure)


def test_the_deadline_of_a_round_is_a_line_and_that_of_a_buffer_is_none(fleet):
    def deadlines(result):
        lines = draw_round(result).axes[0].lines
        found = [curve for curve in lines if "deadline" in curve.get_label().split(":")[0]]
        return [[*curve.get_xdata()][:1] or curve.get_label() for curve in found]

    assert deadlines(fleet()) == [[2]]
    # Three hours would take a third of the picture for nothing.
    assert deadlines(fleet(deadline_s=10_800)) == ["deadline: 3 h 00 min"]
    assert deadlines(fleet(buffer=10)) == []
    assert deadlines(fleet(deadline_s=None)) == []


def test_of_many_devices_sixty_are_drawn_the_first_and_the_last_among_them(by_hand):
    spans = [[client, 0.0, 1.0, 2.0, 3.0 + client, None] for client in range(1_000)]
    result = by_hand({"spans": spans, "virtual_s": 1_002.0, "round_s": 1_002.0})

    figure = draw_round(result)

    found = bars(figure)
    assert len(found) == 60
    # In minutes.
    ends = [found[at]["upload"][1] * 60 for at in (0, 59)]
    assert ends == pytest.approx([3, 1_002])
    assert "1,000 of 1,000 devices answered; 60 drawn, evenly by their end" in texts(figure)


def test_rounds_without_times_are_refused_with_those_that_have_them(by_hand, fleet):
    with pytest.raises(SettingsError, match=r"only a run with fleet= knows"):
        by_hand({}).plot_round()
    with pytest.raises(SettingsError, match=r"Of round 2 it is not known.*but of 3: the first and"):
        fleet().plot_round(round=2)


def test_times_come_back_from_a_folder(fleet, tmp_path):
    write_record(tmp_path, fleet())

    assert spans_of(read_record(tmp_path), 3)[1] == spans_of(fleet(), 3)[1]


def test_equal_reasons_are_one_whatever_their_numbers():
    assert _kind("it dropped out at 1,234 s while it trained") == "dropped out while it trained"
    assert _kind("its model was 7 rounds old, and at most 5 count") == (
        "its model was N rounds old, and at most N count"
    )
    assert _kind("the round had closed at 60 s with answer 50") == "the round had closed"


def test_many_reasons_are_the_three_commonest_and_the_others(by_hand):
    spans = [[n, 0.0, 1.0, 2.0, 3.0, f"reason {'abcdef'[n % 6]}"] for n in range(12)]
    spans += [[99, 0.0, 1.0, 2.0, 3.0, "reason a"]]

    said = draw_round(by_hand({"spans": spans})).axes[0].get_legend_handles_labels()[1]

    lost = [label for label in said if "lost" in label]
    assert lost[0] == "3 lost: reason a" and lost[-1] == "6 lost: another reason"
    assert len(lost) == 4


def bins(axes):
    return {
        round(bar.get_x() + 0.5, 6): bar.get_height() for bar in axes.patches if bar.get_height()
    }


def test_participation_and_staleness_are_counted_where_they_vary(by_hand):
    tally = Tally.of(4).add([0, 1, 2, 2], 1, [1, 2, 2], 1)
    late = {"staleness": [[0, 3], [2, 1]]}, {"staleness": [[0, 1]]}
    result = by_hand(*late, roll=Roll(range(4), tally))

    figure = draw_traffic(result)

    # Never two, once one, twice one; four at once and one by two rounds late.
    assert bins(figure.axes[0]) == {0: 2, 1: 1, 2: 1}
    assert bins(figure.axes[1]) == {0: 4, 2: 1}
    assert {"2 of 4 clients never", "mean 0.4, most 2"} <= set(texts(figure))


def test_where_everyone_took_part_in_every_round_there_is_nothing_to_draw(by_hand):
    everyone = Roll((1, 2), Tally.of(2).add([0, 1], 1, [0, 1], 1))

    assert parts(by_hand({}, roll=everyone)) == []
    assert len(parts(by_hand({"update_norm": 0.5}, roll=everyone))) == 1
    assert parts(by_hand({"update_norm": math.inf})) == []


def test_lengths_of_updates_over_many_powers_have_a_logarithmic_axis(by_hand):
    def scale(*norms):
        return (
            draw_traffic(by_hand(*({"update_norm": norm} for norm in norms))).axes[0].get_yscale()
        )

    assert scale(1.0, 0.5) == "linear" and scale(1.0, 0.001) == "log"
    assert scale(1.0, 0.0) == "linear"


def test_diversity_is_drawn_as_a_share_of_what_unrelated_updates_have(by_hand):
    rows = [{"diversity": value, "answered": 8} for value in (2.0, 4.0)]

    figure = draw_traffic(by_hand(*rows, {}))

    assert line(figure.axes[0]) == ([1, 2], [0.25, 0.5])
    assert {"diversity", "0.5000"} <= set(texts(figure))


def test_nobody_ever_heard_can_be_drawn(by_hand):
    nobody = Roll((1, 2), Tally.of(2).add([0], 1, [], 1))

    assert bins(draw_traffic(by_hand({}, roll=nobody)).axes[0]) == {0: 2}


def test_a_page_has_a_section_of_communication_where_there_is_something_to_show(fleet, by_hand):
    text = page(fleet())

    assert "<h2>Communication</h2>" in text
    assert text.count("<svg") == 3  # The run, its efficiency, its last round.
    assert "<h2>Communication</h2>" not in page(by_hand({}))


def test_a_page_says_who_was_heard_what_centralising_costs_and_what_the_monitor_says(by_hand):
    result = by_hand(
        learnt(0.5, advice="stalled: <nothing> moves", virtual_s=60.0),
        roll=Roll((1, 2), Tally.of(2).add([0], 1, [0], 1)),
        settings={"data_bytes": 1_500},
        passes=2.0,
    )

    text = page(result)

    assert "The monitor says: stalled: &lt;nothing&gt; moves." in text
    assert "1 of 2 clients; 1 was never asked" in text
    assert "this run moved 3.0 kB, 2 times as much" in text
    assert "1 min 00 s on the fleet&#x27;s clock" in text


def test_bins_hold_every_client_however_often_it_was_heard(by_hand):
    heard = np.arange(100) ** 2
    tally = Tally.of(100)
    tally.answered[:] = tally.asked[:] = torch.from_numpy(heard)

    axes = draw_traffic(by_hand({}, roll=Roll(range(100), tally))).axes[0]

    assert sum(bar.get_height() for bar in axes.patches) == 100
    assert len(axes.patches) <= 26
