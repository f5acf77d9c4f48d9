"""APFL: how the own model and its share move, what a client is judged by, and what is refused."""

import pytest
import torch

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError

F64 = torch.float64


def own_of(snapshot, client=0):
    mine = snapshot.own[client]["twin"]
    return mine["params"]["w"].item(), mine["alpha"].item()


def test_the_own_model_moves_by_its_share_of_the_gradient(line, pull, one_round):
    work = fm.local.sgd(line(0.0, F64), lr=0.5, steps=2)

    snapshot, _ = one_round(fm.apfl(work, alpha=0.25), {0: pull(2.0, dtype=F64)})

    assert own_of(snapshot) == (-0.5, 0.25)  # 2 steps of 0.5 * 0.25 * 2
    assert snapshot.state["params"]["w"].item() == -2.0


def test_the_global_model_has_fedavg_s_bits(line, pull, one_round):
    work = fm.local.sgd(line(1.0), lr=0.3, epochs=2, momentum=0.5)
    clients = {0: pull(2.0, rows=3), 1: pull(-0.7, rows=2)}

    apfl, _ = one_round(fm.apfl(work, alpha=0.4, alpha_lr=0.1), clients)
    fedavg, _ = one_round(fm.fedavg(work), clients)

    assert trees.leaves(apfl.state) == trees.leaves(fedavg.state)


def test_a_share_moves_along_the_slope_of_the_loss_at_the_mixture(line, pull, one_round):
    work = fm.local.sgd(line(0.0, F64), lr=0.5, steps=2)

    snapshot, _ = one_round(fm.apfl(work, alpha=0.5, alpha_lr=0.125), {0: pull(2.0, dtype=F64)})

    # Step 1: v = w, so alpha stays; v goes to -0.5 and w to -1.
    # Step 2: <v - w, 2> = 1, so alpha goes to 0.5 - 0.125 * 1; v goes with the share before.
    assert own_of(snapshot) == (-1.0, 0.375)


@pytest.mark.parametrize(("gradient", "alpha_lr", "end"), [(2.0, 100.0, 0.0), (2.0, 0.0, 0.5)])
def test_a_share_stays_within_0_and_1(gradient, alpha_lr, end, line, pull, one_round):
    work = fm.local.sgd(line(0.0, F64), lr=0.5, steps=2)

    snapshot, _ = one_round(
        fm.apfl(work, alpha=0.5, alpha_lr=alpha_lr), {0: pull(gradient, dtype=F64)}
    )

    assert own_of(snapshot)[1] == end


def test_results_are_of_the_own_model_mixed_with_the_global_one(line, pull):
    work = fm.local.sgd(line(0.0), lr=0.5, steps=1)
    clients = fm.data.from_datasets([pull(2.0), pull(-6.0)], [pull(1.0), pull(1.0)])

    result = fm.run(
        fm.apfl(work, alpha=0.5),
        clients,
        rounds=1,
        engine=fm.engines.sequential(),
        progress=False,
    )

    # w = 0.5 * (-1 + 3) = 1; v = -0.5 and 1.5; mixtures (-0.5 + 1) / 2 and (1.5 + 1) / 2.
    assert result.model.w.item() == 1.0
    assert [result.clients[client].model.w.item() for client in (0, 1)] == [0.25, 1.25]
    assert [result.clients[client].metrics["loss"] for client in (0, 1)] == [0.25, 1.25]


def test_what_cannot_be_is_refused_before_any_client_is_asked(line, pull):
    work = fm.local.sgd(line(0.0), lr=0.1)

    with pytest.raises(SettingsError, match=r"alpha is a share, so at most 1, but is 1\.5"):
        fm.apfl(work, alpha=1.5)
    with pytest.raises(SettingsError, match="alpha must be a finite number of at least 0"):
        fm.apfl(work, alpha=-0.5)
    with pytest.raises(SettingsError, match="alpha_lr must be a finite number of at least 0"):
        fm.apfl(work, alpha_lr="fast")
    with pytest.raises(SettingsError, match="writes its own step"):
        fm.apfl(work._replace(correct=None))
    with pytest.raises(SettingsError, match=r"apfl\(\) gives each client .* have one already"):
        fm.apfl(fm.local.personal(work, "w"))
    with pytest.raises(SettingsError, match=r"personal\(\) gives each client .* have one already"):
        fm.run(fm.apfl(work), [pull(1.0)], rounds=1, personal="w", progress=False)
