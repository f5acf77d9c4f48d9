"""`secure=True`: any algorithm's sums, opened by enough clients, and nothing else to be seen."""

import math
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import ClientError, QuorumError
from folkmoot.privacy import Gaussian
from folkmoot.train.releases import Releases

QUIET = {"progress": False, "engine": fm.engines.sequential()}
SMALL = fm.Secure(weight_cap=64)
"""Of clients with some 20 examples a weight of 64 is more than enough, and steps are fine."""
CLOSE = 2e-5


def work(model=None, lr=0.3):
    torch.manual_seed(0)
    layers = model or nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    return fm.local.sgd(fm.classifier(layers), lr=lr, batch_size=5)


def rows(client, number=None):
    draw = torch.Generator().manual_seed(client)
    x = torch.randn(number or 10 + client, 3, generator=draw)
    return x, (x[:, 0] > 0).long()


def clients(number=12):
    return fm.data.from_function(range(number), rows, test=lambda client: rows(100 + client))


def run(algorithm=None, held=None, rounds=3, secure=True, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The noise of a round")
        return fm.run(
            algorithm or fm.fedavg(work()),
            held or clients(),
            rounds=rounds,
            secure=secure,
            **(QUIET | options),
        )


def weights(result):
    return torch.cat([p.detach().flatten() for p in result.model.parameters()])


def test_a_secure_run_ends_where_a_plain_one_does_and_says_what_it_rests_on():
    plain, secure, fine = run(secure=False), run(), run(secure=SMALL)

    # A client's 20 examples are few of 65,536, so its update is rounded to as few steps.
    assert (weights(plain) - weights(secure)).abs().max() < 1e-3
    assert (weights(plain) - weights(fine)).abs().max() < CLOSE
    assert secure.settings["secure"] == {
        "sum": "modular",
        "threat": "honest",
        "corrupt": 0.05,
        "dropped": 1 / 3,
        "cohort": 12,
        "neighbours": 11,
        "threshold": 8,
        "quorum": 8,
        "bits": 32,
        "weight_cap": 1 << 16,
        "first_norm": pytest.approx(2**5 * max(1.0, float(weights(first()).norm()))),
    }
    assert "opened by 8 or more of 12 clients" in str(secure)


def first():
    """A run whose model is the first one: nothing is learnt at such a rate."""
    return run(fm.fedavg(work(lr=1e-30)), rounds=1, secure=False)


@pytest.mark.parametrize(
    "options",
    [{"secure": "protocol"}, {"engine": fm.engines.parallel(2)}, {"secure": fm.Secure()}],
    ids=["protocol", "processes", "settings"],
)
def test_every_way_to_take_the_sums_gives_the_same_bits(options):
    assert torch.equal(weights(run()), weights(run(**options)))


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path):
    def dies(event):
        if event.kind == "round" and event.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(rounds=4, checkpoint=tmp_path, callbacks=[dies])
    again = run(rounds=4, checkpoint=tmp_path, resume=True)

    assert torch.equal(weights(again), weights(run(rounds=4)))


def test_what_was_clipped_or_capped_is_counted_in_every_row_and_in_the_report():
    result = run(secure=fm.Secure(weight_cap=15))

    # Clients 6 to 11 hold 16 examples or more.
    assert [row["capped"] for row in result.history] == [6, 6, 6]
    assert [row["clipped"] for row in result.history] == [0, 0, 0]
    assert "18 weights capped" in str(result)


def test_cohorts_that_are_drawn_by_lot_have_room_in_the_sum():
    for sampling in (fm.sampling.poisson(9), fm.sampling.uniform(5)):
        options = {"rounds": 8, "sampling": sampling}
        apart = weights(run(secure=SMALL, **options)) - weights(run(secure=False, **options))
        assert apart.abs().max() < CLOSE


def test_clients_own_tests_stay_unseen():
    assert "clients_accuracy" in run(secure=False).metrics
    assert "clients_accuracy" not in run().metrics


class Breaks(nn.Linear):
    def forward(self, x):
        return super().forward(x) * torch.where(x.abs().max() > 50, torch.nan, 1.0)


def broken(bad, number=12):
    held = {client: rows(client) for client in range(number)}
    return held | {client: (torch.full((5, 3), 99.0), torch.zeros(5).long()) for client in bad}


@pytest.mark.parametrize("secure", [SMALL, fm.Secure(weight_cap=64, protocol=True)], ids=str)
def test_a_client_that_vanishes_leaves_the_exact_sum_of_the_others(secure):
    algorithm = fm.fedavg(work(Breaks(3, 2)))

    result = run(algorithm, broken([3, 7]), secure=secure)
    plain = run(algorithm, broken([3, 7]), secure=False)

    assert (weights(result) - weights(plain)).abs().max() < CLOSE
    assert [client for client, _ in result.history[0]["left_out"]] == [3, 7]


def test_a_round_with_too_few_opens_nothing_and_the_model_stays():
    with pytest.raises(QuorumError, match="opens with 8 or more"):
        run(fm.fedavg(work(Breaks(3, 2))), broken(range(5)))


PERSONAL = {"pattern": {"personal": "2.*"}, "nothing": {}}


@pytest.mark.parametrize("personal", PERSONAL.values(), ids=PERSONAL)
def test_layers_that_stay_at_home_do_not_enter_the_sum(personal):
    plain, secure = run(secure=False, **personal), run(secure=SMALL, **personal)

    for client in (0, 11):
        one, other = (r.clients[client].model if personal else r.model for r in (plain, secure))
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert (a - b).abs().max() < CLOSE


def test_rounds_by_hand_are_secure_too():
    process = fm.process(fm.fedavg(work()), secure=fm.Secure(weight_cap=64, protocol=True))
    plain = fm.process(fm.fedavg(work()))
    states = [process.initialize(), plain.initialize()]
    for number in (5, 12, 20):
        held = {client: rows(client) for client in range(number)}
        states = [
            one.next(state, held)[0] for one, state in zip((process, plain), states, strict=True)
        ]

    models = (one.model(state) for one, state in zip((process, plain), states, strict=True))
    one, other = (torch.cat([p.flatten() for p in model.parameters()]) for model in models)
    assert (one - other).abs().max() < CLOSE
    with pytest.raises(fm.SettingsError, match="Begin with a round of the largest cohort"):
        process.next(states[0], {client: rows(client, 4) for client in range(60)})


PROMISE = {"noise_multiplier": 1.0, "delta": 1e-3, "clip": 0.5}


def test_with_privacy_clients_add_the_noise_and_nobody_is_trusted():
    found = run(privacy=fm.DP(**PROMISE)).privacy

    assert found.epsilon == fm.privacy.epsilon([(Gaussian(1.0), 3)], 1e-3)
    assert found.adjacency == "zero-out-one" and "no amplification" in found.sampling
    assert "Trusted: nobody" in str(found)
    # A quorum of 8, less 5 % of 12, rounded up, who collude; all 12 bring 12 / 7 of the variance.
    assert "at most 1 of 12 clients collude" in str(found)
    assert "suffice of 7 clients; a sum of all 12 has 1.71 times the variance" in str(found)


def test_a_cohort_of_a_private_secure_run_is_of_fixed_size():
    result = run(privacy=fm.DP(**PROMISE), cohort=6, rounds=5)

    assert {row["asked"] for row in result.history} == {6}
    assert "6 of 12 clients a round" in result.privacy.sampling


@pytest.mark.parametrize("noise", ["gaussian", "skellam"])
def test_the_noise_in_the_sum_is_that_of_the_shares_that_came(noise):
    model, size = nn.Linear(40, 5), 205
    held = {client: (torch.zeros(2, 40), torch.zeros(2).long()) for client in range(12)}
    rounds = 6
    result = run(
        fm.fedavg(work(model, lr=1e-9)),
        held,
        rounds=rounds,
        secure=fm.Secure(noise=noise),
        privacy=fm.DP(**PROMISE | {"noise_multiplier": 4.0}),
    )

    torch.manual_seed(0)
    moved = weights(result) - torch.cat([p.detach().flatten() for p in model.parameters()])
    # Sums over rounds add variances; a share is a quorum's part, and a mean is over all 12.
    expected = 4.0 * 0.5 / 12 * math.sqrt(12 / 7 * rounds)
    # Of 205 numbers the deviation is within a fifth, but for one time in 10^4.
    assert float(moved.norm()) / math.sqrt(size) == pytest.approx(expected, rel=0.2)


def test_noise_in_shares_is_seeded_in_simulations_alone():
    private = {"privacy": fm.DP(**PROMISE)}
    seeded = {"privacy": fm.DP(**PROMISE, simulation=True)}

    assert not torch.equal(weights(run(**private)), weights(run(**private)))
    assert torch.equal(weights(run(**seeded)), weights(run(secure="protocol", **seeded)))


def test_examples_may_be_hidden_at_home_and_clients_in_the_sum():
    budget = fm.DP(noise_multiplier=1.0, delta=1e-3, unit="example")
    result = run(privacy=budget)

    assert result.privacy.unit == "example" and result.settings["secure"]["weight_cap"]


def weighed(name, secure):
    return run(fm.fedavg(work(), aggregator=getattr(fm.aggregators, name)()), secure=secure)


@pytest.mark.parametrize("name", ["weighted_mean", "uniform_mean"])
def test_a_rule_that_is_named_is_kept(name):
    plain, secure = weighed(name, False), weighed(name, SMALL)

    # Without weights the clip begins so far above that the first rounds have coarse steps.
    assert (weights(secure) - weights(plain)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"secure": "yes"}, 'secure must be True, "protocol"'),
        ({"cohort": 2}, "among 3 or more, but rounds ask 2"),
        ({"secure": fm.Secure(corrupt=0.7)}, "8 may be corrupt"),
        (
            {
                "algorithm": fm.fedavg(
                    work(),
                    aggregator=fm.aggregators.uniform_mean(
                        fm.codecs.clip(1.0), fm.codecs.to_field(), divisor=12
                    ),
                ),
                "privacy": fm.DP(noise_multiplier=1.0, delta=1e-3),
            },
            "makes whole numbers between clip and noise",
        ),
        ({"privacy": fm.DP(epsilon=1, trust="local")}, r"DP\(trust=\"local\"\)"),
        ({"privacy": fm.DP(epsilon=1, population=10**6, cohort=10**4)}, r"DP\(population=\)"),
        ({"privacy": fm.DP(epsilon=1, mechanism=fm.privacy.Tree(2))}, r"DP\(mechanism=\)"),
    ],
    ids=["word", "small", "corrupt", "field", "local", "larger", "tree"],
)
def test_what_cannot_be_summed_securely_is_refused_before_round_one(options, why):
    asked = []
    held = fm.data.from_function(range(12), lambda client: asked.append(client) or rows(client))

    with pytest.raises(fm.SettingsError, match=why):
        run(held=held, **options)
    # One client is looked at, to see that the work fits the data.
    assert set(asked) <= {0}


@pytest.mark.parametrize(
    "options",
    [
        {"threat": "evil"},
        {"corrupt": 1.5},
        {"dropped": ""},
        {"bits": 8},
        {"bits": 16.0},
        {"weight_cap": 0},
        {"noise": "laplace"},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_where_they_are_written(options):
    with pytest.raises(fm.SettingsError, match=next(iter(options))):
        fm.Secure(**options)


def test_sixteen_bits_without_noise_come_with_a_warning_and_are_stated():
    with pytest.warns(UserWarning, match="State the largest number of examples"):
        result = run(secure=fm.Secure(bits=16, weight_cap=32))

    assert result.settings["secure"]["bits"] == 16
    assert (weights(result) - weights(run(secure=False))).abs().max() < 0.05
    private = run(secure=fm.Secure(bits=16), privacy=fm.DP(**PROMISE))
    assert private.settings["secure"]["bits"] == 16


def breaking(error):
    def rows_of(client):
        if client == 3:
            raise error
        return rows(client)

    return fm.data.from_function(range(12), rows_of)


@pytest.mark.parametrize("secure", [False, True, "protocol"])
def test_who_has_no_data_at_the_moment_is_left_out_by_name(secure):
    result = run(held=breaking(ClientError("its disk is not there")), secure=secure)

    assert result.history[0]["answered"] == 11
    assert result.history[0]["left_out"] == [[3, "its disk is not there"]]


@pytest.mark.parametrize("secure", [False, True, "protocol"])
def test_what_client_code_raises_otherwise_ends_a_run(secure):
    with pytest.raises(OSError, match="gone for good"):
        run(held=breaking(OSError("gone for good")), secure=secure)


WITHOUT = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "cryptography":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import torch, folkmoot as fm
clients = {c: (torch.ones(4, 3), torch.zeros(4).long()) for c in range(5)}
work = fm.local.sgd(fm.classifier(torch.nn.Linear(3, 2)), lr=0.1)
for secure in (False, True, "protocol"):
    try:
        fm.run(fm.fedavg(work), clients, rounds=1, secure=secure, progress=False)
        print("ran")
    except fm.SettingsError as error:
        print(error)
"""


def test_all_but_the_protocol_runs_without_the_library_of_its_cryptography():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)

    assert done.stdout.splitlines() == [
        "ran",
        "ran",
        "Secure aggregation needs the library cryptography, which is not installed: pip install "
        "'folkmoot[secure]'.",
    ], done.stderr


def test_a_check_tells_what_a_run_would_refuse():
    held = {client: rows(client) for client in range(12)}
    ready = fm.check(fm.fedavg(work()), held, rounds=2, secure=True)
    small = fm.check(fm.fedavg(work()), held, rounds=2, cohort=2, secure=True)

    assert ready.ok and not small.ok
    assert any("among 3 or more" in problem for problem in small.problems)


@pytest.mark.parametrize(
    ("number", "why"), [(5, "asks 5 clients.*made for 6"), (7, "asks 7 clients.*made for 6")]
)
def test_other_numbers_of_clients_than_the_shares_were_made_for_are_refused(number, why):
    def draw(clients, round, rng):
        return list(clients)[: 6 if round == 1 else number]

    sampling = fm.sampling.Sampling("mine", draw, lambda population: 6)
    with pytest.raises(fm.SettingsError, match=f"Round 2 {why}"):
        run(privacy=fm.DP(**PROMISE), sampling=sampling)


@pytest.mark.parametrize("clip", [0.5, fm.codecs.adaptive_clip(0.5)], ids=["flat", "adaptive"])
def test_a_private_run_that_was_stopped_goes_on(tmp_path, clip):
    def dies(event):
        if event.kind == "round" and event.round == 2:
            raise KeyboardInterrupt

    budget = fm.DP(**PROMISE | {"clip": clip}, simulation=True)
    options = {"rounds": 4, "privacy": budget}
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=tmp_path, callbacks=[dies], **options)
    again = run(checkpoint=tmp_path, resume=True, **options)

    assert torch.equal(weights(again), weights(run(**options)))


def test_a_budget_that_a_crash_has_used_up_ends_the_run_with_what_was_learnt(tmp_path, monkeypatch):
    private = {"rounds": 3, "checkpoint": tmp_path, "privacy": fm.DP(epsilon=8, delta=1e-3)}
    keep = Releases.keep

    def killed(self, round, exchange, decoded):
        if round == 2:
            raise KeyboardInterrupt
        keep(self, round, exchange, decoded)

    with monkeypatch.context() as patch:
        patch.setattr(Releases, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            run(**private)
    result = run(**private, resume=True)

    assert result.rounds == 2 and "over the budget of 8" in result.ended
    assert result.privacy.epsilon <= 8


def test_that_an_update_is_not_finite_is_no_ones_to_see_with_privacy_inside():
    result = run(fm.fedavg(work(Breaks(3, 2))), broken([3]), privacy=fm.DP(**PROMISE))

    assert [(row["answered"], row["left_out"]) for row in result.history] == [(12, [])] * 3


@pytest.mark.filterwarnings("ignore:The noise of a round")
def test_a_round_by_hand_that_was_refused_is_none():
    process = fm.process(
        fm.fedavg(work()), secure=True, privacy=fm.DP(**PROMISE), rounds=2, cohort=6
    )
    state = process.initialize()
    for number in (5, 7, 5):
        with pytest.raises(fm.SettingsError, match="shares of noise were made for 6"):
            process.next(state, {client: rows(client) for client in range(number)})
    for _ in range(2):
        state, _ = process.next(state, {client: rows(client) for client in range(6)})
    with pytest.raises(fm.BudgetError, match="2 private rounds"):
        process.next(state, {client: rows(client) for client in range(6)})


HARD = {
    "mime": lambda work: fm.mime(work),
    "scaffold": lambda work: fm.scaffold(work),
    "qfedavg": lambda work: fm.qfedavg(work, q=1.0),
}


@pytest.mark.parametrize("build", HARD.values(), ids=HARD)
def test_exchanges_far_longer_than_the_model_are_caught_up_with(build):
    draw = torch.Generator().manual_seed(0)
    held = {
        c: (torch.randn(16, 3, generator=draw), torch.randn(16, 1, generator=draw) * 50)
        for c in range(10)
    }

    def trained(secure):
        torch.manual_seed(0)
        plain = fm.local.sgd(fm.regressor(nn.Linear(3, 1)), lr=0.01)
        return run(build(plain), held, rounds=12, secure=secure)

    plain, secure = trained(False), trained(SMALL)
    assert (weights(plain) - weights(secure)).norm() < 0.05 * weights(plain).norm()
    assert secure.history[-1]["clipped"] == 0


def test_a_heavy_client_that_comes_late_weighs_what_it_holds():
    def draw(clients, round, rng):
        return list(clients)[:10] if round < 8 else [*list(clients)[:9], 29]

    held = {client: rows(client, 4 if client < 29 else 4000) for client in range(30)}

    def trained(secure):
        torch.manual_seed(0)
        once = fm.local.sgd(fm.classifier(nn.Linear(3, 2)), lr=0.1, batch_size=None)
        return run(fm.fedavg(once), held, rounds=10, sampling=draw, secure=secure)

    plain, secure = trained(False), trained(True)

    assert (weights(plain) - weights(secure)).norm() < 0.02 * weights(plain).norm()
    assert sum(row["capped"] for row in secure.history) == 0


def test_weights_that_are_parts_of_one_are_summed_or_told():
    def shared(examples_to_weight):
        plain = work()

        def finish(sent, carry, seen):
            update, own = plain.finish(sent, carry, seen)
            return update._replace(weight=examples_to_weight(update.weight)), own

        return fm.fedavg(plain.changed(finish=finish))

    part = shared(lambda weight: weight / 200)
    plain, secure = run(part, secure=False), run(part, secure=fm.Secure(weight_cap=1))
    assert (weights(plain) - weights(secure)).abs().max() < 1e-3
    tiny = run(shared(lambda weight: weight * 1e-3))
    assert tiny.history[0]["faint"] == 12
    assert "too small for their cap" in str(tiny)


def test_sums_that_were_opened_before_a_crash_are_paid_for_again(tmp_path, monkeypatch):
    private = {"rounds": 2, "checkpoint": tmp_path, "privacy": fm.DP(**PROMISE)}

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Releases, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            run(**private)
    result = run(**private, resume=True)

    # The server has seen the first round's sum twice, with noise of its own each time.
    assert result.privacy.charges == (({"event": "Gaussian", "noise_multiplier": 1.0}, 3),)
