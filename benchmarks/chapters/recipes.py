"""Recipes of compression: what stands between an update and its bytes."""

from typing import Any, NamedTuple

import folkmoot as fm

C = fm.codecs


class Recipe(NamedTuple):
    """A row: how updates travel."""

    name: str
    up: Any = None
    """For `compress=`."""
    memory: Any = None
    """For `fm.local.feedback`."""
    ef21: Any = None
    """For `fm.ef21`."""
    down: Any = None
    """For `compress_down=`."""
    drawn: bool = False
    """Whether it is in the picture."""

    def algorithm(self, work: fm.LocalWork) -> fm.Algorithm:
        """Return federated averaging of updates that count the same, with the recipe's memory."""
        uniform = fm.aggregators.uniform_mean()
        if self.ef21 is not None:
            return fm.ef21(work, self.ef21, aggregator=uniform)
        if self.memory is not None:
            work = fm.local.feedback(work, self.memory)
        return fm.fedavg(work, aggregator=uniform)


NONE = Recipe("uncompressed", drawn=True)
DIGITS = (
    NONE,
    Recipe("bf16()", C.bf16()),
    Recipe("quantize(8)", C.quantize(8), drawn=True),
    Recipe("quantize(4)", C.quantize(4)),
    Recipe("quantize(2)", C.quantize(2)),
    Recipe("chain(rotate(), quantize(1))", fm.chain(C.rotate(), C.quantize(1))),
    Recipe("chain(qsgd(16), entropy_coded())", fm.chain(C.qsgd(16), C.entropy_coded())),
    Recipe("chain(ternary(), entropy_coded())", fm.chain(C.ternary(), C.entropy_coded())),
    Recipe("eden(4)", C.eden(4)),
    Recipe("eden(2)", C.eden(2)),
    Recipe("eden(1)", C.eden(1), drawn=True),
    Recipe("sign()", C.sign(), drawn=True),
    Recipe("feedback(sign())", memory=C.sign()),
    Recipe("top_k(0.1)", C.top_k(0.1)),
    Recipe("feedback(top_k(0.1))", memory=C.top_k(0.1)),
    Recipe("top_k(0.01)", C.top_k(0.01), drawn=True),
    Recipe("feedback(top_k(0.01))", memory=C.top_k(0.01), drawn=True),
    Recipe(
        "feedback(chain(top_k(0.1), quantize(8)))", memory=fm.chain(C.top_k(0.1), C.quantize(8))
    ),
    Recipe("random_k(0.1)", C.random_k(0.1)),
    Recipe("chain(random_k(0.25), eden(1))", fm.chain(C.random_k(0.25), C.eden(1)), drawn=True),
    Recipe("count_sketch(2000)", C.count_sketch(2_000)),
    Recipe("ef21(top_k(0.1))", ef21=C.top_k(0.1)),
    Recipe("eden(1), down quantize(8)", C.eden(1), down=C.quantize(8)),
    Recipe("eden(1), down eden(1, unbiased=False)", C.eden(1), down=C.eden(1, unbiased=False)),
)
CHARACTERS = (
    NONE,
    Recipe("eden(2)", C.eden(2)),
    Recipe("eden(1)", C.eden(1)),
    Recipe("feedback(top_k(0.01))", memory=C.top_k(0.01)),
)
