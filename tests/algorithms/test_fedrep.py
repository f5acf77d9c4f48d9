"""FedRep: what moves in which turn, by hand; resting leaves do not move at all."""

import pytest
import torch
from torch import nn, tensor

import folkmoot as fm

LR = 0.125


class Two(nn.Module):
    """Give x * (head + body): where that is the loss, both gradients are the mean of x."""

    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Parameter(tensor([0.0])), nn.Parameter(tensor([0.0]))

    def forward(self, x):
        return x * (self.head + self.body)


OBJECTIVE = fm.objective(Two(), lambda outputs, _: outputs.sum(1), target=None)
ONES = {"x": torch.ones(2, 1)}


def work_of(optimizer=None, **options):
    given = {"batch_size": None, **options}
    return fm.local.descent(OBJECTIVE, optimizer or fm.optimizers.sgd(LR), **given)


def moved(algorithm, one_round, clients=None):
    """Return how far a round has moved the first client's head, and the body, in steps of LR."""
    snapshot, report = one_round(algorithm, clients or {0: ONES})
    assert report.left_out == []
    head = snapshot.own[0]["kept"]["params"]["head"]
    return -head.item() / LR, -snapshot.state["params"]["body"].item() / LR


@pytest.mark.parametrize(
    ("plan", "head", "expected"),
    [
        ({"epochs": 1}, 2, (2, 1)),
        ({"epochs": 3}, 1, (1, 3)),
        ({"epochs": 2, "batch_size": 1}, 3, (6, 4)),
        ({"epochs": 0}, 2, (2, 0)),
        ({"steps": 3}, 2, (2, 3)),
        ({"steps": 3, "batch_size": 1}, 1, (1, 3)),
        ({"steps": 0}, 2, (2, 0)),
    ],
    ids=str,
)
def test_the_head_moves_first_and_then_the_body(plan, head, expected, one_round):
    algorithm = fm.fedrep(work_of(**plan), personal="head", head=head)

    assert moved(algorithm, one_round) == expected


def test_the_head_has_ten_epochs_where_nobody_says(one_round):
    assert moved(fm.fedrep(work_of(), personal="head"), one_round) == (10, 1)


def test_momentum_begins_anew_for_the_body(one_round):
    work = work_of(fm.optimizers.sgd(LR, momentum=0.5), epochs=2)

    # Moves of 1 and 1.5, twice.
    assert moved(fm.fedrep(work, personal="head", head=2), one_round) == (2.5, 2.5)


def test_adam_counts_its_steps_in_each_turn(one_round):
    work = work_of(fm.optimizers.adam(LR, bias_correction=True), epochs=1)

    # With bias correction every step along a gradient that stays 1 is one of LR.
    found = moved(fm.fedrep(work, personal="head", head=3), one_round)

    assert found == pytest.approx((3, 1), rel=2e-3)


def test_decay_does_not_move_a_leaf_that_rests(one_round):
    work = work_of(fm.optimizers.sgd(LR, weight_decay=2.0), epochs=1)

    # The head: 1, and then 1 - 2 LR; the body: 1.
    assert moved(fm.fedrep(work, personal="head", head=2), one_round) == (1.75, 1)


@pytest.mark.parametrize("plan", [{"epochs": 1}, {"steps": 1}], ids=str)
def test_a_gradient_is_clipped_by_the_leaves_whose_turn_it_is(plan, one_round):
    work = work_of(clip_gradient=1.0, **plan)

    # Together (1, 1) would be too long by sqrt(2).
    assert moved(fm.fedrep(work, personal="head", head=1), one_round) == (1, 1)


def test_a_pull_acts_on_the_body_in_its_turn(one_round):
    work = fm.local.proximal(work_of(epochs=2), 4.0)

    # The body: 1, and then 1 - 4 LR; the head is not pulled.
    assert moved(fm.fedrep(work, personal="head", head=2), one_round) == (2, 1.5)


def test_clients_count_alike_whatever_their_examples(one_round):
    many = {"x": torch.full((6, 1), 3.0)}

    found = moved(fm.fedrep(work_of(), personal="head", head=1), one_round, {0: ONES, 1: many})

    assert found == (1, 2)  # (1 + 3) / 2


@pytest.mark.parametrize("plan", [{"epochs": 2}, {"steps": 4}], ids=str)
def test_clients_of_other_lengths_take_their_turns_side_by_side(plan):
    clients = {rows: {"x": torch.ones(rows, 1)} for rows in (1, 2, 5)}
    work = work_of(fm.optimizers.sgd(LR, momentum=0.5), batch_size=1, **plan)
    algorithm = fm.fedrep(work, personal="head", head=2)

    def learnt(engine):
        result = fm.run(algorithm, clients, rounds=2, engine=engine, progress=False)
        return {one: found.model.state_dict() for one, found in result.clients.items()}

    there, back = learnt(fm.engines.sequential()), learnt(fm.engines.vectorized())
    for one, state in there.items():
        torch.testing.assert_close(back[one], state)


@pytest.mark.parametrize("head", [0, -1, 1.5, True, None, "ten"])
def test_a_head_s_turn_is_a_whole_number(head):
    with pytest.raises(fm.SettingsError, match="head must be a whole number of epochs or steps"):
        fm.fedrep(work_of(), personal="head", head=head)


def test_work_that_takes_no_turns_is_refused():
    with pytest.raises(fm.SettingsError, match=r"fedrep\(\) needs local work"):
        fm.fedrep(Two(), personal="head")
    with pytest.raises(fm.SettingsError, match="writes its own step"):
        fm.fedrep(work_of()._replace(correct=None), personal="head")
    with pytest.raises(fm.SettingsError, match="have one already"):
        fm.fedrep(fm.local.personal(work_of(), "body"), personal="head")
    with pytest.raises(fm.SettingsError, match="meant by 'tail'"):
        fm.fedrep(work_of(), personal="tail")
