"""EF21: clients send compressed differences, and the server adds them up.

Richtarik, Sokolov, Fatkhullin, "EF21: A New, Simpler, Theoretically Better, and Practically Faster
Error Feedback", NeurIPS 2021, arXiv:2106.05203, algorithm 2; with part of the clients, Fatkhullin
et al., "EF21 with Bells & Whistles", 2021, arXiv:2110.03294, algorithm 4 (EF21-PP).

Departures: what is compressed is the delta of local steps, not one gradient; one full-batch step of
local SGD is the paper's. All clients begin with g_i = 0.

State: beside the model, the server's g, the mean of what it knows of all clients; each client keeps
its own g_i. Cost: one exchange; the model travels down, and up what the codec packs. g is a mean
over all clients, so with small cohorts most of it is old: made for few clients that take part
often.
"""

import torch

from folkmoot.aggregators import uniform_mean
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, LocalWork, Round, Task
from folkmoot.core.codec import Codec
from folkmoot.core.tree import Tree
from folkmoot.local.composed import refuse_no_mean, refuse_no_optimizer
from folkmoot.local.feedback import differences
from folkmoot.local.parts import but
from folkmoot.optimizers import Optimizer, sgd, stepped


def ef21(
    work: LocalWork,
    codec: Codec,
    *,
    server: Optimizer | None = None,
    aggregator: Aggregator | None = None,
) -> Algorithm:
    """Build EF21.

    Args:
        work: What a client does, such as `local.sgd(...)`.
        codec: How differences travel: one that packs and is contractive, such as
            `fm.codecs.top_k(0.01)` or `sign()`.
        server: Optimizer that steps along g; None is `optimizers.sgd(1.0)`.
        aggregator: How differences are combined; None is `uniform_mean()`, the paper's.

    Returns:
        An algorithm of one exchange a round, whose clients keep a state.

    Raises:
        SettingsError: If a part is none, or the codec loses more than all of what it packs.
    """
    packing = differences(work, codec)
    server = sgd(1.0) if server is None else server
    aggregator = uniform_mean() if aggregator is None else aggregator
    refuse_no_optimizer(server)
    refuse_no_mean("ef21", aggregator)

    def init() -> Tree:
        model = work.init()
        return {
            **model,
            "shift": trees.zeros_like(model["params"]),
            "optimizer": server.init(model["params"]),
            "round": torch.ones((), dtype=torch.int64),
        }

    def round(state: Tree) -> Round:
        sent = but(but(state, "optimizer"), "shift")
        mean = yield Task(sent, packing, aggregator)
        # g is a mean over all clients, of whom only these have changed theirs.
        share = mean.count / mean.population
        shift = _added(state["shift"], share, mean.value["params"])
        params, optimizer = stepped(server, state, shift)
        return {
            "params": params,
            "buffers": trees.add(state["buffers"], mean.value["buffers"]),
            "counts": mean.counts,
            "shift": shift,
            "optimizer": optimizer,
            "round": state["round"] + 1,
        }

    return Algorithm("ef21", init, round, (packing,))


def _added(shift: Tree, share: float, differences: Tree) -> Tree:
    """Return g with the share of the mean difference; single numbers travel whole, not as one."""
    return {
        name: leaf + share * differences[name] if leaf.dim() else differences[name]
        for name, leaf in shift.items()
    }
