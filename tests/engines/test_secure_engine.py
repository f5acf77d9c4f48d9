"""The engine of secure sums: nothing but sums is seen, and the protocol gives their bits."""

import numpy as np
import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.core.engine import Cohort, Setting
from folkmoot.core.errors import QuorumError, VisibilityError
from folkmoot.engines.secure import secure_sums
from folkmoot.engines.tasks import example
from folkmoot.train.loop import begun
from folkmoot.train.secure import secured


class Held:
    def __init__(self, x):
        self.train, self.test = {"x": x, "y": torch.zeros(len(x), dtype=torch.int64)}, None


class Breaks(nn.Linear):
    def forward(self, x):
        return super().forward(x) * torch.where(x.abs().max() > 50, torch.nan, 1.0)


def clients(number=9, bad=()):
    draw = torch.Generator().manual_seed(0)
    found = {c: Held(torch.randn(4 + c, 3, generator=draw)) for c in range(number)}
    for client in bad:
        found[client] = Held(torch.full((4, 3), 100.0))
    return found


def asked(sums, held, threat="honest"):
    """Ask everyone once, and return what came back with the task."""
    torch.manual_seed(0)
    work = fm.local.sgd(fm.classifier(Breaks(3, 2)), lr=0.5, batch_size=4)
    algorithm = secured(sums, fm.fedavg(work), len(held), len(held), private=False).algorithm
    task = next(begun(algorithm, algorithm.init()))
    state = task.aggregator.init(example(task), len(held))
    cohort = Cohort(1, tuple(held), len(held), len(held))
    engine = secure_sums(fm.engines.sequential(), sums)(Setting(held, 0))
    return engine.ask(task, state, cohort, {}), engine, task, cohort


@pytest.mark.parametrize("threat", ["honest", "active"])
@pytest.mark.parametrize("bad", [(), (2,), (0, 8)], ids=str)
def test_the_protocol_gives_the_bits_of_the_plain_modular_sum(threat, bad):
    held = clients(12, bad)
    plain, *_ = asked(fm.Secure(threat=threat, dropped=0.2), held)
    played, *_ = asked(fm.Secure(threat=threat, dropped=0.2, protocol=True), held)

    assert played.total.count == plain.total.count == 12 - len(bad)
    for name, leaf in plain.total.value.items():
        assert torch.equal(leaf, played.total.value[name]) and leaf.any()
    assert played.uploads == plain.uploads
    assert sorted(left.client for left in played.left_out) == list(bad)


@pytest.mark.parametrize("protocol", [False, True], ids=["modular", "protocol"])
def test_below_the_quorum_nothing_is_opened(protocol):
    with pytest.raises(QuorumError, match=r"nothing.* opened"):
        asked(fm.Secure(protocol=protocol), clients(9, bad=(1, 2, 3, 4)))


def test_updates_by_themselves_are_not_to_be_had():
    _, engine, task, cohort = asked(fm.Secure(), clients())

    with pytest.raises(VisibilityError, match="a secure sum hides"):
        next(iter(engine.stream(task, cohort, {})))


def test_what_the_server_saw_is_masked_and_recorded():
    held = clients(5)
    with fm.secagg.transcript() as records:
        played, *_ = asked(fm.Secure(protocol=True), held)
    (record,) = records

    masked = [one.message for one in record.seen if one.phase == "mask"]
    assert len(masked) == 5 and record.terms.clients == tuple(held)
    length = len(played.total.value["vector"])
    for message in masked:
        vector = message.vectors[-1] if len(message.vectors[-1]) == length else message.vectors[0]
        # A sum of small numbers has small numbers; a masked vector is spread over the whole field.
        assert (vector.astype(np.uint32).view(np.int32).astype(float).std()) > 2**28


def test_nobody_outside_the_context_is_recorded():
    with fm.secagg.transcript() as records:
        pass
    asked(fm.Secure(protocol=True), clients(4))

    assert records == []


def test_an_engine_that_gives_way_is_named_as_what_it_became():
    class Gives:
        name, exact, streams = "quick", False, 1

        def __init__(self, setting):
            self.plain = fm.engines.sequential()(setting)

        def ask(self, *asked):
            self.name = "slow"
            return self.plain.ask(*asked)

        def close(self):
            self.plain.close()

    held = clients(5)
    _, _, task, cohort = asked(fm.Secure(), held)
    engine = secure_sums(Gives, fm.Secure())(Setting(held, 0))
    engine.ask(task, task.aggregator.init(example(task), 5), cohort, {})

    assert engine.name == "slow"
