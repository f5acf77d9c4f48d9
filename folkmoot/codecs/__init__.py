"""Codecs: what may stand between an update and the sum."""

from folkmoot.codecs.adaptive_clip import adaptive_clip
from folkmoot.codecs.clip import clip
from folkmoot.codecs.correlated import banded_noise, tree_noise
from folkmoot.codecs.field import to_field
from folkmoot.codecs.layer_clip import clip_by_layer
from folkmoot.codecs.local_noise import local_gaussian, local_laplace, randomized_response
from folkmoot.codecs.noise import gaussian
from folkmoot.codecs.rotate import rotate
from folkmoot.codecs.shares import gaussian_shares, skellam_shares

__all__ = [
    # Bounds on one client's part
    "adaptive_clip",
    "clip",
    "clip_by_layer",
    # Noise in the sum
    "banded_noise",
    "gaussian",
    "tree_noise",
    # Noise at each client
    "local_gaussian",
    "local_laplace",
    "randomized_response",
    # For secure sums
    "gaussian_shares",
    "rotate",
    "skellam_shares",
    "to_field",
]
