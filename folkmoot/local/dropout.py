"""Dropout from the step's key, not a generator: equal masks in sequence, in threads, under vmap.

Torch's dropout draws from one generator of the process, so two threads that train at once mix their
streams. Inside `keyed`, `F.dropout` and its kin (hence `nn.Dropout`) draw their mask as an integer
hash of (step's key, number of the call, index). What cannot be reached this way, dropout inside
`nn.LSTM` or fused attention and a model's own `torch.rand`, follows the default generator: `seeded`
seeds it from the key and puts it back afterwards. `Draws` remembers what a model's passes draw.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from folkmoot.core import rng
from folkmoot.core.tree import is_ordinary


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift(value: Tensor, bits: int) -> Tensor:
    """Shift right without the sign: torch has no unsigned 64-bit arithmetic."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def mix_tensor(state: Tensor) -> Tensor:
    """Return splitmix64's output for each int64; the same bits as `mix`, read as signed numbers."""
    state = state + _signed(rng.GAMMA)
    state = (state ^ _shift(state, 30)) * _signed(rng.MIX_1)
    state = (state ^ _shift(state, 27)) * _signed(rng.MIX_2)
    return state ^ _shift(state, 31)


def keep_mask(key: Tensor, call: int, shape: torch.Size, drop: float) -> Tensor:
    """Return a boolean mask that is False with probability `drop`, from a step's key alone.

    Args:
        key: The step's key, int64 [].
        call: The number of the dropout call within the step.
        shape: Shape of the mask.
        drop: Probability of False, in [0, 1].
    """
    start = mix_tensor(key ^ call)
    bits = mix_tensor(start ^ torch.arange(shape.numel()).view(shape))
    # The top 53 bits, as an integer, against the same share of 2^53.
    return _shift(bits, 11) >= int(drop * 2.0**53)


def _mask(key: Tensor, call: int, tensor: Tensor, drop: float, channels: bool) -> Tensor:
    shape = tensor.shape
    if channels:
        # Whole channels fall out: one draw for each (row, channel).
        shape = torch.Size([*shape[:2], *([1] * (len(shape) - 2))])
    return keep_mask(key, call, shape, drop).to(tensor.dtype) / (1 - drop)


class KeyedDropout(TorchFunctionMode):
    """While entered, dropout draws from `key`; calls are numbered in the forward pass's order."""

    def __init__(self, key: Tensor) -> None:
        super().__init__()
        self.key = key
        self.calls = 0

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _KEYED:
            return self._drop(function in _CHANNELS, *args, **kwargs)
        return function(*args, **kwargs)

    def _drop(
        self,
        channels: bool,
        tensor: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Tensor:
        if not training or p == 0:
            return tensor
        self.calls += 1
        if p == 1:
            return tensor * 0
        return tensor * _mask(self.key, self.calls, tensor, p, channels)


_CHANNELS = {F.dropout1d, F.dropout2d, F.dropout3d}
_KEYED = {F.dropout, *_CHANNELS}


_BORROWED = threading.RLock()
"""Held while the process's one generator is borrowed, so that two threads do not mix its states."""


@contextmanager
def seeded(key: Tensor) -> Iterator[None]:
    """Seed the default generator from a key, and put its state back afterwards."""
    generator = torch.default_generator
    with _BORROWED:
        before = generator.get_state()
        # The CPU generator reads 32 bits of its seed; enough for dropout, never for privacy noise.
        generator.manual_seed(int(key) & 0xFFFFFFFF)
        try:
            yield
        finally:
            generator.set_state(before)


class Draws:
    """What a model's passes draw, in training or in evaluation.

    The first pass is watched and shows it; later ones enter only what is needed, mostly nothing. A
    model may draw in some passes only, so an engine that finds the default generator moved does the
    work again and has every pass watched.
    """

    def __init__(self) -> None:
        self.unknown = True
        """Whether no pass has been done yet."""
        self.closely = False
        """Whether every pass is watched."""
        self.keyed = False
        """Whether dropout has been met, which draws from the step's key."""
        self.opaque = False
        """Whether the default generator has been met."""

    @property
    def nothing(self) -> bool:
        """Whether passes are known to draw nothing at all."""
        return not (self.unknown or self.closely or self.keyed or self.opaque)

    @contextmanager
    def from_key(self, key: Tensor) -> Iterator[None]:
        """Give a pass all of its random numbers from a key."""
        if self.unknown or self.closely:
            # A mapped key cannot seed; where clients are mapped, torch refuses such draws itself.
            seed = seeded(key) if is_ordinary(key) else contextlib.nullcontext()
            with seed, KeyedDropout(key) as drops:
                before = torch.default_generator.get_state()
                yield
                moved = has_moved(before)
            self.opaque, self.keyed = self.opaque or moved, self.keyed or drops.calls > 0
            self.unknown = False
            return
        with contextlib.ExitStack() as stack:
            if self.opaque:
                stack.enter_context(seeded(key))
            if self.keyed:
                stack.enter_context(KeyedDropout(key))
            yield


def generator_state() -> Tensor:
    """Return where the default generator stands while nobody borrows it, as bytes."""
    with _BORROWED:
        return torch.default_generator.get_state()


def has_moved(before: Tensor) -> bool:
    """Tell whether the default generator has been drawn from since."""
    # Bytes compare several times faster than tensors.
    return generator_state().numpy().tobytes() != before.numpy().tobytes()
