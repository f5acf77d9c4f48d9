"""FedAsync: a fresh answer moves the server by the paper's mixing, a stale one by less."""

import pytest

import folkmoot as fm
from folkmoot.core.engine import Cohort, Setting
from folkmoot.core.errors import SettingsError
from folkmoot.engines import sequential
from folkmoot.train.gathering import Part
from folkmoot.train.link import Link
from folkmoot.train.loop import first_snapshot, run_round


def test_a_fresh_model_is_mixed_in_as_the_paper_has_it(line, pull, one_round):
    algorithm = fm.fedasync(fm.local.sgd(line([10.0]), lr=1.0), mixing=0.6)

    snapshot, _ = one_round(algorithm, {0: pull([-4.0])})

    # The client comes to 14: 0.4 * 10 + 0.6 * 14.
    assert snapshot.state["params"]["w"].tolist() == pytest.approx([12.4])


def test_a_stale_answer_counts_by_its_weight_and_from_where_it_began(line, pull):
    algorithm = fm.fedasync(fm.local.sgd(line([10.0]), lr=1.0), mixing=0.5)

    class Holder:
        train, test = pull([-4.0]), None

    engine = sequential()(Setting({0: Holder()}, 0))
    begun = first_snapshot(algorithm)
    old = next(algorithm.round(begun.state)).broadcast
    base = {**old, "params": {"w": old["params"]["w"] - 7}}
    begun = begun._replace(round=3, bases={"1": base})
    late = (Part(Cohort(2, (0,), 1, 1.0), 1, 0.25),)
    nobody = Cohort(4, (), 1, 1.0)

    link = Link(None, late, frozenset())
    snapshot, report = run_round(algorithm, begun, engine, nobody, 0, link=link)

    # The delta is 4, wherever it began: 10 + 0.5 * 0.25 * 4.
    assert snapshot.state["params"]["w"].tolist() == pytest.approx([10.5])
    assert report.answered == 1


@pytest.mark.parametrize("mixing", [0, -1, 1.5, "a"])
def test_a_share_that_is_none_is_refused(line, mixing):
    with pytest.raises(SettingsError, match="mixing must be"):
        fm.fedasync(fm.local.sgd(line(), lr=1.0), mixing=mixing)
