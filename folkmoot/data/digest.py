"""`digest_of`: one sha256 for a tree of tensors, be it examples, parameters or a state."""

import hashlib

import torch

from folkmoot.core import tree as trees


def digest_of(tree: trees.Tree) -> str:
    """Return sha256 (hex) over paths, dtypes, shapes and bytes of leaves; about 0.6 s a GiB.

    Equal numbers have equal digests, whatever their strides, device or need of a gradient.
    """
    digest = hashlib.sha256()
    for path, leaf in trees.items(tree):
        digest.update(f"{trees.name(path)} {leaf.dtype} {tuple(leaf.shape)};".encode())
        plain = leaf.detach().resolve_conj().resolve_neg().cpu().contiguous()
        if plain.numel():
            # contiguous() lets a dimension of size 1 keep any stride; bytes are read in a row.
            flat = plain.as_strided((plain.numel(),), (1,))
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
