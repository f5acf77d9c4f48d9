"""Where sets are found, and that each is what its README says."""

import functools

import numpy as np
import pytest
import torch

from folkmoot.core import tree as trees
from folkmoot.core.errors import DataError, SettingsError
from folkmoot.data import check_examples, heart_disease, load, tcga_brca
from folkmoot.data.load import SETS
from folkmoot.data.sets import beijing_air, files, shakespeare
from folkmoot.data.sets import heart_disease as hearts


@pytest.fixture(scope="module")
def loaded():
    """Each set is read once for all tests of this file."""
    return functools.cache(load)


def train_of(clients):
    return trees.map(lambda *parts: torch.cat(parts), *(clients[name].train for name in clients))


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_usable_clients_and_a_usable_test_set(loaded, name):
    clients, test = loaded(name)

    check_examples(test, None, "test")
    for client in [clients.ids[0], clients.ids[-1]]:
        rows = check_examples(clients[client].train, client, "train")
        assert rows == len(clients[client])
        assert clients[client].train["x"].shape[1:] == test["x"].shape[1:]
        assert clients[client].train["y"].dtype == test["y"].dtype
        if clients.has_tests:
            check_examples(clients[client].test, client, "test")
    assert clients.name == name
    assert sorted(clients.ids) == list(clients.ids)


# name: (clients, train examples, shape of the pooled test's x, shape of its y)
SHAPES = {
    "beijing_air": (12, 308_988, (102_753, 24, 11), (102_753, 1)),
    "fsdd": (6, 2_700, (300, 1, 48, 32), (300,)),
    "hapt": (30, 4_402, (1_007, 6, 128), (1_007,)),
    "heart_disease": (4, 486, (254, 13), (254,)),
    "mnist_writers": (539, 48_214, (10_000, 1, 28, 28), (10_000,)),
    "tcga_brca": (6, 866, (222, 39), (222, 2)),
    "turbofan": (100, 17_731, (100, 30, 17), (100, 1)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_numbers_and_shapes_are_those_of_the_readme(loaded, name):
    num_clients, train_examples, x_shape, y_shape = SHAPES[name]

    clients, test = loaded(name)

    assert len(clients) == num_clients
    assert clients.sizes().sum() == train_examples
    assert test["x"].shape == x_shape
    assert test["y"].shape == y_shape


@pytest.mark.parametrize(
    ("name", "classes"),
    [("fsdd", 10), ("hapt", 6), ("heart_disease", 2), ("mnist_writers", 10), ("shakespeare", 82)],
)
def test_classes_are_counted_and_labels_are_int64(loaded, name, classes):
    clients, test = loaded(name)

    assert clients.num_classes == classes
    assert test["y"].dtype == torch.int64
    assert int(test["y"].max()) < classes


def test_mnist_writers_are_those_of_the_official_train_digits(loaded):
    clients, test = loaded("mnist_writers")

    labels = torch.cat([clients[writer].train["y"] for writer in clients])
    held_out = torch.cat([clients[writer].test["y"] for writer in clients])

    assert len(held_out) == 11_786
    official = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(torch.cat([labels, held_out])).tolist() == official
    assert torch.bincount(test["y"]).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert all(0 <= writer <= 610 or 2100 <= writer <= 2599 for writer in clients)


def test_mnist_is_standardised_and_its_rows_are_those_of_the_file(loaded):
    clients, _ = loaded("mnist_writers")
    with np.load(files.find("mnist_writers", "mnist_writers.npz", None)) as arrays:
        first = np.flatnonzero((arrays["writer"] == 2154) & (arrays["held_out"] == 0))[0]
        picture, label = arrays["x"][first], arrays["y"][first]

    client = clients[2154]

    expected = (picture / 255 - 0.1307) / 0.3081
    assert client.train["x"][0, 0].numpy() == pytest.approx(expected, abs=1e-6)
    assert client.train["y"][0] == label
    everyone = torch.cat([clients[writer].train["x"] for writer in list(clients)[:100]])
    assert float(everyone.mean()) == pytest.approx(0, abs=0.05)
    assert float(everyone.std()) == pytest.approx(1, abs=0.05)


def test_the_hospitals_have_flamby_s_sizes_and_shares_of_ill_patients(loaded):
    clients, _ = loaded("heart_disease")

    sizes = {name: (len(clients[name]), len(clients[name].test["y"])) for name in clients}

    assert sizes == {
        "cleveland": (199, 104),
        "hungarian": (172, 89),
        "switzerland": (30, 16),
        "va": (85, 45),
    }
    # 46 % of all cleveland patients are ill.
    cleveland = torch.cat([clients["cleveland"].train["y"], clients["cleveland"].test["y"]])
    assert float(cleveland.float().mean()) == pytest.approx(0.46, abs=0.005)


def test_pooled_scaling_standardises_by_all_hospitals_train_data():
    clients, test = heart_disease(scale="pooled")
    raw, raw_test = heart_disease(scale=None)
    pooled = train_of(raw)["x"].double()

    expected = (raw_test["x"] - pooled.mean(0)) / pooled.std(0, correction=0)

    assert train_of(clients)["x"].mean(0).abs().max() < 1e-6
    assert test["x"].double() == pytest.approx(expected.numpy(), abs=1e-5)
    assert raw["va"].train["x"][:, hearts.INPUTS.index("age")].min() > 20
    assert torch.equal(raw_test["y"], test["y"])


def test_client_scaling_standardises_each_hospital_and_leaves_the_pooled_test_set_pooled():
    clients, test = heart_disease(scale="client")
    _, pooled_test = heart_disease(scale="pooled")

    assert all(clients[name].train["x"].mean(0).abs().max() < 1e-5 for name in clients)
    deviations = clients["switzerland"].train["x"].std(0, correction=0)
    # All chol values of switzerland are 0: that column is only centred.
    assert deviations[hearts.INPUTS.index("chol")] == 0
    assert deviations[hearts.INPUTS.index("age")] == pytest.approx(1, abs=1e-5)
    assert torch.equal(test["x"], pooled_test["x"])


def test_pooled_logistic_regression_reaches_the_published_accuracy(loaded):
    clients, test = loaded("heart_disease")
    train = train_of(clients)
    ones = torch.ones(len(train["x"]), 1)
    x, y = torch.cat([train["x"], ones], 1).double(), train["y"].double()
    penalty = torch.diag(torch.tensor([1.0] * 13 + [0.0], dtype=torch.float64))
    weights = torch.zeros(14, dtype=torch.float64)

    # Newton's method on the log loss with penalty |w|^2 / 2, the intercept free.
    for _ in range(10):
        p = torch.sigmoid(x @ weights)
        gradient = x.T @ (p - y) + penalty @ weights
        hessian = x.T @ (x * (p * (1 - p))[:, None]) + penalty
        weights -= torch.linalg.solve(hessian, gradient)
    ill = test["x"].double() @ weights[:13] + weights[13] > 0

    assert gradient.norm() < 1e-6
    assert float((ill == (test["y"] == 1)).float().mean()) == pytest.approx(0.795, abs=0.001)


@pytest.mark.parametrize("read", [heart_disease, tcga_brca])
def test_a_scale_that_is_none_is_refused(read):
    with pytest.raises(SettingsError, match=r'scale must be "pooled".* or None, but is \'site\''):
        read(scale="site")


def test_tcga_has_the_deaths_of_the_readme_and_time_before_event(loaded):
    clients, test = loaded("tcga_brca")

    deaths = {
        name: int(clients[name].train["y"][:, 1].sum() + clients[name].test["y"][:, 1].sum())
        for name in clients
    }

    assert deaths == {
        "Northeast": 59, "South": 39, "West": 22, "Midwest": 19, "Europe": 9, "Canada": 3,
    }  # fmt: skip
    assert test["y"][:, 0].max() > 1000
    raw, _ = tcga_brca(scale=None)
    assert 40 < float(raw["South"].train["x"][:, 0].mean()) < 70
    assert train_of(clients)["x"][:, 0].mean().abs() < 1e-6


def test_hapt_has_the_class_counts_of_the_readme_in_physical_units(loaded):
    clients, test = loaded("hapt")

    labels = torch.cat([train_of(clients)["y"], test["y"]])

    assert torch.bincount(labels).tolist() == [893, 809, 747, 928, 1019, 1013]
    # Lying or upright, gravity is about 1 g.
    size = train_of(clients)["x"][:, :3].mean(2).norm(dim=1)
    assert float(size.mean()) == pytest.approx(1.0, abs=0.05)


def test_fsdd_is_balanced_over_speakers_and_digits(loaded):
    clients, _ = loaded("fsdd")

    assert list(clients) == ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
    for speaker in clients:
        assert torch.bincount(clients[speaker].train["y"]).tolist() == [45] * 10
        assert torch.bincount(clients[speaker].test["y"]).tolist() == [5] * 10
    pictures = train_of(clients)["x"]
    assert float(pictures.mean()) == pytest.approx(0, abs=0.01)
    assert float(pictures.std()) == pytest.approx(1, abs=0.01)


def test_shakespeare_s_targets_are_the_text_one_character_on(loaded):
    clients, _ = loaded("shakespeare")

    train = clients[0].train
    text = "".join(shakespeare.VOCABULARY[code] for code in train["x"][0])

    # Bertram's first speech.
    assert text.startswith("And I in going, madam, weep o'er my father's death anew;\nbut I must")
    assert torch.equal(train["x"][:, 1:], train["y"][:, :-1])
    # Window 1 begins 80 characters after window 0.
    assert torch.equal(train["y"][0, -1], train["x"][1, 0])
    assert len(clients) == 978
    assert len(set(shakespeare.VOCABULARY)) == 82


def test_a_short_text_gets_line_feeds_before_it_and_a_long_one_a_full_last_window():
    short = shakespeare._windows(["To be"])
    long = shakespeare._windows(["a" * 100, "b" * 20])

    assert short.shape == (1, 81)
    assert short[0].tolist() == [0] * 76 + shakespeare.encode("To be").tolist()
    # 121 characters: windows 0..80 and, moved back to be full, 40..120.
    assert long.shape == (2, 81)
    assert long[1].tolist() == shakespeare.encode("a" * 60 + "\n" + "b" * 20).tolist()


def test_beijing_s_targets_follow_their_windows_and_gaps_take_the_last_value(loaded):
    clients, test = loaded("beijing_air")
    series = np.full((40, 11), np.nan, dtype=np.float32)
    series[::2] = np.arange(0, 40, 2)[:, None]

    windows = beijing_air._windows(beijing_air._fill(series), series, np.array([24, 26]))

    # Hours 0 .. 23: odd hours are missing and take the hour before.
    assert windows["x"][0, :, 0].tolist() == [2 * (hour // 2) for hour in range(24)]
    assert windows["y"].tolist() == [[24.0], [26.0]]
    assert beijing_air._target_hours(series).tolist() == list(range(24, 40, 2))
    dongsi = clients["Dongsi"].test
    # Where two hours in a row are targets, the second window ends with the first one's target.
    follows = torch.isclose(dongsi["x"][1:, -1, 0], dongsi["y"][:-1, 0])
    assert follows.float().mean() > 0.97
    assert test["x"].is_contiguous()


def test_the_last_value_foretells_beijing_s_next_hour_as_published(loaded):
    _, test = loaded("beijing_air")

    error = (test["x"][:, -1, 0] - test["y"][:, 0]) * beijing_air.PM25_DEVIATION

    assert float(error.square().mean().sqrt()) == pytest.approx(19.7, abs=0.2)
    assert float(error.abs().mean()) == pytest.approx(10.3, abs=0.1)


def test_beijing_s_constants_bring_back_micrograms(loaded):
    clients, _ = loaded("beijing_air")
    with np.load(files.find("beijing_air", "beijing_air.npz", None)) as arrays:
        raw = arrays["x"][0, :, 0]
        train_hours = np.flatnonzero((arrays["split"] == 0) & (raw != -32768))
        measured = raw[train_hours[train_hours >= 24]] * 0.1

    y = clients["Aotizhongxin"].train["y"][:, 0].numpy()

    back = y * beijing_air.PM25_DEVIATION + beijing_air.PM25_MEAN
    np.testing.assert_allclose(back, measured, atol=0.01)


def test_turbofan_s_last_train_window_has_no_life_left_and_life_is_capped(loaded):
    clients, test = loaded("turbofan")

    first = clients[0].train

    # Engine 1 of FD001 lives 192 cycles, so 163 windows; 192 - 30 = 162 cycles are left at first.
    assert len(clients[0]) == 163
    assert first["y"][-1].item() == 0
    assert first["y"][0].item() == 1
    assert first["y"][-126:, 0].mul(125).round().tolist() == list(range(125, -1, -1))
    # The published lives of the first three test engines are 112, 98 and 69 cycles.
    assert test["y"][:3, 0].mul(125).round().tolist() == [112, 98, 69]
    assert torch.equal(first["x"][1, :-1], first["x"][0, 1:])


def test_an_unknown_name_is_refused_with_a_guess():
    with pytest.raises(
        DataError, match=r"no data set 'mnist_writer'.* Did you mean 'mnist_writers'"
    ):
        load("mnist_writer")
    with pytest.raises(DataError, match="from_frame or from_folder"):
        load(7)


def test_the_environment_comes_before_the_checkout(tmp_path, monkeypatch):
    source = files.find("heart_disease", "heart_disease.csv", None)
    (tmp_path / "heart_disease.csv").write_bytes(source.read_bytes())
    monkeypatch.setenv("FOLKMOOT_DATA", str(tmp_path))

    assert files.find("heart_disease", "heart_disease.csv", None).parent == tmp_path
    # What is not there is looked for in the next place.
    assert files.find("hapt", "hapt.npz", None) == source.parents[1] / "hapt" / "hapt.npz"


def test_a_folder_that_is_named_is_the_only_place(tmp_path):
    with pytest.raises(DataError, match=r"hapt.npz was not found. Looked in: .*pass folder="):
        load("hapt", tmp_path)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("heart_disease", "all 4 clients"),
        ("tcga_brca", "all 6 clients"),
        ("mnist_writers", "100 clients of 539"),
    ],
)
def test_without_a_checkout_samples_are_read_and_announced_in_one_line(
    monkeypatch, capsys, name, line
):
    monkeypatch.delenv("FOLKMOOT_DATA", raising=False)
    monkeypatch.setattr(files, "_places", lambda: [files.SAMPLES])

    clients, test = load(name)

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"folkmoot: {name} is read from the samples in the package: {line}\n"
    assert len(clients) == int(line.split()[0 if "of" in line else 1])
    assert len(test["y"]) > 0


def test_a_checkout_is_read_in_silence(loaded, capsys):
    load("heart_disease")

    assert capsys.readouterr().err == ""


def test_equal_sets_have_equal_fingerprints(loaded):
    again, _ = load("heart_disease")

    assert again.fingerprint() == loaded("heart_disease")[0].fingerprint()
    assert again.fingerprint() != heart_disease(scale="client")[0].fingerprint()
