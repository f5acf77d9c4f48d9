"""Counter-based streams: published values, one mixer thrice, laws of orders and masks."""

import itertools
import math

import numpy as np
import pytest
import torch

from folkmoot.core import rng
from folkmoot.engines.shuffle import orders, step_keys
from folkmoot.local.dropout import keep_mask, mix_tensor

GAMMA = 0x9E3779B97F4A7C15
# Chi-square, 119 degrees of freedom: exceeded with probability 0.001 (Wilson and Hilferty).
CHI_SQUARE_119 = 172.5


@pytest.mark.parametrize(
    ("seed", "published"),
    [  # The first outputs of splitmix64 as its authors' C code gives them.
        (0, [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]),
        (1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423]),
    ],
)
def test_mix_gives_the_published_numbers_of_splitmix64(seed, published):
    states = [(seed + step * GAMMA) % 2**64 for step in range(3)]

    assert [rng.mix(state) for state in states] == published


def test_the_three_writings_of_the_mixer_have_the_same_bits():
    states = np.random.default_rng(0).integers(0, 2**64, 2_000, dtype=np.uint64)
    states[:5] = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]

    plain = np.array([rng.mix(int(state)) for state in states], dtype=np.uint64)
    tensors = mix_tensor(torch.from_numpy(states.view(np.int64)))

    assert np.array_equal(rng.mix_array(states), plain)
    assert np.array_equal(tensors.numpy().view(np.uint64), plain)


def test_labels_of_strings_are_the_first_bytes_of_sha256():
    assert rng.label("abc") == 0xEACF018FBF1678BA  # FIPS 180-2: ba7816bf 8f01cfea, little endian
    assert rng.label(7) == rng.mix(7)


def test_every_part_of_a_stream_s_name_gives_another_key():
    names = [
        {"seed": seed, "round": round, "client": client, "purpose": purpose}
        for seed in (0, 1, -1)
        for round in (0, 1, 2)
        for client in (None, 0, 1, "0", "a")
        for purpose in ("train", "encode")
    ]

    keys = {rng.derive(name.pop("seed"), **name) for name in names}

    assert len(keys) == len(names) == 90
    assert all(0 <= key < 2**64 for key in keys)


def test_round_and_purpose_do_not_change_places():
    assert rng.derive(1, round=2, purpose="x") != rng.derive(2, round=1, purpose="x")


def test_a_client_s_key_may_be_derived_in_one_step_or_two():
    base = rng.derive(3, round=4, purpose="train")

    assert rng.of_client(base, "a") == rng.derive(3, round=4, client="a", purpose="train")


def test_orders_of_many_clients_at_once_are_the_orders_of_each_alone():
    keys = [rng.derive(0, client=client, purpose="train") for client in range(6)]
    sizes = [1, 5, 2, 40, 0, 17]

    together = orders(keys, sizes, 3)

    for key, size, order in zip(keys, sizes, together, strict=True):
        assert order.dtype == torch.int64
        assert order.tolist() == orders([key], [size], 3)[0].tolist()
        assert sorted(order.tolist()) == list(range(size))


def test_two_clients_two_rounds_and_two_epochs_are_shuffled_differently():
    a, b, next_round = (
        rng.derive(0, round=round, client=client, purpose="train")
        for round, client in ((1, 0), (1, 1), (2, 0))
    )
    found = [orders([a], [50], 0), orders([b], [50], 0), orders([next_round], [50], 0)]
    found.append(orders([a], [50], 1))

    assert len({tuple(order.tolist()) for [order] in found}) == 4


def chi_square_of_permutations(found):
    tally = dict.fromkeys(itertools.permutations(range(5)), 0)
    for order in found:
        tally[tuple(order.tolist())] += 1
    expected = len(found) / 120
    assert min(tally.values()) > 0
    return sum((count - expected) ** 2 / expected for count in tally.values())


def test_all_orders_of_five_examples_are_about_equally_likely_over_clients():
    keys = [rng.derive(0, client=client, purpose="train") for client in range(6_000)]

    assert chi_square_of_permutations(orders(keys, [5] * 6_000, 0)) < CHI_SQUARE_119


def test_all_orders_of_five_examples_are_about_equally_likely_over_epochs():
    key = rng.derive(0, purpose="train")
    found = [orders([key], [5], epoch)[0] for epoch in range(6_000)]

    assert chi_square_of_permutations(found) < CHI_SQUARE_119


def test_every_step_has_a_key_of_its_own_whoever_is_drawn_with_it():
    keys = [rng.derive(0, client=client, purpose="train") for client in range(3)]

    together = step_keys(keys, [4, 0, 2])

    assert [len(of_client) for of_client in together] == [5, 1, 3]
    alone = [step_keys([key], [steps])[0] for key, steps in zip(keys, (4, 0, 2), strict=True)]
    assert together == alone
    assert len({key.item() for of_client in together for key in of_client}) == 9
    assert all(key.shape == () and key.dtype == torch.int64 for key in together[0])


@pytest.mark.parametrize("drop", [0.1, 0.5, 0.9])
def test_a_mask_drops_its_share(drop):
    kept = keep_mask(rng.as_tensor(11), 1, torch.Size([400, 250]), drop).double().mean().item()

    # Four standard deviations of a mean of 100,000 draws.
    assert abs(kept - (1 - drop)) < 4 * math.sqrt(drop * (1 - drop) / 100_000)


def test_masks_belong_to_key_and_call():
    shape, key = torch.Size([100, 100]), rng.as_tensor(5)
    mask = keep_mask(key, 1, shape, 0.5)

    assert torch.equal(mask, keep_mask(key, 1, shape, 0.5))
    for other in (keep_mask(key, 2, shape, 0.5), keep_mask(rng.as_tensor(6), 1, shape, 0.5)):
        # Independent fair masks agree on half of 10,000 places, give or take four deviations.
        assert abs((mask == other).double().mean().item() - 0.5) < 0.02
    assert keep_mask(key, 1, shape, 0.0).all()


def test_masks_of_mapped_keys_are_those_of_each_key():
    keys = torch.stack([rng.as_tensor(rng.mix(number)) for number in range(3)])
    shape = torch.Size([4, 5])

    mapped = torch.func.vmap(lambda key: keep_mask(key, 2, shape, 0.3))(keys)

    assert torch.equal(mapped, torch.stack([keep_mask(key, 2, shape, 0.3) for key in keys]))


def test_a_key_becomes_the_signed_number_of_the_same_bits():
    assert [rng.as_tensor(key).item() for key in (0, 2**63 - 1, 2**63, 2**64 - 1)] == [
        0,
        2**63 - 1,
        -(2**63),
        -1,
    ]


def test_no_global_generator_is_read_or_moved():
    def draw():
        orders([1, 2], [9, 9], 0)
        mask = keep_mask(rng.as_tensor(1), 1, torch.Size([9]), 0.5)
        return mask.tolist(), rng.generator(3).random(4).tolist()

    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = draw()

    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(2)
    assert draw() == first
