"""EF21: what the server knows of each client is added up as differences arrive, by hand."""

import pytest

import folkmoot as fm
from folkmoot.core.errors import SettingsError

TOP = fm.codecs.top_k(count=1)


def stands_after(algorithm, clients, one_round, asked):
    """Return where the model stands after rounds that ask these clients."""
    snapshot, stands = None, []
    for chosen in asked:
        snapshot, _ = one_round(algorithm, clients, snapshot, asked=chosen)
        stands.append(snapshot.state["params"]["w"].tolist())
    return stands, snapshot


def test_one_client_is_known_whole_after_as_many_rounds_as_it_takes(line, pull, one_round):
    algorithm = fm.ef21(fm.local.sgd(line([0.0, 0.0]), lr=1.0), TOP)

    stands, snapshot = stands_after(algorithm, {0: pull([-4.0, -3.0])}, one_round, [None] * 3)

    # g is (4, 0), then (4, 3) for good.
    assert stands == [[4.0, 0.0], [8.0, 3.0], [12.0, 6.0]]
    assert snapshot.state["shift"]["w"].tolist() == [4.0, 3.0]
    assert snapshot.own[0]["unsent"].tolist() == [4.0, 3.0]


def test_g_is_a_mean_over_all_also_over_those_that_are_not_asked(line, pull, one_round):
    algorithm = fm.ef21(fm.local.sgd(line([0.0, 0.0]), lr=1.0), TOP)
    clients = {0: pull([-4.0, -2.0]), 1: pull([-2.0, 0.0])}

    stands, snapshot = stands_after(algorithm, clients, one_round, [[0], [1], [0]])

    # g: (4, 0) / 2; then (4, 0) / 2 + (2, 0) / 2; then client 0 sends its 2.
    assert snapshot.state["shift"]["w"].tolist() == [3.0, 1.0]
    assert stands == [[2.0, 0.0], [5.0, 0.0], [8.0, 1.0]]


def test_the_server_s_optimizer_steps_along_g(line, pull, one_round):
    work = fm.local.sgd(line([0.0]), lr=1.0)
    algorithm = fm.ef21(work, TOP, server=fm.optimizers.sgd(0.5))

    stands, _ = stands_after(algorithm, {0: pull([-4.0])}, one_round, [None] * 2)

    assert stands == [[2.0], [4.0]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"codec": fm.codecs.random_k(0.01)}, "loses"),
        ({"codec": TOP, "server": "sgd"}, "server must be an optimizer"),
        ({"codec": TOP, "aggregator": fm.aggregators.total()}, "needs the mean"),
    ],
)
def test_what_cannot_be_added_up_is_refused(line, options, said):
    with pytest.raises(SettingsError, match=said):
        fm.ef21(fm.local.sgd(line(), lr=1.0), **options)
