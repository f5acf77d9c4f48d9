"""Eight ways in which implementations of differential privacy have been wrong, each of them caught.

Every check is written once. The rule that `fm.run(privacy=)` builds passes all of them; the same
rule with one fault built in fails. Noise follows from seeds here, so that nothing is left to luck.
"""

import pytest
import torch

import folkmoot as fm
from folkmoot import aggregators, codecs
from folkmoot.audit import audit_sum
from folkmoot.core import fold
from folkmoot.core import tree as trees

NOISE, CLIP, EXPECTED = 1.0, 2.0, 8
LIKE = fm.Update(
    {
        "params": {f"{layer}.weight": torch.zeros(3, 2) for layer in range(4)},
        "buffers": {"norm.running_mean": torch.zeros(2), "scale": torch.tensor(0.0)},
    },
    counts={"norm.num_batches_tracked": torch.tensor(7)},
)


def right():
    """The rule that every exchange of a private run has."""
    return private(codecs.clip(CLIP), codecs.gaussian(NOISE, simulation=True))


def private(clip, noise):
    return aggregators.uniform_mean().bounded((clip,), (noise,), float(EXPECTED))


# Checks


def opposed(others=EXPECTED - 1):
    """Updates that all pull as hard as they can against a canary, whose direction is known."""
    state = right().init(LIKE, EXPECTED)
    canary = fm.audit.sums.canary_like(LIKE, 1.0, state, seed=0)
    return [fm.Update(trees.scale(-CLIP, canary.value), 1.0, LIKE.counts)] * others


def no_audit_refutes_its_epsilon(rule):
    """One client is a canary, far too long and far too heavy, and all others pull against it."""
    report = audit_sum(rule, LIKE, others=opposed(), runs=400, gaussian=True)

    assert report.holds, report


def released(rule, updates, key, rounds=1):
    """What a rule makes of updates, round after round: (value, counts) each."""
    state, found = rule.init(LIKE, EXPECTED), []
    for number in range(rounds):
        total = fold.zero(rule.encode(state, LIKE, 0))
        for client, update in enumerate(updates):
            total = fold.add(total, rule.encode(state, update, 1000 * number + client))
        value, counts, state = rule.decode(state, total, key + number)
        found.append((value, counts))
    return found


def every_number_is_noised_anew(rule):
    """In two rounds of the same sum no number of any floating leaf comes out the same."""
    (one, _), (other, _) = released(rule, [LIKE] * 3, key=5, rounds=2)

    for (path, leaf), again in zip(trees.items(one), trees.leaves(other), strict=True):
        assert (leaf != again).all(), f"{trees.name(path)} is {leaf} twice"


def counts_stay_at_home(rule):
    """What clients count is neither released nor part of any norm."""
    value = trees.map(lambda leaf: torch.full_like(leaf, 0.1), LIKE.value)
    answers = []
    for batches in (7, 10**6):
        counted = {"norm.num_batches_tracked": torch.tensor(batches)}
        answers += released(rule, [fm.Update(value, 1.0, counted)], key=3)

    (value, counts), (same, apart) = answers
    assert all(map(torch.equal, trees.leaves(value), trees.leaves(same)))
    assert all(map(torch.equal, trees.leaves(counts), trees.leaves(apart)))


CHECKS = {
    check.__name__: check
    for check in (no_audit_refutes_its_epsilon, every_number_is_noised_anew, counts_stay_at_home)
}


# Faults


def noise_missing():
    noise = codecs.gaussian(NOISE, simulation=True)
    silent = codecs.gaussian(0.0)
    return private(codecs.clip(CLIP), noise._replace(decode=silent.decode))


def noise_halved():
    noise = codecs.gaussian(NOISE, simulation=True)
    half = codecs.gaussian(NOISE / 2, simulation=True)
    return private(codecs.clip(CLIP), noise._replace(decode=half.decode))


def clip_after_sum():
    """Clients send what they like, and the sum is clipped to one client's norm."""

    def decode(state, total, key):
        draw = torch.Generator().manual_seed(key % 2**31)
        total = total * (CLIP / max(float(total.norm()), CLIP))
        return total + CLIP * NOISE * torch.randn(total.shape, generator=draw), state

    late = codecs.clip(CLIP)._replace(encode=lambda state, vector, key: vector, decode=decode)
    says = codecs.clip(1.0)._replace(
        init=lambda bounds, layout: ({}, bounds._replace(noise=NOISE)),
        encode=lambda state, vector, key: vector,
        decode=lambda state, total, key: (total, state),
    )
    return private(late, says)


def weight_not_bounded():
    rule = right()

    def encode(state, update, key):
        sent = rule.encode(state, update, key)
        vector = sent.value["vector"].long() * min(int(update.weight), 30)
        return sent._replace(value={"vector": vector})

    return rule._replace(encode=encode)


def divisor_by_realised_cohort():
    rule = right()

    def decode(state, added, key):
        value, counts, state = rule.decode(state, added, key)
        return trees.scale(EXPECTED / max(1, added.count), value), counts, state

    return rule._replace(decode=decode)


def noise_reused_between_rounds():
    rule = right()
    return rule._replace(decode=lambda state, added, key: rule.decode(state, added, 0))


def statistics_released_as_they_are():
    """Batch statistics beside the noise, not under it: they are no parameters, after all."""
    rule, bare = right(), private(codecs.clip(CLIP), codecs.gaussian(0.0))

    def decode(state, added, key):
        value, counts, state = rule.decode(state, added, key)
        plain, _, _ = bare.decode(bare.init(LIKE, EXPECTED), added, key)
        return {**value, "buffers": plain["buffers"]}, counts, state

    return rule._replace(decode=decode)


def counters_in_the_norm():
    """Integer leaves are made floats, and clipped with all others."""
    rule = right()

    def encode(state, update, key):
        counted = sum(float(leaf) ** 2 for leaf in update.counts.values())
        length = (trees.norm(update.value) ** 2 + counted) ** 0.5
        scale = CLIP / max(float(length), CLIP)
        return rule.encode(state, update._replace(value=trees.scale(scale, update.value)), key)

    return rule._replace(encode=encode)


def counts_averaged_in_the_clear():
    rule = right()

    def encode(state, update, key):
        return rule.encode(state, update, key)._replace(counts=update.counts)

    def decode(state, added, key):
        value, _, state = rule.decode(state, added, key)
        return value, trees.scale(1 / max(1, added.count), added.counts), state

    return rule._replace(encode=encode, decode=decode)


def layers_clipped_to_the_whole_norm():
    """Each of five layers may be as long as all of them together."""
    clip = codecs.clip_by_layer({f"{layer}.*": CLIP for layer in range(4)} | {"*": CLIP})

    def encode(state, vector, key):
        return clip.encode(state, vector, key) * 5**0.5

    def decode(state, total, key):
        value, state = clip.decode(state, total, key)
        return value / 5**0.5, state

    whole = clip._replace(encode=encode, decode=decode)
    return private(whole, codecs.gaussian(NOISE, simulation=True))


FAULTS = [
    (noise_missing, no_audit_refutes_its_epsilon),
    (noise_halved, no_audit_refutes_its_epsilon),
    (clip_after_sum, no_audit_refutes_its_epsilon),
    (weight_not_bounded, no_audit_refutes_its_epsilon),
    (divisor_by_realised_cohort, no_audit_refutes_its_epsilon),
    (noise_reused_between_rounds, every_number_is_noised_anew),
    (statistics_released_as_they_are, every_number_is_noised_anew),
    (counters_in_the_norm, counts_stay_at_home),
    (counts_averaged_in_the_clear, counts_stay_at_home),
    (layers_clipped_to_the_whole_norm, no_audit_refutes_its_epsilon),
]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_the_right_rule_passes(check):
    check(right())


@pytest.mark.parametrize(("fault", "check"), FAULTS, ids=lambda part: part.__name__)
def test_a_planted_bug_is_caught(fault, check):
    rule = fault()

    with pytest.raises(AssertionError):
        check(rule)


def test_every_fault_has_its_check():
    faults = {fault for fault, _ in FAULTS}

    assert {check for _, check in FAULTS} == set(CHECKS.values())
    # Batch statistics can be counted in three wrong ways; all others are one each.
    assert len(faults) == len(FAULTS) == 8 - 1 + 3
