"""What a private run says must hold: nothing else is released, and noise is made for what comes."""

import importlib
import math
import stat
import warnings

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.errors import CheckpointError
from folkmoot.privacy import Gaussian, LocalGaussian

# By its name alone the package would give the function.
noise = importlib.import_module("folkmoot.codecs.noise")
GIVEN = {"noise_multiplier": 1.0, "delta": 1e-3}
QUIET = {"progress": False, "engine": fm.engines.sequential()}


def work(model=None):
    torch.manual_seed(0)
    return fm.local.sgd(fm.classifier(model or nn.Linear(3, 2)), lr=0.1, batch_size=5)


def held(number=6, rows=5):
    draw = torch.Generator().manual_seed(0)
    return {
        client: (
            torch.randn(rows, 3, generator=draw),
            torch.randint(0, 2, (rows,), generator=draw),
        )
        for client in range(number)
    }


def run(algorithm=None, clients=None, rounds=2, promise=GIVEN, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The noise of a round")
        return fm.run(
            algorithm or fm.fedavg(work()),
            clients or held(),
            rounds=rounds,
            privacy=fm.DP(**promise),
            **(QUIET | options),
        )


def test_nothing_that_is_saved_or_shown_has_a_digest_of_the_clients_data(tmp_path):
    clients = held()
    bare = fm.run(fm.fedavg(work()), clients, rounds=1, **QUIET)
    digest = bare.settings["data_fingerprint"]
    result = run(clients=clients, save=tmp_path)

    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert digest[:12].encode() not in written
    assert digest[:12] not in str(result) and "data_fingerprint" not in result.settings


def test_a_run_still_does_not_go_on_with_other_data(tmp_path):
    def dies(event):
        if event.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=tmp_path, callbacks=[dies])
    with pytest.raises(fm.SettingsError, match="data_fingerprint was"):
        run(clients=held(rows=6), checkpoint=tmp_path, resume=True)


def test_what_undoes_the_privacy_is_for_the_owner_of_the_folder_alone(tmp_path):
    run(checkpoint=tmp_path)

    assert stat.S_IMODE((tmp_path / "checkpoints").stat().st_mode) == 0o700


@pytest.mark.parametrize("lost", ["private.json", "ledger-*.jsonl"])
def test_a_run_does_not_go_on_without_what_it_has_paid(tmp_path, lost):
    def dies(event):
        if event.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(rounds=4, checkpoint=tmp_path, callbacks=[dies])
    (found,) = (tmp_path / "checkpoints").glob(lost)
    found.unlink()

    with pytest.raises(CheckpointError, match="not what they have cost"):
        run(rounds=4, checkpoint=tmp_path, resume=True)


def test_banded_noise_does_not_go_on_to_more_rounds_than_it_was_made_for(tmp_path):
    def dies(event):
        if event.round == 2:
            raise KeyboardInterrupt

    bands = GIVEN | {"mechanism": fm.privacy.Banded(bands=2)}
    with pytest.raises(KeyboardInterrupt):
        run(rounds=4, promise=bands, checkpoint=tmp_path, callbacks=[dies])
    with pytest.raises(fm.SettingsError, match="begun for another number of rounds"):
        run(rounds=8, promise=bands, checkpoint=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("options", "promise", "differ"),
    [
        ({}, {}, "add-or-remove-one"),
        ({"cohort": 3}, {}, "add-or-remove-one"),
        ({"sampling": fm.sampling.uniform(3)}, {}, "replace-one"),
        ({"sampling": fm.sampling.weighted(1, dict.fromkeys(range(6), 1.0))}, {}, "zero-out-one"),
        ({"sampling": lambda clients, round, rng: clients[:2]}, {}, "zero-out-one"),
        ({"sampling": fm.sampling.fixed([0, 1])}, {}, "zero-out-one"),
        ({}, {"mechanism": fm.privacy.Tree(restart=2)}, "zero-out-one"),
        ({}, {"trust": "local"}, "replace-one"),
    ],
)
def test_neighbours_are_those_of_the_lot(options, promise, differ):
    assert run(promise=GIVEN | promise, **options).privacy.adjacency == differ


def test_noise_at_the_clients_costs_what_noise_of_half_as_much_costs_in_a_sum():
    found = run(promise=GIVEN | {"trust": "local", "noise_multiplier": 8.0}).privacy

    assert found.charges == (({"event": "LocalGaussian", "noise_multiplier": 8.0}, 2),)
    assert found.epsilon == fm.privacy.epsilon([(LocalGaussian(8.0), 2)], 1e-3)
    assert found.epsilon == pytest.approx(fm.privacy.epsilon([(Gaussian(4.0), 2)], 1e-3), rel=1e-9)


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.rest = nn.Parameter(torch.zeros(500))

    def forward(self, x):
        return self.layer(x) + 0 * self.rest.sum()


def asking(algorithm, *tasks):
    """An algorithm whose rounds ask in turn for lists of (work, how many numbers it sends)."""

    def sends(work, numbers):
        def finish(sent, carry, seen):
            return fm.Update({"x": torch.full((numbers,), numbers**-0.5)}, 1.0), {}

        return work._replace(finish=finish)

    made = [[sends(algorithm.works[0], numbers) for numbers in asked] for asked in tasks]

    def round(state):
        sent = {part: state[part] for part in ("params", "buffers", "counts", "round")}
        for one in made[(int(state["round"]) - 1) % len(made)]:
            yield fm.Task(sent, one, fm.aggregators.uniform_mean())
        return {**state, "round": state["round"] + 1}

    return algorithm._replace(round=round)


@pytest.mark.parametrize(
    "more", [{}, {"clip": fm.codecs.clip_by_layer(1.0)}], ids=["one bound", "by layer"]
)
def test_an_exchange_that_sends_other_numbers_than_before_is_refused(more):
    algorithm = asking(fm.fedavg(work(Wide())), [3], [500])

    with pytest.raises(fm.SettingsError, match=r"sends 500 numbers.*laid out for 3"):
        run(algorithm, promise=GIVEN | more)


def test_correlated_noise_needs_every_exchange_in_every_round():
    algorithm = asking(fm.fedavg(work()), [3, 3], [3])
    tree = GIVEN | {"mechanism": fm.privacy.Tree(restart=4)}

    with pytest.raises(fm.SettingsError, match="1 of the first round's 2 exchanges"):
        run(algorithm, held(8), rounds=8, promise=tree)
    assert run(algorithm, held(8), rounds=8).rounds == 8


class Breaks(nn.Linear):
    def forward(self, x):
        return super().forward(x) * torch.where(x.abs().max() > 50, torch.nan, 1.0)


def test_a_client_whose_update_is_not_finite_does_not_end_a_private_run_by_the_lot():
    clients = held()
    clients[3] = (torch.full((5, 3), 1e30), clients[3][1])

    alone = fm.sampling.fixed([3])
    result = run(fm.fedavg(work(Breaks(3, 2))), clients, rounds=4, sampling=alone)

    assert all(row["left_out"] and not row["answered"] for row in result.history)
    assert result.rounds == 4


def test_a_client_that_trusts_nobody_does_not_say_that_its_update_is_not_finite():
    clients = held()
    clients[3] = (torch.full((5, 3), 1e30), clients[3][1])

    result = run(fm.fedavg(work(Breaks(3, 2))), clients, promise=GIVEN | {"trust": "local"})

    assert [(row["answered"], row["left_out"]) for row in result.history] == [(6, [])] * 2


def stage(factor):
    return fm.Codec(
        "stage",
        lambda bounds, layout: ({}, bounds),
        lambda state, vector, key: vector * factor,
        lambda state, total, key: (total / factor, state),
    )


@pytest.mark.parametrize("factor", [1000.0, 0.5, math.inf])
def test_a_stage_of_ones_own_behind_the_clip_is_held_to_the_bound_that_it_states(
    factor, monkeypatch
):
    rounded, seen = noise.rounded, []

    def watched(state, vector):
        found = rounded(state, vector)
        seen.append((float(found.double().norm()), float(state["reach"])))
        return found

    monkeypatch.setattr(noise, "rounded", watched)
    rule = fm.aggregators.uniform_mean(stage(factor))
    run(fm.fedavg(work(), aggregator=rule), promise=GIVEN | {"clip": 1e-3})

    assert seen and all(length <= reach for length, reach in seen)
    longest, reach = max(seen)
    assert factor == math.inf or longest == pytest.approx(min(factor, 1.0) * reach, rel=0.01)
