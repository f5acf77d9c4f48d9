"""The folder of a finished run: files that need no folkmoot to be read.

| file | what it holds |
| --- | --- |
| `summary.json` | the headline numbers: final and best metrics, seconds, bytes |
| `settings.json`, `environment.json` | what was asked for; versions, machine, digests of the code |
| `history.jsonl`, `metrics.csv` | a row a round, whole, and as a table |
| `clients.csv` | the final model, or a client's own one, on each client's test examples |
| `participation.csv` | how often each client was asked and heard, and its bytes |
| `clients/` | what differs of clients' own models from the global one, where they have some |
| `model.safetensors`, `best_model.safetensors` | state dicts; the second only where it differs |
| `state.safetensors` | what the algorithm keeps beside the model |

All JSON is valid JSON: a NaN is null, an infinity is the text "Infinity". Every file is written
whole or not at all, and the summary last.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from folkmoot.core import wire
from folkmoot.core.engine import ClientId
from folkmoot.core.errors import CheckpointError
from folkmoot.core.tree import Tree
from folkmoot.data.digest import digest_of
from folkmoot.local.parts import PARTS
from folkmoot.train.evaluation import ClientResult
from folkmoot.train.folders import write_atomically
from folkmoot.train.outcome import METRICS, Outcome, Times
from folkmoot.train.own_models import Leaves, read_own_models, write_own_models
from folkmoot.train.participation import Roll
from folkmoot.train.stopping import Best, Row
from folkmoot.train.tally import Tally

_FORMAT = 1
_ROLL = "participation.csv"
_INFINITIES = {None: math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MEASURED = ("update_norm", "diversity", "virtual_s", "round_s")
_Content = TypeVar("_Content")


def write_record(folder: Path, outcome: Outcome) -> None:
    """Write all files of a run into a folder, over those of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    # An old summary must not vouch for new files.
    for stale in ("summary.json", "best_model.safetensors", _ROLL):
        (folder / stale).unlink(missing_ok=True)
    best = outcome.best_state_dict
    if best is not outcome.state_dict:
        data = _model_bytes(outcome, best, outcome.best.round)
        write_atomically(folder / "best_model.safetensors", data)
    files = {
        "model.safetensors": _model_bytes(outcome, outcome.state_dict, outcome.rounds),
        "state.safetensors": _state_bytes(outcome),
        "settings.json": _json_bytes(outcome.settings),
        "environment.json": _json_bytes(outcome.environment),
        "history.jsonl": b"".join(_json_bytes(row, indent=None) for row in outcome.history),
        "metrics.csv": _csv_bytes(map(_measured, outcome.table())),
        "clients.csv": _csv_bytes(_client_rows(outcome)),
        "summary.json": _json_bytes(_summary(outcome)),
    }
    if outcome.roll is not None:
        files = {_ROLL: _csv_bytes(outcome.roll.rows()), **files}
    write_own_models(folder, outcome.clients)
    for name, data in files.items():
        write_atomically(folder / name, data)


def read_record(folder: Path) -> Outcome:
    """Read a run back from its folder.

    Raises:
        CheckpointError: If the folder holds no finished run, or a file of it cannot be read.
    """
    summary = _summary_of(folder)
    model = _read(folder, "model.safetensors", _tensors)
    has_best = (folder / "best_model.safetensors").exists()
    identify = int if summary["client_ids"] == "integers" else str
    own = read_own_models(folder)
    return Outcome(
        best=Best(**_with_numbers(summary["best"], "value")),
        history=_read(folder, "history.jsonl", _rows),
        clients=_read(folder, "clients.csv", lambda data: _clients(data, identify, own)),
        settings=_read(folder, "settings.json", json.loads),
        times=Times(**summary["times"]),
        ended=summary["ended"],
        environment=_read(folder, "environment.json", json.loads),
        peak_memory=summary["peak_memory"],
        state_dict=model,
        best_state_dict=_read(folder, "best_model.safetensors", _tensors) if has_best else model,
        state=_read(folder, "state.safetensors", lambda data: _state(data, model)),
        roll=_read(folder, _ROLL, lambda data: _roll(data, identify))
        if summary.get("never_heard")
        else None,
        passes=summary.get("passes"),
    )


def plain(value: Any) -> Any:
    """Return a value as plain, valid JSON.

    Numbers of numpy and torch become Python's, tuples and sets lists, a NaN None, an infinity the
    text "Infinity", and what JSON has no form for its text.
    """
    if isinstance(value, np.generic | np.ndarray | Tensor):
        return plain(value.tolist())
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return None if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    return str(value)


def _summary(outcome: Outcome) -> dict[str, Any]:
    named = [*outcome.clients, *(outcome.roll.ids[:1] if outcome.roll else ())]
    integers, silent = all(isinstance(client, int) for client in named), outcome.never_heard
    return {
        "format": _FORMAT,
        "name": outcome.name,
        "rounds": outcome.rounds,
        "ended": outcome.ended,
        "metrics": outcome.metrics,
        "best": outcome.best._asdict(),
        "best_metrics": outcome.best_metrics,
        "times": outcome.times._asdict(),
        "traffic": outcome.traffic._asdict(),
        "never_heard": None
        if silent is None
        else {"clients": len(silent.clients), "unasked": silent.unasked},
        "passes": outcome.passes,
        "left_out": len(outcome.left_out),
        "peak_memory": outcome.peak_memory,
        "client_ids": "integers" if integers else "texts",
    }


def _summary_of(folder: Path) -> dict[str, Any]:
    """Read the summary, or say what the folder is instead of a finished run."""
    if not (folder / "summary.json").is_file():
        hint = "Give the folder that result.save(folder) or fm.run(..., save=folder) has written."
        if (folder / "checkpoints").is_dir():
            hint = (
                "It has checkpoints of a run that has not ended: go on with fm.run(..., "
                f'checkpoint="{folder}", resume=True).'
            )
        raise CheckpointError(f"{folder} holds no finished run: there is no summary.json. {hint}")
    summary = _read(folder, "summary.json", json.loads)
    if summary.get("format") != _FORMAT:
        raise CheckpointError(
            f"{folder} was written in format {summary.get('format')}, but this folkmoot reads "
            f"format {_FORMAT}. Read it with the version that its environment.json names."
        )
    return summary


def _read(folder: Path, name: str, parse: Callable[[bytes], _Content]) -> _Content:
    try:
        return parse((folder / name).read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has lost its {name}. Save the run again.") from None
    except (ValueError, LookupError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / name} is damaged: {error}. Save the run again."
        ) from error


def _json_bytes(value: Any, indent: int | None = 2) -> bytes:
    text = json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _rows(data: bytes) -> list[Row]:
    rows = map(json.loads, data.decode().split("\n")[:-1])
    return [_with_numbers(row, *filter(_is_measured, row)) for row in rows]


def _is_measured(key: str) -> bool:
    """Tell whether a column holds numbers that may not be finite."""
    return key.startswith(METRICS) or key in _MEASURED


def _with_numbers(row: Row, *keys: str) -> Row:
    """Return a row in which what stands for a NaN or an infinity under these keys is one again."""
    return row | {key: _INFINITIES.get(row[key], row[key]) for key in keys}


def _csv_bytes(rows: Iterable[Row]) -> bytes:
    """Write a table; a cell that is empty is None or was not measured."""
    text = io.StringIO(newline="")
    # Its own line ends, of two characters, also make it quote either of them within a name.
    lines = csv.writer(text)
    for place, row in enumerate(rows):
        if not place:
            lines.writerow(row)
        lines.writerow(row.values())
    return text.getvalue().encode()


def _measured(row: Row) -> Row:
    """Leave the metrics of a round empty that was not evaluated: a NaN is one that was."""
    empty = {key: None for key in row if key.startswith(METRICS) and not row["evaluated"]}
    return row | empty


def _client_rows(outcome: Outcome) -> Iterable[Row]:
    """Return a row for each client; metrics are empty of one that has a model and no tests."""
    clients = outcome.clients.values()
    empty = dict.fromkeys(name for client in clients for name in client.metrics)
    return (
        {"id": client.id, "examples": client.examples, **empty, **client.metrics}
        for client in clients
    )


def _clients(
    data: bytes, identify: Callable[[str], ClientId], own: Mapping[ClientId, Leaves]
) -> dict[ClientId, ClientResult]:
    found: dict[ClientId, ClientResult] = {}
    for row in csv.DictReader(io.StringIO(data.decode(), newline="")):
        client, examples = identify(row.pop("id")), int(row.pop("examples"))
        metrics = {name: float(value) for name, value in row.items() if value}
        found[client] = ClientResult(client, examples, metrics, leaves=own.get(client))
    return found


def _roll(data: bytes, identify: Callable[[str], ClientId]) -> Roll:
    """Read the population's counts."""
    head, *rows = csv.reader(io.StringIO(data.decode(), newline=""))
    ids = [identify(row[0]) for row in rows]
    counts = np.array([row[1:] for row in rows], dtype=np.int64)
    columns = dict(zip(head[1:], map(torch.from_numpy, counts.T.copy()), strict=True))
    return Roll(tuple(ids), Tally(**columns))


def _model_bytes(outcome: Outcome, state_dict: Mapping[str, Tensor], round: int) -> bytes:
    """Write a state dict; tied weights stand under each of their names, for a strict load."""
    told = ("name", "algorithm", "data", "data_fingerprint", "seed")
    about = {key: outcome.settings[key] for key in told if key in outcome.settings}
    about |= {"round": round, "folkmoot": outcome.environment.get("folkmoot")}
    owned = {name: leaf.detach().cpu().clone().contiguous() for name, leaf in state_dict.items()}
    # One entry: safetensors writes several in an order that changes from run to run.
    return save(owned, {"folkmoot": json.dumps({**about, "order": list(owned)})})


def _tensors(data: bytes) -> dict[str, Tensor]:
    flat = load(data)
    size = int.from_bytes(data[:8], "little")
    about = json.loads(data[8 : 8 + size])["__metadata__"]["folkmoot"]
    return {name: flat[name] for name in json.loads(about)["order"]}


def _state_bytes(outcome: Outcome) -> bytes:
    """Write what the algorithm keeps; parts that are in the model's file are only named."""
    state, model = outcome.state, outcome.state_dict
    held: dict[str, list[str]] = {}
    for part in PARTS:
        names = list(state.get(part, {}))
        known = {name: model[name] for name in names if name in model}
        if part in state and digest_of(state[part]) == digest_of(known):
            held[part] = names
    rest = {part: inner for part, inner in state.items() if part not in held}
    return wire.to_bytes(rest, {"held": json.dumps(held), "parts": json.dumps(list(state))})


def _state(data: bytes, model: Mapping[str, Tensor]) -> Tree:
    tree, header = wire.from_bytes(data)
    for part, names in json.loads(header["held"]).items():
        tree[part] = {name: model[name] for name in names}
    return {part: tree[part] for part in json.loads(header["parts"])}
