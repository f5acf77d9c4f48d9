import hashlib

import pytest
import torch

import folkmoot as fm
from folkmoot.data.digest import digest_of

X = torch.arange(6.0).reshape(3, 2)
WIDE = torch.arange(1, 5.0).reshape(1, 4)


def test_the_digest_is_of_paths_dtypes_shapes_and_bytes():
    y = torch.tensor([3, 1])
    said = b"a/x torch.float32 (3, 2);" + X.numpy().tobytes() + b"y torch.int64 (2,);"

    expected = hashlib.sha256(said + y.numpy().tobytes()).hexdigest()

    assert digest_of({"a": {"x": X}, "y": y}) == expected


@pytest.mark.parametrize(
    "leaf",
    [
        X.t().contiguous().t(),
        X.repeat(1, 2)[:, :2],
        torch.arange(9.0)[3:].sub(3).reshape(3, 2),
        X.clone().requires_grad_(),
    ],
    ids=["column-major", "columns of more", "with an offset", "with a gradient"],
)
def test_equal_numbers_have_one_digest_however_they_lie(leaf):
    assert digest_of({"x": leaf}) == digest_of({"x": X})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.complex64])
def test_a_dimension_of_size_one_may_have_any_stride(dtype):
    strided = WIDE.to(dtype)[:, 1]

    assert strided.stride() == (4,)
    assert digest_of({"y": strided}) == digest_of({"y": strided.clone().view(-1).reshape(1)})
    assert digest_of({"y": strided}) == digest_of({"y": torch.tensor([2.0]).to(dtype)})
    assert digest_of({"y": WIDE.to(dtype).t()[:1]}) == digest_of({"y": WIDE[:, :1].to(dtype)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_scalars_and_empty_leaves_have_digests_of_their_own(dtype):
    leaves = [torch.ones((), dtype=dtype), torch.ones(1, dtype=dtype), torch.zeros(0, dtype=dtype)]

    assert len({digest_of({"x": leaf}) for leaf in [*leaves, torch.zeros(0, 3, dtype=dtype)]}) == 4


def test_conjugated_and_negated_views_are_hashed_as_the_numbers_they_show():
    z = torch.tensor([1 + 2j, 3 - 4j])

    assert digest_of({"z": z.conj()}) == digest_of({"z": torch.tensor([1 - 2j, 3 + 4j])})
    assert digest_of({"z": z.conj().imag}) == digest_of({"z": torch.tensor([-2.0, 4.0])})


def test_a_client_of_one_row_may_have_a_column_of_a_wider_table():
    x = torch.ones(1, 4)
    work = fm.local.sgd(fm.regressor(torch.nn.Linear(4, 1)), lr=0.1)

    result = fm.run(fm.fedavg(work), [(x, x[:, 0]), (x, x[:, 1])], rounds=1, seed=0, progress=False)

    assert len(result.history) == 1
