"""Codecs: what may stand between an update and the sum."""

from folkmoot.codecs.adaptive_clip import adaptive_clip
from folkmoot.codecs.clip import clip
from folkmoot.codecs.correlated import banded_noise, tree_noise
from folkmoot.codecs.eden import drive, eden
from folkmoot.codecs.entropy_coded import entropy_coded
from folkmoot.codecs.field import to_field
from folkmoot.codecs.half import bf16, fp16
from folkmoot.codecs.layer_clip import clip_by_layer
from folkmoot.codecs.local_noise import local_gaussian, local_laplace, randomized_response
from folkmoot.codecs.natural import natural
from folkmoot.codecs.noise import gaussian
from folkmoot.codecs.quantize import qsgd, quantize, ternary
from folkmoot.codecs.rotate import rotate
from folkmoot.codecs.shares import gaussian_shares, skellam_shares
from folkmoot.codecs.sign import sign
from folkmoot.codecs.sketch import count_sketch
from folkmoot.codecs.sparsify import random_k, top_k

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
    # Fewer bits a number
    "bf16",
    "drive",
    "eden",
    "entropy_coded",
    "fp16",
    "natural",
    "qsgd",
    "quantize",
    "rotate",
    "sign",
    "ternary",
    # Fewer numbers
    "count_sketch",
    "random_k",
    "top_k",
    # For secure sums
    "gaussian_shares",
    "skellam_shares",
    "to_field",
]
