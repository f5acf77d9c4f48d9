"""Noise at each client: every single answer is hidden, and sums come out right on average."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from folkmoot.codecs import clip, local_gaussian, local_laplace, randomized_response
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import SettingsError

SIZE = 50_000
NOISY = {
    "gaussian": lambda **more: chain(clip(1.0), local_gaussian(2.0, **more)),
    "laplace": lambda **more: local_laplace(2.0, 1.0, **more),
    "response": lambda **more: chain(clip(1.0), randomized_response(1.0, **more)),
}


def ready(codec, size=SIZE, clients=10):
    bounds = Bounds(weight=1.0, clients=clients, size=size, expected=clients)
    return codec.init(bounds, Layout.of({"w": torch.zeros(size)}))


def decoded(codec, vectors, size=SIZE):
    state, _ = ready(codec, size, len(vectors))
    total = sum(codec.encode(state, vector.clone(), at) for at, vector in enumerate(vectors))
    return codec.decode(state, total, 0)[0].double()


@pytest.mark.parametrize(("z", "norm", "clients"), [(1.0, 1.0, 1), (3.0, 0.5, 4)])
def test_gaussian_noise_of_all_clients_adds_up(z, norm, clients):
    codec = chain(clip(norm), local_gaussian(z))
    _, bounds = ready(codec)

    found = decoded(codec, [torch.zeros(SIZE)] * clients)

    deviation = z * norm * bounds.l2 * math.sqrt(clients)
    assert bounds.noise == z
    assert stats.kstest(found.numpy(), stats.norm(scale=deviation).cdf).pvalue > 1e-6


@pytest.mark.parametrize(("z", "norm"), [(1.0, 1.0), (4.0, 0.25)])
def test_laplace_noise_has_the_scale_of_the_l1_norm(z, norm):
    codec = local_laplace(z, norm)
    state, bounds = ready(codec)

    found = decoded(codec, [torch.zeros(SIZE)])

    scale = z * norm * state["reach"].item() / state["steps"].item()
    assert scale <= z * norm * (1 + 2.0**-8)
    assert bounds.noise == pytest.approx(math.sqrt(2) * z)
    assert stats.kstest(found.numpy(), stats.laplace(scale=scale).cdf).pvalue > 1e-6


@pytest.mark.parametrize("length", [0.0, 1e-30, 0.5, 1.0, 30.0, 1e30, 3e38, math.inf, math.nan])
def test_laplace_noise_stands_on_a_vector_within_the_l1_ball(length):
    draw = torch.Generator().manual_seed(0)
    vector = torch.rand(999, generator=draw) - 0.5
    vector *= length / vector.abs().sum()
    codec = local_laplace(0.0, 1.0)
    state, bounds = ready(codec, 999)

    sent = codec.encode(state, vector.clone(), 0)

    assert sum(map(abs, sent.tolist())) <= state["reach"].item()
    assert math.sqrt(sum(one * one for one in sent.tolist())) <= bounds.l2 * state["steps"].item()
    if length in (0.0, 0.5, 1.0):
        back, _ = codec.decode(state, sent, 0)
        assert back.tolist() == pytest.approx(vector.tolist(), abs=1e-6)


def test_a_yes_or_no_is_turned_over_as_often_as_warner_says():
    epsilon, n = 1.0, 4_000
    codec = chain(clip(1.0), randomized_response(epsilon, simulation=True))
    state, _ = ready(codec, 1, n)

    yes = [codec.encode(state, torch.ones(1), key).item() for key in range(n)]

    honest = math.exp(epsilon) / (1 + math.exp(epsilon))
    assert set(yes) == {-1, 1}
    assert abs(np.mean(np.array(yes) == 1) - honest) < 5 * math.sqrt(honest * (1 - honest) / n)


def test_randomized_response_never_promises_more_than_epsilon():
    # The most that any two vectors differ in the chance of one answer, by its own arithmetic.
    for epsilon in (0.01, 1.0, 5.0, 12.0):
        codec = randomized_response(epsilon)
        state, _ = codec.init(Bounds(l2=1.0, weight=1.0, size=1), Layout.of({}))
        gain = 1 / codec.decode(state, torch.ones(1, dtype=torch.float64), 0)[0].item()
        most, least = 0.5 + gain / 2, 0.5 - gain / 2
        assert math.log(most / least) <= epsilon
        assert math.log(most / least) == pytest.approx(epsilon, rel=0.05)


def test_randomized_responses_are_right_on_average_and_as_uncertain_as_stated():
    epsilon, n = 2.0, 6_000
    vector = torch.tensor([0.6, -0.3, 0.0, 0.1])
    codec = chain(clip(1.0), randomized_response(epsilon, simulation=True))
    state, bounds = ready(codec, 4, n)

    sent = torch.stack([codec.encode(state, vector.clone(), key) for key in range(n)])
    mean = codec.decode(state, sent.sum(0), 0)[0] / n

    deviation = bounds.noise / math.sqrt(n)
    assert (sent.abs().sum(1) == 1).all()
    assert abs(mean - vector).max() < 5 * deviation
    one = 4 / math.tanh(1.0)  # Of a vector whose coordinate is drawn: size / gain.
    assert bounds.noise == pytest.approx(one / 2, rel=1e-5)


@pytest.mark.parametrize("build", NOISY.values(), ids=NOISY)
def test_no_two_answers_share_noise_and_seeds_change_nothing(build):
    codec = build()
    state, _ = ready(codec)
    found = []

    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        found.append(torch.stack([codec.encode(state, torch.zeros(SIZE), 5) for _ in range(8)]))

    assert not torch.equal(*found)
    assert len({row.numpy().tobytes() for half in found for row in half}) == 16


@pytest.mark.parametrize("build", NOISY.values(), ids=NOISY)
def test_a_simulations_noise_follows_from_the_clients_key(build):
    codec = build(simulation=True)
    state, _ = ready(codec)
    vector = torch.zeros(SIZE)

    assert torch.equal(codec.encode(state, vector.clone(), 5), codec.encode(state, vector, 5))
    assert not torch.equal(codec.encode(state, vector.clone(), 5), codec.encode(state, vector, 6))


@pytest.mark.parametrize("clients", [1, 1_000, 10**6])
@pytest.mark.parametrize("build", NOISY.values(), ids=NOISY)
def test_answers_with_their_noise_fit_into_the_sum(build, clients):
    codec = build()
    state, _ = ready(codec, 1_000, clients)

    sent = codec.encode(state, torch.zeros(1_000), 0)

    assert sent.abs().max().item() * clients < torch.iinfo(sent.dtype).max


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: local_gaussian(-1.0), "noise_multiplier must be a finite number of at least 0"),
        (lambda: local_laplace(math.nan, 1.0), "noise_multiplier must be a finite number"),
        (lambda: local_laplace(1.0, 0.0), "norm must be a finite number above 0"),
        (lambda: randomized_response(0.0), "epsilon must be a finite number above 0"),
        (lambda: randomized_response(math.inf), "epsilon must be a finite number above 0"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(SettingsError, match=message):
        build()


@pytest.mark.parametrize(
    "codec", [local_gaussian(1.0), randomized_response(1.0)], ids=lambda codec: codec.name
)
def test_vectors_without_a_bound_are_refused(codec):
    with pytest.raises(SettingsError, match="Put a clip in front"):
        ready(codec)


def test_laplace_noise_needs_no_clip_but_a_bound_on_weights():
    with pytest.raises(SettingsError, match="uniform_mean"):
        local_laplace(1.0, 1.0).init(Bounds(size=2), Layout.of({}))
