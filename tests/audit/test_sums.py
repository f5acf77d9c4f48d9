"""One private sum, released many times: the right noise holds, and wrong noise does not."""

import pytest
import torch

import folkmoot as fm
from folkmoot import aggregators, codecs
from folkmoot.audit import audit_sum
from folkmoot.audit.sums import canary_like, releases
from folkmoot.core.errors import SettingsError
from folkmoot.privacy.accountants import gaussian_epsilon

LIKE = fm.Update({"w": torch.zeros(6), "b": torch.tensor(0.0)}, counts={"n": torch.tensor(3)})


def rule(noise_multiplier, divisor=2):
    noise = codecs.gaussian(noise_multiplier, simulation=True)
    return aggregators.uniform_mean(codecs.clip(0.5), noise, divisor=divisor)


def test_a_canary_moves_a_release_by_the_clip_over_the_divisor():
    chain = rule(1.0)
    state = chain.init(LIKE, 2)

    inside, outside = releases(chain, state, canary_like(LIKE, 1e3, state, 0), runs=400)

    # Clip and noise are 0.5, the divisor 2; 400 releases: five deviations of a mean.
    assert inside.mean() - outside.mean() == pytest.approx(0.25, abs=5 * 0.25 * 2**0.5 / 20)
    assert inside.std() == pytest.approx(0.25, rel=0.2)


def test_the_right_noise_is_not_refuted():
    for gaussian in (False, True):
        report = audit_sum(rule(2.0), LIKE, runs=400, gaussian=gaussian)
        assert report.epsilon_stated == pytest.approx(gaussian_epsilon(0.5, 1e-5))
        assert report.holds
        assert "1 client, in half of 800 runs" in str(report)


def test_half_of_the_stated_noise_is_refuted_with_normal_noise_taken_for_granted():
    stated = gaussian_epsilon(1 / 2.0, 1e-5)

    assert not audit_sum(rule(1.0), LIKE, stated=stated, runs=600, gaussian=True).holds


@pytest.mark.nightly
def test_half_of_the_stated_noise_is_refuted_by_counts_alone():
    stated = gaussian_epsilon(1 / 2.0, 1e-5)

    assert not audit_sum(rule(1.0), LIKE, stated=stated, runs=20_000).holds
    assert audit_sum(rule(2.0), LIKE, stated=stated, runs=20_000).holds


def test_noise_of_each_client_is_drawn_anew_for_each_release():
    chain = aggregators.uniform_mean(
        codecs.clip(0.5), codecs.local_gaussian(1.0, simulation=True), divisor=2
    )
    state = chain.init(LIKE, 2)

    inside, _ = releases(chain, state, canary_like(LIKE, 1e3, state, 0), runs=30)

    assert len(set(inside.tolist())) == 30


def test_a_chain_without_noise_promises_nothing():
    report = audit_sum(aggregators.uniform_mean(codecs.clip(1.0), divisor=2), LIKE, runs=50)

    assert report.epsilon_stated == float("inf")
    assert report.epsilon_lower > 1.0


def test_updates_of_other_leaves_are_refused():
    with pytest.raises(SettingsError, match="Update 0 has other leaves than the canary"):
        audit_sum(rule(1.0), LIKE, others=[fm.Update({"w": torch.zeros(6)})], runs=10)
