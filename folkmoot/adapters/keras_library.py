"""The Keras library, which comes with an extra, and models that it builds.

Keras chooses what it runs on when it is first imported; only PyTorch's tensors can be trained here.
Nothing imports it before a Keras model is asked for.
"""

import collections
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from folkmoot.core.errors import SettingsError
from folkmoot.local.dropout import seeded

_CURE = (
    'Set it before anything imports keras: import os; os.environ["KERAS_BACKEND"] = "torch", or '
    "KERAS_BACKEND=torch in the shell."
)


def library() -> Any:
    """Return the module keras, running on PyTorch.

    Where it has not been imported, and nothing says what it should run on, PyTorch is chosen.

    Raises:
        SettingsError: If it is not installed, is older than 3, or runs on something else.
    """
    if "keras" not in sys.modules:
        asked = os.environ.setdefault("KERAS_BACKEND", "torch")
        if asked != "torch":
            raise SettingsError(f"KERAS_BACKEND is {asked!r}, but models train on torch. {_CURE}")
    try:
        import keras
    except ImportError as error:
        raise SettingsError(
            "A Keras model needs Keras 3, which is not installed: pip install 'folkmoot[keras]'."
        ) from error
    if not hasattr(keras, "StatelessScope"):
        raise SettingsError(
            f"Keras {keras.__version__} runs on TensorFlow alone: pip install 'folkmoot[keras]', "
            "which brings Keras 3."
        )
    if keras.backend.backend() != "torch":
        raise SettingsError(
            f"Keras runs on {keras.backend.backend()} here, but models train on torch. {_CURE}"
        )
    return keras


def built(model_fn: Callable[[], Any]) -> Any:
    """Call a function that builds a model, and return what it returns.

    Layers are named as in a new program, so that weights have the same names each time.

    Raises:
        SettingsError: If it returns no Keras model, or one whose weights have no shape yet.
    """
    keras = library()
    with _fresh_names(), keras.device("cpu"):
        model = model_fn()
    if not isinstance(model, keras.Model):
        raise SettingsError(
            f"model_fn() must return a Keras model, but returned a {type(model).__name__}."
        )
    if not model.built:
        raise SettingsError(
            f"The Keras model {model.name!r} has no weights yet. Begin it with "
            "keras.Input(shape=...), or call it once on an example in model_fn."
        )
    return model


@contextmanager
def unnoticed() -> Iterator[None]:
    """Leave the process's generators as they were: a copy of a model is none of the user's draws.

    Its first weights, which are drawn like any others, are replaced at once. Another thread may be
    training at the time, so torch's generator is borrowed as its passes borrow it, one at a time.
    """
    drawn, arrays = random.getstate(), np.random.get_state()
    try:
        with seeded(torch.zeros((), dtype=torch.int64)):
            yield
    finally:
        random.setstate(drawn)
        np.random.set_state(arrays)


@contextmanager
def _fresh_names() -> Iterator[None]:
    """Number layers from the beginning: the second model of a notebook has no `dense_7`."""
    from keras.src.backend.common import global_state

    name = "object_name_uids"
    before = global_state.get_global_attribute(name)
    global_state.set_global_attribute(name, collections.defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(name, before)
