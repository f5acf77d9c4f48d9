"""A model's weights as arrays of numpy, outside any library's own files."""

from typing import Any

import numpy as np
import torch
from torch import nn

from folkmoot.core.errors import SettingsError


class ModelWeights(dict[str, np.ndarray]):
    """A module's weights by name, as in its state dict."""

    def assign_weights_to(self, model: nn.Module) -> None:
        """Put the weights into a module of the same layers.

        Raises:
            SettingsError: If it has other weights; it is then left as it was.
        """
        own: dict[str, Any] = model.state_dict()
        faults = [f"no {name}" for name in self if name not in own]
        faults += [f"{name} beside them" for name in own if name not in self]
        faults += [
            f"{name} of shape {tuple(own[name].shape)} for {array.shape}"
            for name, array in self.items()
            if name in own and tuple(own[name].shape) != array.shape
        ]
        if faults:
            raise SettingsError(
                f"These weights do not fit this {type(model).__name__}: it has "
                f"{', '.join(faults[:3])}. Build it as the model that was trained."
            )
        model.load_state_dict({name: torch.as_tensor(array) for name, array in self.items()})


def weights_of(module: nn.Module) -> ModelWeights:
    """Return copies of a module's weights; numpy has no bfloat16, which becomes float32."""
    arrays = {}
    for name, leaf in module.state_dict().items():
        kept = leaf.float() if leaf.dtype == torch.bfloat16 else leaf
        arrays[name] = kept.detach().cpu().numpy().copy()
    return ModelWeights(arrays)
