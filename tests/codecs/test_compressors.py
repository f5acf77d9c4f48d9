"""What every lossy codec does with any vector: constant, zero, tiny, huge, short, NaN."""

import math

import pytest
import torch

from folkmoot import codecs
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import ClientError, SettingsError

SEEDS = 400
UNBIASED: dict = {
    "natural": codecs.natural(),
    "quantize(1)": codecs.quantize(1),
    "quantize(4)": codecs.quantize(4),
    "quantize(11)": codecs.quantize(11),
    "quantize(16, block=8)": codecs.quantize(16, block=8),
    "qsgd(1)": codecs.qsgd(1),
    "qsgd(300, block=16)": codecs.qsgd(300, block=16),
    "ternary": codecs.ternary(),
    "drive": codecs.drive(),
    "eden(2)": codecs.eden(2),
    "eden(4)": codecs.eden(4),
    "random_k": codecs.random_k(0.3),
    "random_k of its own": codecs.random_k(0.3).own,
    "count_sketch": codecs.count_sketch(8, rows=1),
    "rotate, quantize": chain(codecs.rotate(), codecs.quantize(2)),
    "random_k, qsgd, entropy_coded": chain(
        codecs.random_k(0.3), codecs.qsgd(2, block=8), codecs.entropy_coded()
    ),
}
BIASED = {
    "bf16": codecs.bf16(),
    "fp16": codecs.fp16(),
    "sign": codecs.sign(),
    "drive, shortest": codecs.drive(unbiased=False),
    "top_k": codecs.top_k(0.3),
    "top_k, quantize, entropy_coded": chain(
        codecs.top_k(0.3), codecs.quantize(6), codecs.entropy_coded()
    ),
}
ALL = UNBIASED | BIASED
LEAST = {"bf16": 2.0**-133, "natural": 2.0**-126}
"""Those whose exponent ends as float32's does, but whose fraction is shorter."""
SIZES = (1, 2, 7, 65, 300)


def ready(codec, size):
    return codec.init(Bounds(weight=1.0, size=size), Layout.of({"w": torch.zeros(size)}))[0]


def at_turn(state, turn):
    """A state in which stages that go by turn, as do those that all clients share, are at one."""
    inner = {name: at_turn(part, turn) for name, part in state.items() if isinstance(part, dict)}
    turns = {"turn": torch.tensor(turn)} if "turn" in state else {}
    return {**state, **inner, **turns}


def through(codec, vector, seed=0, state=None):
    """What the server has of one client's vector."""
    state = at_turn(state or ready(codec, len(vector)), seed)
    key = rng.derive(seed, round=1, client=3, purpose="encode")
    return codec.decode(state, codec.encode(state, vector.clone(), key), key)[0]


@pytest.fixture(params=ALL.values(), ids=ALL)
def codec(request):
    return request.param


@pytest.mark.parametrize("codec", UNBIASED.values(), ids=UNBIASED)
@pytest.mark.parametrize("size", [3, 21])
def test_the_mean_over_seeds_is_the_vector(codec, size):
    draw = torch.Generator().manual_seed(size)
    vector = (0.3 + torch.rand(size, generator=draw)) * torch.randn(size, generator=draw).sign()
    state = ready(codec, size)

    found = torch.stack([through(codec, vector, seed, state) for seed in range(SEEDS)]).double()

    error = found.mean(0) - vector
    deviation = found.std(0) / math.sqrt(SEEDS)
    # Chances are met to 2^-16 of the largest number, and scales to float32.
    assert (error.abs() <= 4 * deviation + 2.0**-15).all()
    # All coordinates together: a mean of squares of standard normal numbers.
    squares = (error / deviation.clamp(min=2.0**-15)).square()
    assert squares.mean() <= 1 + 4 * math.sqrt(2 / size)


@pytest.mark.parametrize("codec", [ALL[name] for name in BIASED], ids=BIASED)
def test_what_is_biased_is_no_longer_than_the_vector(codec):
    vector = torch.randn(300, generator=torch.Generator().manual_seed(1))

    found = through(codec, vector)

    assert found.norm() <= vector.norm() * 1.01
    assert (found - vector).norm() < vector.norm()


def test_zeros_arrive_as_zeros(codec):
    for size in (0, *SIZES):
        assert torch.equal(through(codec, torch.zeros(size)), torch.zeros(size))


@pytest.mark.parametrize("length", [1e-42, 1e-38, 1e-20, 1e20, 1e30])
def test_errors_are_in_proportion_from_the_tiniest_to_the_largest_numbers(codec, length):
    for size in SIZES:
        vector = torch.randn(size, generator=torch.Generator().manual_seed(size))
        usual = (through(codec, vector) - vector).norm().item()

        error = (through(codec, vector * length).double() / length - vector).norm().item()

        # Below 2^-126 float32 has steps of 2^-149, which is a thousandth of 1e-42.
        steps = LEAST.get(codec.name, 2.0**-146) / length * size
        assert error <= 1.5 * usual + 2.0**-7 * vector.norm().item() + steps


@pytest.mark.parametrize("constant", [0.1, -7.0, 1e30])
def test_constants_arrive_within_the_error_of_a_step(constant):
    vector = torch.full((100,), constant)
    for name in ("quantize(1)", "quantize(4)", "quantize(11)", "ternary", "bf16", "fp16"):
        found = through(ALL[name], vector)
        assert torch.allclose(found, vector, rtol=2.0**-8), name
    assert torch.allclose(through(codecs.sign(), vector), vector)


@pytest.mark.parametrize("value", [1.0, -0.3, 1e-30])
def test_a_single_number_arrives_but_for_rounding(value):
    vector = torch.tensor([value])
    for name in ("quantize(4)", "ternary", "drive", "eden(4)", "sign", "top_k", "random_k"):
        assert through(ALL[name], vector).item() == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_never_arrives_as_one(codec, poison):
    vector = torch.randn(100, generator=torch.Generator().manual_seed(2))
    vector[41] = poison

    for seed in range(5):
        try:
            found = through(codec, vector, seed)
        except ClientError as error:
            assert "NaN" in str(error)
            continue
        # Zero is what random_k makes of all that it leaves out.
        assert not torch.isfinite(found[41]) or found[41] == 0
        assert found[41] != 0 or "random_k" in codec.name


def test_bits_do_not_depend_on_the_number_of_threads(codec):
    vector = torch.randn(150_000, generator=torch.Generator().manual_seed(1))
    threads, found = torch.get_num_threads(), []
    for number in (1, 2, 4):
        torch.set_num_threads(number)
        found.append(through(codec, vector))
    torch.set_num_threads(threads)

    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("codec", ALL.values(), ids=ALL)
def test_no_lossy_stage_stands_behind_noise(codec):
    noisy = Bounds(l2=1.0, weight=1.0, size=9, noise=1.0)

    with pytest.raises(SettingsError, match="stands behind a stage that adds noise"):
        codec.init(noisy, Layout.of({"w": torch.zeros(9)}))


def test_messages_have_the_same_size_for_all_clients(codec):
    if "entropy_coded" in codec.name or codec.pack is None:
        return
    state = ready(codec, 1000)
    draw = torch.Generator().manual_seed(1)
    vectors = [torch.zeros(1000), torch.randn(1000, generator=draw), torch.ones(1000)]

    sent = [codec.pack(state, vector, key) for key, vector in enumerate(vectors)]

    shapes = [{path: leaf.shape for path, leaf in trees.items(one)} for one in sent]
    assert shapes[0] == shapes[1] == shapes[2]
