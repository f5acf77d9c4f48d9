"""No cell of the table of composition gives away more than it states."""

import dataclasses

import pytest
from laws.cards import CARDS, build
from laws.grid import clients, objective
from laws.table import COLUMNS, trainable

import folkmoot as fm
from folkmoot.local.personal import personalize

ROUNDS = 2
NOISE = 4.0
"""Of the table's budgets a tighter form: twenty numbers, and so twenty canaries, refute no epsilon
above 2."""

CELLS = [
    cell
    for cell in trainable()
    if cell.privacy not in ("none", "larger") and cell.engine == "sequential"
]


def audited(cell):
    """Audit a cell: its algorithm, personal leaves, server, rule, codecs and budget."""
    work = fm.local.sgd(objective("all others"), lr=0.1, epochs=1, batch_size=3)
    more = {}
    if cell.rule != "its own":
        more["aggregator"] = COLUMNS["rule"][cell.rule](*COLUMNS["codec"][cell.codec])
    if COLUMNS["server"][cell.server] is not None:
        more["server"] = COLUMNS["server"][cell.server]
    algorithm = build(cell.algorithm, work, **more)
    keep = COLUMNS["personal"][cell.personal]
    algorithm = algorithm if keep is None else personalize(algorithm, keep)
    budget = dataclasses.replace(COLUMNS["privacy"][cell.privacy], noise_multiplier=NOISE)
    held = {client: one.train for client, one in clients().items()}
    sums = COLUMNS["secure"][cell.secure] or False
    return fm.audit.audit(algorithm, held, rounds=ROUNDS, privacy=budget, secure=sums)


def holds(cell):
    report = audited(cell)
    assert report.holds, f"{cell}\n{report}"


FEW = {
    (cell.algorithm, cell.privacy, cell.secure): cell
    for cell in CELLS
    if cell.algorithm in ("fedavg", "mime", "scaffold") and cell.server == "its own"
}


@pytest.mark.parametrize("cell", FEW.values(), ids="-".join)
def test_a_few_algorithms_give_away_no_more_than_they_state(cell):
    holds(cell)


@pytest.mark.nightly
@pytest.mark.parametrize("algorithm", CARDS)
def test_no_cell_gives_away_more_than_it_states(algorithm):
    for cell in CELLS:
        if cell.algorithm == algorithm:
            holds(cell)
