"""What a run says of its bytes, its clock and its clients, where several options meet."""

import copy
import pickle

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError

CODECS = fm.codecs
CODED = fm.chain(CODECS.quantize(8), CODECS.entropy_coded())
# 528 bytes of a model and its weight, in 5.28 s up.
SLOW = fm.Fleet(devices=fm.Device(examples_per_s=10.0, up_bytes_per_s=100.0))
PARAMETERS = 80 + 16 + 32 + 2


def held(number=8):
    draw = torch.Generator().manual_seed(0)
    return {
        client: (torch.randn(10, 5, generator=draw), torch.randint(2, (10,), generator=draw))
        for client in range(number)
    }


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2))


def work_of(module=None):
    return fm.local.sgd(fm.classifier(module or model()), lr=0.1)


def run(algorithm=None, clients=None, **options):
    options = {"rounds": 2, "seed": 0, "progress": False, "workers": 1} | options
    return fm.run(algorithm or fm.fedavg(work_of()), clients or held(), **options)


class Scaled(nn.Module):
    """A single number stands in front of its large leaves."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.layer = nn.Linear(5, 2)

    def forward(self, x):
        return self.layer(x) * self.scale


@pytest.mark.parametrize(
    ("codec", "secure"), [(CODECS.count_sketch(40), False), (CODECS.random_k(0.5), True)]
)
def test_single_numbers_travel_beside_the_large_leaves_of_one_layer(codec, secure):
    found = run(fm.fedavg(work_of(Scaled())), compress=codec, secure=secure)

    before = Scaled().state_dict()
    assert all(not torch.equal(found.state_dict[name], leaf) for name, leaf in before.items())


def test_stale_answers_do_not_look_more_diverse_than_unrelated_ones():
    speeds = {client: fm.Device(examples_per_s=1.0 + client) for client in held()}
    same = held(1)[0]

    found = run(
        clients=dict.fromkeys(held(), same),
        fleet=fm.Fleet(devices=speeds),
        buffer=1,
        cohort=8,
        rounds=8,
        evaluate_every=1,
        test=same,
        staleness=fm.staleness.polynomial(2),
    )

    # Of one answer it is 1, however stale that is.
    assert max(row["staleness"][0][0] for row in found.history) > 2
    measured = [row["diversity"] for row in found.history if "diversity" in row]
    assert measured == pytest.approx([1.0] * 3, rel=1e-5)


def test_traffic_can_be_copied_and_stored():
    traffic = run(compress=CODECS.quantize(8)).traffic

    for again in (copy.deepcopy(traffic), pickle.loads(pickle.dumps(traffic))):
        assert again == traffic
        assert again.by_client == traffic.by_client
        assert again.by_round == traffic.by_round


def test_answers_of_a_round_without_a_result_do_not_count_but_their_bytes_do():
    clients = held()
    clients[0] = tuple(leaf[:4] for leaf in clients[0])
    work = fm.local.sgd(fm.classifier(model()), lr=0.1, batch_size=10, last="drop")

    def in_turns(clients, round, rng):
        return [0, 1, 2] if round % 2 else [3, 4, 5]

    # Client 0 cannot make a batch.
    found = run(fm.fedavg(work), clients, rounds=4, fleet=SLOW, quorum=3, sampling=in_turns)

    counted = sum(row["answered"] for row in found.history)
    assert [row["upload_bytes"] for row in found.history if row["skipped"]] == [1056, 1056]
    assert sum(answered for _, answered in found.participation.values()) == counted
    assert sum(up for up, _ in found.traffic.by_client.values()) == found.traffic.upload_bytes


@pytest.mark.parametrize(
    "options", [{"quorum": 6, "cohort": 5}, {"quorum": 0.9, "over_select": 1.5, "cohort": 4}]
)
def test_a_quorum_that_no_round_can_have_is_refused_before_the_first(options):
    with pytest.raises(SettingsError, match="quorum="):
        run(fleet=SLOW, **options)


@pytest.mark.parametrize("within", [False, True])
def test_the_clock_waits_for_what_entropy_coded_updates_take(within):
    if within:
        found = run(fm.fedavg(fm.local.feedback(work_of(), CODED)), fleet=SLOW)
    else:
        found = run(compress=CODED, fleet=SLOW)

    # 1 s of training, then 100 bytes a second; lengths vary with the numbers.
    sent_s = found.traffic.upload_bytes / (2 * 8) / 100
    assert found.history[0]["round_s"] == pytest.approx(1 + sent_s, rel=0.05)


def test_noise_at_the_client_leaves_nothing_packed():
    memory = fm.fedavg(fm.local.feedback(work_of(), CODECS.top_k(0.1)))
    budget = fm.DP(noise_multiplier=0.05, delta=1e-3, clip=1.0, trust="local")

    found = run(memory, privacy=budget)

    # Every number is noised: 32 bits each, and the weight.
    assert found.traffic.upload_bytes == 2 * 8 * (4 * PARAMETERS + 8)


def test_feedback_shows_no_lengths_that_hang_on_a_hidden_client_s_numbers():
    budget = fm.DP(noise_multiplier=0.05, delta=1e-3, clip=1.0)
    coded = fm.chain(CODECS.top_k(0.9), CODED)

    with pytest.raises(SettingsError, match="whoever counts them learns what no noise hides"):
        run(fm.fedavg(fm.local.feedback(work_of(), coded)), privacy=budget, cohort=4)


def test_others_of_a_picture_must_have_names():
    data = held()[0]
    found = run(test=data)

    with pytest.raises(SettingsError, match="others must say what each run is called"):
        found.plot_efficiency(others=[found])


def test_a_client_that_adds_noise_itself_adds_it_to_what_travels():
    budget = fm.DP(noise_multiplier=0.05, delta=1e-3, clip=1.0, trust="local")

    found = run(privacy=budget, compress=CODECS.random_k(0.1), rounds=1)

    # A tenth of all numbers, of 32 bits, and the weight; the rest is neither sent nor noised.
    assert found.traffic.upload_bytes == 8 * (4 * PARAMETERS // 10 + 8)
    moved = torch.cat([leaf.reshape(-1) for leaf in found.state_dict.values()])
    before = torch.cat([leaf.reshape(-1) for leaf in model().state_dict().values()])
    assert int((moved != before).sum()) == PARAMETERS // 10


@pytest.mark.parametrize("codec", [CODECS.random_k(0.1), CODECS.count_sketch(10, rows=3)])
def test_noise_that_a_codec_makes_longer_is_not_told_as_if_it_were_not(codec):
    budget = fm.DP(noise_multiplier=0.05, delta=1e-3, clip=1.0)

    found = run(privacy=budget, secure=True, compress=codec)

    assert all(row.get("noise_to_signal") is None for row in found.history)


def test_a_second_memory_around_a_first_one_is_refused():
    once = fm.local.feedback(work_of(), CODECS.sign())

    for twice in (fm.fedavg(fm.local.feedback(once, CODECS.sign())), fm.ef21(once, CODECS.sign())):
        with pytest.raises(SettingsError, match="has a memory of what compression loses already"):
            run(twice)


def test_answers_that_came_in_vain_have_travelled():
    speeds = {client: fm.Device(examples_per_s=10.0 / (1 + client)) for client in range(8)}
    fresh = fm.staleness.polynomial(0.5, at_most=0)

    result = run(fleet=fm.Fleet(devices=speeds), buffer=1, cohort=3, staleness=fresh, rounds=6)

    each = 4 * PARAMETERS + 8
    stale = len([left for left in result.left_out if "rounds old" in left.reason])
    assert stale > 0
    assert result.traffic.upload_bytes == each * (6 + stale)
    assert sum(up for up, _ in result.traffic.by_client.values()) == each * (6 + stale)
    assert sum(answered for _, answered in result.participation.values()) == 6


def test_a_private_run_names_nobody_who_was_lost():
    gone = fm.Fleet(devices=fm.Device(examples_per_s=10.0, dropout=0.5))
    budget = fm.DP(noise_multiplier=1.0, delta=1e-4, simulation=True)

    with pytest.warns(UserWarning, match="The noise of a round"):
        result = run(fleet=gone, deadline_s=60.0, privacy=budget, cohort=6, rounds=3)

    assert result.left_out == []
    assert any(row["answered"] < row["asked"] for row in result.history)
