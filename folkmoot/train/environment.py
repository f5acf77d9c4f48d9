"""What a run was: versions, machine, memory, and the digest of its code."""

import hashlib
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from folkmoot.core import VERSION
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm
from folkmoot.core.errors import ClientError
from folkmoot.data import ClientData
from folkmoot.data.digest import digest_of

FINGERPRINT = "data_fingerprint"
"""Where a run's settings have the digest of all that its clients hold."""
DATA_BYTES = "data_bytes"
"""Where they have the bytes of all train examples."""
_MOST_COUNTED = 100_000
"""Clients whose examples are counted; of more it would take longer than it is worth."""


def program_facts(
    algorithm: Algorithm,
    clients: ClientData,
    sampling: str,
    expected: float,
    seed: int,
    precision: str,
) -> dict[str, Any]:
    """Return what a run's settings tell of its program, as plain JSON.

    Two runs that share them, and what `described` finds, have the same bits; only the number of
    rounds may differ, and the first parameters of a run that goes on from a checkpoint.
    """
    work = algorithm.works[0]
    params = algorithm.objective.init()["params"]
    return {
        "algorithm": algorithm.name,
        "plan": work.plan._asdict(),
        "parameters": sum(leaf.numel() for leaf in trees.leaves(params)),
        "initial_model": digest_of(params),
        "frozen_model": digest_of(_frozen(algorithm.objective)),
        "data": clients.name,
        FINGERPRINT: clients.fingerprint(),
        **_held(clients),
        "population": len(clients),
        "sampling": sampling,
        "expected_cohort": expected,
        "seed": seed,
        "precision": precision,
        **({"personal": sorted(work.personal)} if work.personal else {}),
        **({"own_models": True} if work.model else {}),
    }


def _held(clients: ClientData) -> dict[str, int]:
    """Return the bytes of all train examples, where their numbers are known unread."""
    if not len(clients) or len(clients) > _MOST_COUNTED:
        return {}
    sizes = [clients.size_of(client) or 0 for client in clients]
    largest = max(range(len(sizes)), key=sizes.__getitem__)
    if not sizes[largest]:
        return {}
    try:
        train = clients[clients.ids[largest]].train
    except ClientError:
        return {}
    each = trees.num_bytes(train) / sizes[largest] if train else 0.0
    return {DATA_BYTES: round(sum(sizes) * each)}


def _frozen(objective: Any) -> trees.Tree:
    """Return what of a model does not travel: frozen parameters, buffers that are not kept."""
    module = getattr(objective, "model", None)
    if module is None:
        return {}
    frozen = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
    kept = module.state_dict()
    return frozen | {name: b for name, b in module.named_buffers() if name not in kept}


def environment() -> dict[str, Any]:
    """Return versions and machine, as plain JSON."""
    return {
        "folkmoot": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "package_digest": package_digest(),
        "program": program_file(),
    }


def package_digest() -> str:
    """Return the sha256 of folkmoot's own source files."""
    digest = hashlib.sha256()
    home = Path(__file__).parent.parent
    for path in sorted(home.rglob("*.py")):
        digest.update(path.relative_to(home).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def program_file() -> dict[str, str] | None:
    """Return name and digest of the user's script; None in a notebook or a shell."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main is None or not Path(main).is_file():
        return None
    return {"file": Path(main).name, "digest": hashlib.sha256(Path(main).read_bytes()).hexdigest()}


def peak_memory_bytes() -> dict[str, int]:
    """Return the peak resident memory of this process, and of the largest worker that has ended."""
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "largest_worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit,
    }
