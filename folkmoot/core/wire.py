"""Trees as bytes and back, through safetensors: no code can travel, dtypes and 0-d shapes stay.

A leaf's path is written as its keys joined by "/", with "%" and "/" inside a key escaped; names of
parameters keep their dots. What safetensors does not keep, the order of leaves and empty dicts,
stands in one entry of the metadata: safetensors writes several in an order that no one can foresee.
"""

import json
from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from folkmoot.core import tree as trees
from folkmoot.core.errors import CheckpointError
from folkmoot.core.tree import Tree


def _escape(key: str) -> str:
    return key.replace("%", "%25").replace("/", "%2F")


def _unescape(key: str) -> str:
    return key.replace("%2F", "/").replace("%25", "%")


def to_bytes(tree: Tree, header: Mapping[str, str] | None = None) -> bytes:
    """Write a tree as safetensors.

    Args:
        tree: Tensors of any dtype and shape, nested by strings.
        header: Strings that travel beside the tensors.
    """
    owned: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, leaf in trees.items(tree):
        packed = leaf.detach().contiguous().cpu()
        # safetensors refuses views and two names of one memory; each leaf here is its own value.
        whole = packed.untyped_storage().nbytes() == packed.numel() * packed.element_size()
        if not whole or packed.data_ptr() in seen:
            packed = packed.clone()
        seen.add(packed.data_ptr())
        owned["/".join(_escape(key) for key in path)] = packed
    said = {"order": list(owned), "empty": trees.empties(tree), "header": dict(header or {})}
    return save(owned, metadata={"tree": json.dumps(said)})


def from_bytes(data: bytes) -> tuple[Tree, dict[str, str]]:
    """Read what `to_bytes` has written: the tree and its header.

    Raises:
        CheckpointError: If the bytes are not a whole safetensors file, or not one of a tree.
    """
    try:
        flat = load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        said = json.loads(metadata.get("tree", "{}"))
        order = said.get("order", list(flat))
        paths = [tuple(_unescape(key) for key in joined.split("/")) for joined in order]
        found = zip(paths, (flat[joined] for joined in order), strict=True)
        return trees.build(found, said.get("empty", [])), said.get("header", {})
    # A stranger's bytes may name leaves that are not there, or one below another.
    except (SafetensorError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise CheckpointError(f"These {len(data)} bytes are not a tree: {error}.") from error
