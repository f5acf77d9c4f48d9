"""Cyclical weight transfer: one model goes from client to client, and is trained at each in turn.

Chang et al., "Distributed deep learning networks among institutions for medical imaging", JAMIA
2018, with the same heuristics in arXiv:1709.05929. It needs no server that computes, only someone
to carry the model; remote workers do it by hand (docs/remote.md).

Who is next is the sampling's matter: `fm.run(fm.cyclic(work), clients, rounds=...,
sampling=fm.sampling.separated(1, rounds=len(clients)))` asks one client a round, in the order of
their ids, again and again. Of several that are asked at once the mean is taken, as in FedAvg.

Departures: the paper goes on when a validation loss stops falling, here epochs and rounds are
given; "high frequency", which it found best, is few epochs and many rounds. The server adds what a
client's model has changed, which may differ from that model by rounding.

What is learnt last weighs most, and is forgotten first: where clients hold unlike data, averaging
does better. State, exchange and cost are FedAvg's; rounds cannot run beside each other.
"""

from folkmoot.algorithms.fedavg import fedavg
from folkmoot.core.algorithm import Algorithm, LocalWork
from folkmoot.local.composed import refuse_no_work


def cyclic(work: LocalWork) -> Algorithm:
    """Build cyclical weight transfer.

    Args:
        work: What a client does with the model that comes to it, such as `local.sgd(...)`.

    Returns:
        An algorithm of one exchange a round, made for a cohort of one.

    Raises:
        SettingsError: If `work` is none.
    """
    refuse_no_work("cyclic", work)
    return fedavg(work)._replace(name="cyclic")
