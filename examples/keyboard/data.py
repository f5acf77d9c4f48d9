"""What a keyboard learns from: the speeches of 978 roles of Shakespeare, a client a role."""

import os

import torch

import folkmoot as fm

CHARACTERS = "\n !\"&'(),-./0123456789:;?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz{"
"""A character's code is its place in this string."""
ENOUGH = 100
"""Windows of 80 characters from which a role has text enough for a model of its own."""


def load():
    """Return all roles, twelve of those with text enough, and every fifth held-out window.

    x and y: (n, 80), codes of characters; y is x one character on.
    """
    roles, held_out = fm.data.load("shakespeare")
    long = [role for role, size in zip(roles, roles.sizes(), strict=True) if size >= ENOUGH]
    chosen, every = (2, 500) if "FOLKMOOT_QUICK" in os.environ else (12, 5)
    some = roles.subset(long[:: len(long) // chosen][:chosen])
    return roles, some, {name: leaf[::every] for name, leaf in held_out.items()}


def joined(roles):
    """Return the training text of all roles in one place."""
    parts = [role.train for role in roles.values()]
    return {name: torch.cat([part[name] for part in parts]) for name in ("x", "y")}


def encode(text):
    """Return the codes of a text, (1, length); what Shakespeare has no sign for is a space."""
    known = [sign if sign in CHARACTERS else " " for sign in text]
    return torch.tensor([[CHARACTERS.index(sign) for sign in known]])
