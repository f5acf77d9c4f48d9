"""FedNova's claim (NeurIPS 2020, theorem 1): unequal local work no longer moves the fixed point.

With steps so small that a local path is straight, FedAvg minimises the sum of p_i tau_i f_i and
FedNova that of p_i f_i. Larger steps curve the path, and the closed forms below are exact for them.
"""

import pytest
from papers.quadratics import client, quadratic, shrinks, trained, weighted

import folkmoot as fm

# In batches of one row a client does as many steps as it has rows.
ROWS, A, B = (1, 4, 10), (1.0, 1.0, 1.0), (-3.0, 0.0, 2.0)
CLIENTS = [client(a, b, rows) for a, b, rows in zip(A, B, ROWS, strict=True)]
UNIFORM = fm.aggregators.uniform_mean


def work(lr, **options):
    return fm.local.sgd(quadratic(), lr=lr, batch_size=1, **options)


def test_fedavg_is_drawn_to_those_who_work_more_and_fednova_divides_that_out():
    lr = 0.1
    moves = [shrinks(lr, a, steps) for a, steps in zip(A, ROWS, strict=True)]
    biased = weighted(moves, B)
    right = weighted([move / steps for move, steps in zip(moves, ROWS, strict=True)], B)

    avg = trained(fm.fedavg(work(lr), aggregator=UNIFORM()), CLIENTS, 40)
    nova = trained(fm.fednova(work(lr), aggregator=UNIFORM()), CLIENTS, 40)

    assert avg == pytest.approx(biased, abs=1e-5)
    assert nova == pytest.approx(right, abs=1e-5)


def test_with_small_steps_the_points_are_those_of_the_two_objectives():
    lr = 0.002
    work_more = weighted(ROWS, B)  # 17 / 15
    fair = weighted(A, B)  # -1 / 3

    # A large server step brings both there in few rounds; it does not move a fixed point.
    server = fm.optimizers.sgd(20.0)
    avg = trained(fm.fedavg(work(lr), server=server, aggregator=UNIFORM()), CLIENTS, 30)
    nova = trained(fm.fednova(work(lr), server=server, aggregator=UNIFORM()), CLIENTS, 30)

    assert avg == pytest.approx(work_more, abs=0.03)
    assert nova == pytest.approx(fair, abs=0.03)


def test_examples_weigh_in_fednova_as_in_the_objective_and_only_once():
    lr = 0.1
    per_step = [shrinks(lr, a, steps) / steps for a, steps in zip(A, ROWS, strict=True)]
    right = weighted([rows * move for rows, move in zip(ROWS, per_step, strict=True)], B)

    assert trained(fm.fednova(work(lr)), CLIENTS, 40) == pytest.approx(right, abs=1e-6)


def test_momentum_is_divided_out_by_its_own_norm():
    # The first steps of momentum are short, so tau_i is the wrong divisor and ||a_i||_1 is right.
    lr, momentum = 0.002, 0.9
    server = fm.optimizers.sgd(5.0)
    local = work(lr, momentum=momentum)

    nova = trained(fm.fednova(local, server=server, aggregator=UNIFORM()), CLIENTS, 40)

    def l1(steps):
        return sum((1 - momentum**k) / (1 - momentum) for k in range(1, steps + 1))

    by_steps = weighted([l1(steps) / steps for steps in ROWS], B)
    assert nova == pytest.approx(weighted(A, B), abs=0.1)
    assert abs(by_steps - weighted(A, B)) > 1
