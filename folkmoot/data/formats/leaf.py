"""LEAF's JSON files: FEMNIST, Shakespeare, Sentiment140, CelebA, Synthetic, by its own scripts.

Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv:1812.01097. A file holds `users`,
`num_samples` and `user_data[user] = {"x": [...], "y": [...]}`; a folder holds several of them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from folkmoot.core.errors import DataError
from folkmoot.core.tree import Tree
from folkmoot.data.arrays import owner_of
from folkmoot.data.client_data import ClientData, Id
from folkmoot.data.examples import check_examples, count
from folkmoot.data.formats.columns import Convert, examples_from
from folkmoot.data.sources import from_datasets


def from_leaf(
    folder: str | Path, *, convert: Convert | None = None, name: str | None = None
) -> ClientData:
    """Read a LEAF data set with one client a user.

    JSON cannot be read in parts, so all users are read now and kept as tensors.

    Args:
        folder: A folder with `train/` and perhaps `test/`, or directly with `.json` files, or one
            file.
        convert: From one user's data, a dict of lists as in the file (x, y), to its examples: a
            dict of arrays or an (x, y) pair. Needed where x or y is text, for instance to look
            characters up.
        name: What the set is called in tables and errors; by default the folder's name.

    Returns:
        Clients by user, a string. Numbers become float32 (with a decimal point) or int64. Users
        that have no examples are left out.

    Raises:
        DataError: If no file is found, a file is not in LEAF's form, or `test/` holds other users
            than `train/` (a split by user): read such a test part with a call of its own.
    """
    root = Path(folder).expanduser()
    name = root.stem if name is None else name
    split = (root / "train").is_dir()
    train = _users(root / "train" if split else root, "train", convert, name)
    tests = _users(root / "test", "test", convert, name) if (root / "test").is_dir() else {}
    strangers = [user for user in tests if user not in train]
    if strangers:
        raise DataError(
            f"{name}: test/ holds {len(strangers)} user(s) that train/ does not, such as "
            f"{strangers[0]!r}: the set was split by user. Read both parts on their own: "
            f"from_leaf({str(root / 'train')!r}) and from_leaf({str(root / 'test')!r})."
        )
    return from_datasets(train, tests or None, name=name)


def _users(
    root: Path, part: str, convert: Callable[[dict[str, Any]], Any] | None, name: str
) -> dict[Id, Tree]:
    files = [root] if root.is_file() else sorted(root.glob("*.json"))
    if not files:
        raise DataError(
            f"{name}: no .json file in {root}. LEAF's preprocess.sh writes them to data/train and "
            "data/test; pass the folder above these."
        )
    users: dict[Id, Tree] = {}
    for file in files:
        for user, size, data in _parsed(file, name):
            if user in users:
                raise DataError(f"{name}: user {user!r} is in two files, the second is {file}.")
            if size == 0:
                continue
            tree = examples_from(data, convert, owner_of(user, part))
            check_examples(tree, user, part)
            if count(tree) != size:
                raise DataError(
                    f"{owner_of(user, part)}: {file} says {size} in num_samples, but there are "
                    f"{count(tree)}. The file is damaged, or convert changed the number."
                )
            users[user] = tree
    return users


def _parsed(file: Path, name: str) -> list[tuple[str, int, dict[str, Any]]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return [
            (user, size, content["user_data"][user])
            for user, size in zip(content["users"], content["num_samples"], strict=True)
        ]
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{name}: {file} is not in LEAF's form ({error!r}). Expected the keys users, "
            "num_samples and user_data, with one number and one entry a user."
        ) from error
