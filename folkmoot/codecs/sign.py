"""Sign: one bit a number, and one scale.

Karimireddy, Rebjock, Stich, Jaggi, "Error Feedback Fixes SignSGD and other Gradient Compression
Schemes", ICML 2019, arXiv:1901.09847. One scale for the whole vector, where the paper also has one
for each layer.
"""

import numpy as np
import torch
from torch import Tensor

from folkmoot.codecs.grid import refuse_noisy
from folkmoot.codecs.lossy import lossy
from folkmoot.codecs.packing import packed, unpacked
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.tree import Tree


def sign() -> Codec:
    """Send each number's sign, and the mean of their absolute values.

    Biased: without error feedback it may drive training away from any optimum, so use it within
    `feedback(work, codec)`. NMSE is 1 - ||x||_1^2 / (d ||x||^2) for d numbers, below 1: 1 - 2 / pi
    of Gaussian ones, near 1 of sparse ones. One bit a number, and 32; 0 counts as positive. Where a
    number is NaN or infinite no finite one arrives.

    What this does to the bounds: nothing; `l2` holds.

    Returns:
        A codec whose packed form cannot be added.

    Raises:
        SettingsError: At `init`: if noise stands in front.

    Source: Karimireddy et al., ICML 2019, arXiv:1901.09847, section 4.
    """

    def init(bounds: Bounds, layout: Layout) -> tuple[Tree, Bounds]:
        refuse_noisy("sign", bounds)
        largest = min(bounds.largest, bounds.l2)
        l2 = bounds.l2 * (1 + 2.0**-20)
        return {"size": torch.tensor(bounds.size)}, bounds._replace(l2=l2, largest=largest)

    def pack(state: Tree, vector: Tensor, key: int) -> Tree:
        # By numpy, which adds in the same order whatever the number of threads.
        scale = np.abs(vector.numpy()).sum(dtype=np.float64) / max(len(vector), 1)
        signs = (vector >= 0).numpy().view("u1")
        return {"vector": packed(signs, 1), "scale": torch.tensor([float(scale)])}

    def unpack(state: Tree, message: Tree, key: int) -> Tensor:
        signs = torch.from_numpy(unpacked(message["vector"], 1, int(state["size"])))
        return signs.float().mul_(2).sub_(1).mul_(message["scale"])

    return lossy("sign", init, pack, unpack)
