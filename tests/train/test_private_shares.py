"""What noise in shares costs: the costliest exchange, whatever noise a search asks about."""

import pytest

import folkmoot as fm
from folkmoot.privacy import Gaussian, epsilon, epsilon_bound, noise_for
from folkmoot.secagg.secure import Secure
from folkmoot.train.private_shares import cost

DELTA = 1e-6


@pytest.mark.parametrize("bits", [None, 16, 32])
@pytest.mark.parametrize(("target", "sizes"), [(8.0, [2**17]), (2.0, [10**6, 50])])
def test_noise_of_either_kind_is_found_for_a_budget(bits, target, sizes):
    secure = Secure(noise="skellam", bits=bits)
    event = cost(secure, 100, sizes)

    noise = noise_for(target, DELTA, lambda z: [(event(z), 50)])

    spent = epsilon([(event(noise), 50)], DELTA)
    assert 0.99 * target <= spent <= target
    # No more than Gaussian noise by the same orders, and a hundredth.
    assert spent <= 1.01 * epsilon_bound([(Gaussian(noise), 50)], DELTA)
    assert cost(Secure(), 100, sizes) is Gaussian


def test_the_costliest_exchange_of_a_round_is_charged():
    secure = Secure(noise="skellam", bits=16)
    sizes = (4, 1000, 10**5)

    both = epsilon([(cost(secure, 2000, sizes)(1.0), 1)], DELTA)

    for size in sizes:
        assert epsilon([(cost(secure, 2000, (size,))(1.0), 1)], DELTA) <= both


def test_noise_without_room_costs_no_less_than_what_has_room():
    event = cost(Secure(noise="skellam", bits=16), 100, [2**17])
    noises = [1.0, 5.0, 9.0, 12.0, 20.0, 1e3, 1e6]

    spent = [epsilon([(event(noise), 1)], DELTA) for noise in noises]

    assert event(1e3).reach == 1.0 < event(5.0).reach
    assert spent == sorted(spent, reverse=True)
    for noise, one in zip(noises, spent, strict=True):
        assert one >= epsilon_bound([(Gaussian(noise), 1)], DELTA)


def test_a_run_with_more_noise_than_16_bits_have_room_for_is_refused(line, pull):
    algorithm = fm.fedavg(fm.local.sgd(line([0.0, 0.0]), lr=1.0))

    with (
        pytest.warns(UserWarning, match="may drown"),
        pytest.raises(fm.SettingsError, match=r"do not fit into 16 bits.* Take bits=32"),
    ):
        fm.run(
            algorithm,
            {client: pull([0.1, 0.2]) for client in range(10)},
            rounds=1,
            cohort=10,
            privacy=fm.DP(noise_multiplier=5000.0, clip=1.0, delta=1e-3),
            secure=Secure(noise="skellam", bits=16),
        )
