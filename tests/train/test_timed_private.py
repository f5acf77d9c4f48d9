"""Privacy on a fleet's clock: what buffers cost, and that nothing but noise depends on a client."""

import math

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError
from folkmoot.engines.traces import intervals
from folkmoot.privacy import Gaussian
from folkmoot.privacy.events import ADD_OR_REMOVE, ZERO_OUT

pytestmark = pytest.mark.filterwarnings("ignore:The noise of a round")

BROKEN = 3e38
SPEEDS = {0: 1.0, 1: 0.7, 2: 0.31, 3: 0.23, 4: 0.13}


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x * self.w


def algorithm_of(lr=10.0):
    """One step whose update is what a client's data say, times `lr`: numbers of 3e38 overflow."""
    said = fm.objective(Point(), lambda out, _: -out.sum(1), target=None)
    return fm.fedavg(fm.local.sgd(said, lr=lr, batch_size=None))


def clients_of(first=1.0):
    return [{"x": torch.full((2, 3), first if client == 0 else 1.0)} for client in SPEEDS]


def fleet_of(speeds=SPEEDS, trace=None, **more):
    devices = {c: fm.Device(examples_per_s=2 * s, **more) for c, s in speeds.items()}
    return fm.Fleet(trace, devices=devices)


def budget(noise=1.0, **more):
    given = {"delta": 1e-3, "clip": 1.0, "simulation": True} | more
    return fm.DP(noise_multiplier=noise, **given)


def run(clients=None, **options):
    given = {"rounds": 12, "fleet": fleet_of(), "privacy": budget(), "workers": 1} | options
    return fm.run(algorithm_of(), clients or clients_of(), progress=False, **given)


BUFFER = {"cohort": 3, "buffer": 2}


def most_often(result):
    """The most rounds in which an answer of one client counted, as the engine has seen it."""
    return max(heard for _, heard in result.participation.values())


@pytest.mark.parametrize("buffer", [1, 2, 4])
@pytest.mark.parametrize("rounds", [3, 20])
def test_a_buffered_run_costs_gaussians_of_whoever_takes_part_most_often(buffer, rounds):
    options = {"cohort": 4, "buffer": buffer, "rounds": rounds}

    found = run(**options).privacy
    often = most_often(run(**options, privacy=None))

    # k Gaussians of noise z are one of noise z / sqrt(k), whose curve has a closed form (Balle and
    # Wang, 2018, theorem 8).
    scale = math.sqrt(often) / 1.0

    def normal(x):
        return math.erfc(-x / math.sqrt(2)) / 2

    def delta(epsilon):
        left, right = scale / 2 - epsilon / scale, -scale / 2 - epsilon / scale
        return normal(left) - math.exp(epsilon) * normal(right)

    assert 1 <= often <= rounds
    assert delta(found.epsilon) <= 1e-3 <= delta(found.epsilon * 0.995)
    assert found.adjacency == ZERO_OUT and "no amplification is claimed" in found.sampling


def test_the_budget_solves_the_noise_for_those_participations():
    spent = run(**BUFFER, privacy=fm.DP(epsilon=8, delta=1e-3, clip=1.0, simulation=True)).privacy
    often = most_often(run(**BUFFER, privacy=None))

    assert spent.epsilon <= 8 <= spent.epsilon * 1.01
    assert spent.noise_multiplier == pytest.approx(
        fm.privacy.noise_for(8, 1e-3, lambda z: [(Gaussian(z), often)])
    )


def test_late_answers_are_weighed_in_front_of_the_noise_and_divided_by_the_buffer():
    # With hardly any noise the run is FedBuff: clips of 1 along (1, 1, 1) / sqrt(3), over 2.
    result = run(**BUFFER, privacy=budget(1e-6, delta=0.1), rounds=6)

    stale = [s for row in result.history for s, times in row["staleness"] for _ in range(times)]
    wanted = sum((1 + s) ** -0.5 for s in stale) / 2 / math.sqrt(3)
    assert max(stale) > 0
    assert result.model.w.tolist() == pytest.approx([wanted] * 3, rel=1e-4)


def shown(result):
    """All that a run shows but the model and what is computed from it: whom it asked, and when."""
    real = ("train_s", "client_s", "evaluation_s", "noise_to_signal", "update_norm", "advice")
    return [{k: v for k, v in row.items() if k not in real} for row in result.history]


KINDS = {
    "buffered": BUFFER,
    "a lot": {"cohort": 3, "deadline_s": 20.0},
    "everyone": {"deadline_s": 4.0, "partial": True},
}
OTHERS = {
    "other numbers": clients_of(first=-50.0),
    "nothing": clients_of(first=0.0),
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("clients", OTHERS.values(), ids=OTHERS)
def test_who_is_asked_and_when_does_not_hang_on_what_a_client_holds(options, clients):
    assert shown(run(clients, **options)) == shown(run(**options))


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_client_whose_update_is_not_finite_changes_no_clock_but_is_told_to_who_runs_it(options):
    """The history is not released, as the result says; the model and the clock are alike."""
    broken = shown(run(clients_of(first=BROKEN), **options))
    fine = shown(run(**options))

    for one, other in zip(broken, fine, strict=True):
        differ = {name for name in one if one[name] != other[name]}
        assert differ <= {"answered", "left_out", "upload_bytes"}
    assert any(
        row["left_out"] != other["left_out"] for row, other in zip(broken, fine, strict=True)
    )


def test_who_gives_nothing_is_zeroed_out_in_the_model():
    """Same noise, same others: what is missing is the client's own clipped part of each sum."""
    options = BUFFER | {"rounds": 4, "privacy": budget(1e-6, delta=0.1)}
    whole = run(**options)

    found = run(clients_of(first=BROKEN), **options)

    assert [row["virtual_s"] for row in found.history] == [
        row["virtual_s"] for row in whole.history
    ]
    parts = sum(1 for left in found.left_out if left.client == 0)
    missing = (whole.model.w - found.model.w).detach() * 2 * math.sqrt(3)
    assert parts > 0
    # Fresh or late, each of its parts counts between 1 / sqrt(1 + 100) and 1.
    assert 0 < float(missing.mean()) <= parts + 1e-3


def test_rounds_of_a_secret_lot_last_to_their_deadline_whoever_takes_part():
    """Else the end of a round would tell who was drawn, and decide who is there in the next."""
    result = run(cohort=1, deadline_s=20.0, rounds=30, seed=4)

    asked = [row["asked"] for row in result.history]
    assert 0 in asked and max(asked) > 1
    assert [row["virtual_s"] for row in result.history] == [20.0 * n for n in range(1, 31)]
    assert all(row["skipped"] is None for row in result.history)
    assert not any("spans" in row for row in result.history)


def test_a_lot_without_a_deadline_is_refused():
    with pytest.raises(
        SettingsError, match=r"the end of a round must not tell who took part.*Pass"
    ):
        run(cohort=3)


def test_a_round_in_which_nobody_is_there_releases_its_noise():
    trace = intervals(
        [("0", [(0.0, 2.0)], 60.0), *((f"{c}", [(0.0, 1.0)], 60.0) for c in range(1, 5))]
    )

    result = run(fleet=fleet_of(trace=trace), deadline_s=0.1, rounds=2)

    # None of them answers within a tenth of a second.
    assert [row["answered"] for row in result.history] == [0, 0]
    assert [row["skipped"] for row in result.history] == [None, None]
    assert (result.model.w != 0).all()


def test_a_lot_keeps_its_amplification_and_its_neighbours():
    plain = run(cohort=2, fleet=None)
    timed = run(cohort=2, deadline_s=20.0)

    assert timed.privacy.adjacency == plain.privacy.adjacency == ADD_OR_REMOVE
    assert timed.privacy.epsilon == plain.privacy.epsilon
    assert "poisson" in timed.privacy.sampling


def test_the_lot_is_drawn_among_all_and_those_who_are_away_are_not_asked():
    """Chances of a client must not rise because others are away."""
    trace = intervals(
        [("0", [(0.0, 1e9)], math.inf), *((f"{c}", [(1e8, 1e9)], math.inf) for c in range(1, 5))]
    )

    result = run(fleet=fleet_of(trace=trace), cohort=1, deadline_s=20.0, rounds=400, seed=1)

    asked = sum(row["asked"] for row in result.history)
    # Binomial of 400 rounds at 1 / 5: 80 with a deviation of 8.
    assert abs(asked - 80) < 32


REFUSED = {
    "over-selection": (
        {"over_select": 1.5, "deadline_s": 9.0, "cohort": 2},
        "Leave over_select= out; a larger cohort= and deadline_s= do the same",
    ),
    "a quorum": ({"quorum": 2, "deadline_s": 9.0, "cohort": 2}, "Leave quorum= out under privacy="),
    "noise of clients in buffers": (
        BUFFER | {"privacy": budget(trust="local")},
        "Leave buffer= out, or trust the server",
    ),
    "correlated noise in buffers": (
        BUFFER | {"privacy": budget(mechanism=fm.privacy.Tree(restart=3))},
        "needs 3 rounds from one participation",
    ),
    "a clip that adapts, in buffers": (
        BUFFER | {"privacy": budget(clip=fm.codecs.adaptive_clip(1.0))},
        "changes from round to round, as an adaptive clip",
    ),
    "a larger federation, in buffers": (
        BUFFER | {"privacy": budget(population=10_000, cohort=100)},
        "states a larger federation",
    ),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_proof_is_refused(options, said):
    with pytest.raises(SettingsError, match=said):
        run(**options)


def test_a_clip_of_layers_stays_what_it_is_and_may_be_buffered():
    assert run(**BUFFER, rounds=3, privacy=budget(clip=fm.codecs.clip_by_layer(1.0))).rounds == 3


def test_hidden_examples_do_not_hide_who_takes_part():
    result = run(deadline_s=20.0, rounds=2, cohort=2, privacy=budget(unit="example"), monitor=False)

    assert result.history[0]["virtual_s"] < 20.0


def test_a_buffered_private_run_goes_on_where_it_stood(tmp_path):
    class Killed(Exception):
        pass

    def look(event):
        if event.kind == "round" and event.round == 5:
            raise Killed

    whole = run(**BUFFER)
    with pytest.raises(Killed):
        run(**BUFFER, checkpoint=tmp_path, callbacks=[look])

    found = run(**BUFFER, checkpoint=tmp_path, resume=True)

    assert shown(found) == shown(whole)
    assert found.privacy.charges == whole.privacy.charges
    assert torch.equal(found.model.w, whole.model.w)


def test_secure_private_rounds_wait_until_a_whole_cohort_is_there():
    windows = [(f"{c}", [(10.0 * c, 10.0 * c + 45.0)], 60.0) for c in range(5)]
    fleet = fleet_of(dict.fromkeys(SPEEDS, 10.0), trace=intervals(windows))

    result = run(fleet=fleet, cohort=3, secure=True, rounds=4)

    assert [row["asked"] for row in result.history] == [3] * 4
