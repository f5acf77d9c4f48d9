"""`compress=`: what travels is smaller, and everything else stays what it was."""

import warnings

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import SettingsError

CODECS = fm.codecs
TURNED = fm.chain(CODECS.rotate(), CODECS.quantize(4))


def held(clients=4, rows=6):
    draw = torch.Generator().manual_seed(1)
    return {
        client: {
            "x": torch.randn(rows + client, 8, generator=draw),
            "y": torch.randint(3, (rows + client,), generator=draw),
        }
        for client in range(clients)
    }


def model_of(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*(layers or (nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))))


def work_of(model=None, **options):
    options = {"lr": 0.1, "batch_size": 3} | options
    return fm.local.sgd(fm.classifier(model or model_of()), **options)


def run(algorithm=None, **options):
    options = {"rounds": 3, "seed": 4, "progress": False, "workers": 1} | options
    algorithm = fm.fedavg(work_of()) if algorithm is None else algorithm
    return fm.run(algorithm, options.pop("clients", None) or held(), **options)


def same(one, other):
    """Tell whether two results have the same bits, and moved the same bytes."""
    models = zip(one.state_dict.values(), other.state_dict.values(), strict=True)
    bytes_ = [[row["upload_bytes"] for row in result.history] for result in (one, other)]
    return all(torch.equal(a, b) for a, b in models) and bytes_[0] == bytes_[1]


SIZE = 8 * 16 + 16 + 16 * 3 + 3
"""Numbers of the model."""


@pytest.mark.parametrize(
    ("codec", "packed"),
    [
        (CODECS.bf16(), 2 * SIZE),
        # A code of 8 bits each, and a scale of 4 bytes for each block.
        (CODECS.quantize(8), SIZE + 4),
        # Blocks of 128, 64 and 3 numbers, with a scale each.
        (CODECS.eden(1), -(-SIZE // 8) + 3 * 4),
        (CODECS.random_k(count=20), 20 * 4),
        (CODECS.count_sketch(30, rows=3), 3 * 30 * 4),
    ],
    ids=["bf16", "quantize", "eden", "random_k", "count_sketch"],
)
def test_bytes_are_those_of_the_packed_form(codec, packed):
    result = run(compress=codec)

    # Beside it goes the weight, a float64.
    assert [row["upload_bytes"] for row in result.history] == [4 * (packed + 8)] * 3
    assert result.settings["compress"] == codec.name
    assert result.traffic.download_bytes == 3 * 4 * (4 * SIZE + 8)


def test_what_is_not_lossy_changes_nothing_but_rounding():
    plain, packed = run(), run(compress=CODECS.quantize(16))

    for one, other in zip(plain.state_dict.values(), packed.state_dict.values(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)
        assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "codec",
    [
        TURNED,
        CODECS.top_k(0.2),
        CODECS.random_k(0.3),
        CODECS.count_sketch(40),
        fm.chain(CODECS.top_k(0.2), CODECS.quantize(4), CODECS.entropy_coded()),
    ],
    ids=["rotate", "top_k", "random_k", "sketch", "entropy"],
)
@pytest.mark.parametrize("other", ["two workers", "by hand", "vectorized"])
def test_every_engine_gives_the_same_bits(codec, other):
    one = run(compress=codec)

    if other == "two workers":
        assert same(one, run(compress=codec, workers=2))
    elif other == "by hand":
        process = fm.process(fm.fedavg(work_of()), compress=codec, seed=4)
        state = process.initialize()
        for row in one.history:
            state, metrics = process.next(state, held())
            assert metrics["upload_bytes"] == row["upload_bytes"]
        for name, leaf in process.model(state).state_dict().items():
            assert torch.equal(leaf, one.state_dict[name])
    else:
        found = run(compress=codec, workers=None, engine=fm.engines.vectorized())
        for name, leaf in found.state_dict.items():
            # A last bit of an update may choose another code, or another number to keep.
            assert torch.allclose(leaf, one.state_dict[name], atol=0.1)


def test_equal_seeds_give_equal_codes_and_others_others():
    assert same(run(compress=TURNED), run(compress=TURNED))
    assert not same(run(compress=TURNED), run(compress=TURNED, seed=5))


def test_statistics_and_single_numbers_travel_as_they_are():
    """One bit for a variance could make it negative; one bit for a loss is no loss."""
    model = model_of(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    algorithm = fm.qfedavg(work_of(model), q=1.0)

    result = run(algorithm, compress=CODECS.eden(1))

    assert all(torch.isfinite(leaf).all() for leaf in result.state_dict.values())
    assert (result.state_dict["1.running_var"] > 0).all()
    assert result.metrics == {} or all(value < 1e3 for value in result.metrics.values())


def test_a_bad_update_is_left_out_before_a_codec_could_hide_it():
    clients = held()
    clients[2]["x"][:] = 3e38
    plain = run(clients=clients, rounds=1)
    assert [left.client for left in plain.left_out] == [2]

    for codec in (CODECS.top_k(0.2), CODECS.random_k(0.2), CODECS.eden(1)):
        result = run(compress=codec, clients=clients, rounds=1)

        assert [left.client for left in result.left_out] == [2]
        assert "NaN" in result.left_out[0].reason


def test_it_is_part_of_what_a_run_is(tmp_path):
    run(compress=CODECS.quantize(8), checkpoint=tmp_path / "a", rounds=2)

    with pytest.raises(SettingsError, match="compress was"):
        run(compress=CODECS.quantize(4), checkpoint=tmp_path / "a", rounds=4, resume=True)


def test_a_run_that_goes_on_has_the_bits_of_one_that_never_stopped(tmp_path):
    options = {"compress": TURNED, "compress_down": CODECS.quantize(8)}
    whole = run(rounds=4, cohort=2, **options)

    run(rounds=2, cohort=2, checkpoint=tmp_path / "a", **options)
    found = run(rounds=4, cohort=2, checkpoint=tmp_path / "a", resume=True, **options)

    assert same(whole, found)
    down = [[row["download_bytes"] for row in result.history] for result in (whole, found)]
    assert down[0] == down[1]


def test_privacy_bounds_what_has_arrived():
    """One bit a number makes an update longer; the clip stands behind it."""
    promise = fm.DP(noise_multiplier=1e-6, delta=1e-4, clip=0.01, simulation=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run(compress=CODECS.eden(1), privacy=promise, rounds=1, cohort=4)
    moved = [
        (leaf - first).flatten()
        for leaf, first in zip(
            result.state_dict.values(), model_of().state_dict().values(), strict=True
        )
    ]

    assert torch.cat(moved).norm() <= 0.01 * 1.001


def test_a_secure_sum_takes_what_can_be_added():
    result = run(compress=CODECS.random_k(count=40), secure=True)
    plain = run(secure=True)

    assert result.traffic.upload_bytes < plain.traffic.upload_bytes / 3
    protocol = run(compress=CODECS.random_k(count=40), secure="protocol")
    for name, leaf in result.state_dict.items():
        assert torch.equal(leaf, protocol.state_dict[name])


DP = fm.DP(noise_multiplier=1.0, delta=1e-4, simulation=True)
LOCAL = fm.DP(noise_multiplier=1.0, delta=1e-4, trust="local", simulation=True)
REFUSED = {
    "a name": ({"compress": "quantize"}, ["compress must be a codec", "'quantize'"]),
    "a builder": ({"compress": CODECS.eden}, ["built first", "()"]),
    "a bound": ({"compress": CODECS.clip(1.0)}, ["clip(1)", "bounds", "aggregator="]),
    "noise": (
        {"compress": fm.chain(CODECS.clip(1.0), CODECS.gaussian(1.0))},
        ["cannot be used"],
    ),
    "packed in a secure sum": (
        {"compress": CODECS.quantize(8), "secure": True},
        ["quantize", "cannot be added", "random_k"],
    ),
    "packed before local noise": (
        {"compress": CODECS.quantize(8), "privacy": LOCAL},
        ["trust='local'", "random_k"],
    ),
    "sizes that tell": (
        {"compress": fm.chain(CODECS.top_k(0.1), CODECS.entropy_coded()), "privacy": DP},
        ["whoever counts", "entropy"],
    ),
    "a broadcast that would run away": (
        {"compress_down": CODECS.random_k(0.1)},
        ["compress_down", "run away", "top_k"],
    ),
    "a sketch down": ({"compress_down": CODECS.count_sketch(9)}, ["packs nothing"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compressed_is_refused_with_the_cure(case):
    options, said = REFUSED[case]

    with warnings.catch_warnings(), pytest.raises(SettingsError) as error:
        warnings.simplefilter("ignore")
        run(**options)

    assert all(part in str(error.value) for part in said), str(error.value)


def test_work_that_packs_for_itself_is_not_packed_again():
    algorithm = fm.fedavg(fm.local.feedback(work_of(), CODECS.top_k(0.1)))

    with pytest.raises(SettingsError, match="packs its updates already"):
        run(algorithm, compress=CODECS.quantize(8))


def test_a_check_says_what_a_run_would_refuse_and_what_it_would_send():
    report = fm.check(fm.fedavg(work_of()), held(), rounds=2, compress=CODECS.quantize(8))
    refused = fm.check(fm.fedavg(work_of()), held(), rounds=2, compress=CODECS.eden)

    assert report.ok
    assert report.cost.upload_bytes == 4 * (SIZE + 4 + 8)
    assert not refused.ok
    assert "built first" in str(refused)


def test_a_check_hears_of_time_and_broadcasts_too():
    fleet = fm.Fleet(devices=fm.Device(examples_per_s=1.0))

    fine = fm.check(fm.fedavg(work_of()), held(), rounds=2, fleet=fleet, deadline_s=9.0)
    wrong = fm.check(
        fm.fedavg(work_of()), held(), rounds=2, buffer=2, compress_down=CODECS.random_k(0.1)
    )

    assert fine.ok
    assert len(wrong.problems) == 2
    assert "run away" in wrong.problems[0] and "fleet=" in wrong.problems[1]
