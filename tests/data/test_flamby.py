import pytest
import torch
from torch.utils.data import Dataset

from folkmoot.core.errors import DataError
from folkmoot.data import from_flamby


class FedHearts(Dataset):
    """Called like FLamby's classes, with labels as FLamby has them: float32, (1,)."""

    def __init__(self, center=0, train=True, pooled=False, debug=False):
        rows = (center + 2) if train else 1
        self.features = [torch.full((3,), float(center)) for _ in range(rows)]
        self.labels = torch.ones(rows, 1)

    def __len__(self):
        return len(self.features)

    def __getitem__(self, index):
        return self.features[index], self.labels[index]


def test_each_centre_is_a_client_with_tests():
    clients = from_flamby(FedHearts, 4)

    assert list(clients) == [0, 1, 2, 3]
    assert clients.name == "FedHearts"
    assert clients[3].train["x"].tolist() == [[3.0] * 3] * 5
    assert clients[3].train["y"].shape == (5, 1)
    assert clients[1].test["x"].shape == (1, 3)


def test_labels_are_converted_to_what_a_classifier_wants():
    clients = from_flamby(FedHearts, 2, convert=lambda e: {"x": e["x"], "y": e["y"][:, 0].long()})

    assert clients[0].train["y"].tolist() == [1, 1]
    assert clients[0].train["y"].dtype == torch.int64


def test_a_function_that_gives_no_dataset_is_refused_when_asked():
    clients = from_flamby(lambda center, train: [center], 2)

    with pytest.raises(DataError, match="Client 1, train examples: <lambda> gave a list of 1"):
        _ = clients[1].train


def test_one_centre_s_dataset_in_place_of_the_class_is_refused():
    with pytest.raises(DataError, match=r"dataset_class is .*FedHearts. Pass FLamby's class"):
        from_flamby(FedHearts(center=1), 4)
