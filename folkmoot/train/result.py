"""What comes out of a run: the model, its history, and what it cost."""

import copy
import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from folkmoot.core.engine import ClientId
from folkmoot.core.errors import SettingsError
from folkmoot.data.digest import digest_of
from folkmoot.local.parts import model_in
from folkmoot.train.evaluation import ClientResult, model_of_client
from folkmoot.train.outcome import Outcome, Times
from folkmoot.train.own_models import differing
from folkmoot.train.participation import Roll
from folkmoot.train.pictures import Pictured
from folkmoot.train.record import plain, read_record, write_record
from folkmoot.train.standing import Program, Standing
from folkmoot.train.summary import as_text, chosen_metric
from folkmoot.train.tally import Tally
from folkmoot.train.words import number


class ModelNotLoaded(SettingsError, AttributeError):
    """A result was read from its folder without an instance of the model's class."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Result(Pictured):
    """A finished run. `print` it, `plot` it, `save` it; `model` is an ordinary module."""

    modules: tuple[nn.Module, nn.Module] | None = None
    """The final and the best model, or None where their class is not known."""
    program: Program | None = None
    """What the run did; None where the result was read from a folder."""
    base: "Result | None" = None
    """The run whose global model this one began with, where it fine-tunes one."""

    @property
    def model(self) -> nn.Module:
        """The global model after the last round; leaves that stayed with clients are as at first.

        Raises:
            ModelNotLoaded: If the result was loaded without `model=`.
        """
        return self._modules("model")[0]

    @property
    def best_model(self) -> nn.Module:
        """The global model of the best evaluated round; the final one where none was evaluated.

        Clients' own models are those after the last round only.

        Raises:
            ModelNotLoaded: If the result was loaded without `model=`.
        """
        return self._modules("best_model")[1]

    def save(self, folder: str | Path) -> Path:
        """Write the run into a folder, with picture and report, and return it.

        `load_result` reads it back. Files of an earlier run in the folder are replaced.
        """
        folder = Path(folder)
        write_record(folder, self)
        self.plot(folder / "plot.png")
        self.report(folder / "report.html")
        return folder

    def frame(self) -> Any:
        """Return `table()` as a pandas DataFrame.

        Raises:
            SettingsError: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise SettingsError(
                "result.frame() needs pandas, which is not installed: pip install pandas. "
                "result.table() has the same rows as dicts."
            ) from None
        return pandas.DataFrame(self.table())

    def __str__(self) -> str:
        return as_text(self)

    def __repr__(self) -> str:
        found = self.metrics.get(self.best.metric)
        score = "" if found is None else f", {chosen_metric(self)} {number(found)}"
        return f"Result({self.name!r}, {self.rounds} rounds{score})"

    def _repr_html_(self) -> str:
        from folkmoot.train.report import card

        return card(self)

    def _modules(self, name: str) -> tuple[nn.Module, nn.Module]:
        if self.modules is None:
            raise ModelNotLoaded(
                f"result.{name} is not there, because the result was loaded without the model's "
                "class. Pass an instance of it, load_result(folder, model=...), or use the weights "
                f"alone: result.{name.replace('model', 'state_dict')}."
            )
        return self.modules


def load_result(folder: str | Path, model: nn.Module | None = None) -> Result:
    """Read a run back from the folder where `result.save` or `fm.run(..., save=)` has written it.

    Everything but the live modules is as it was. No code is loaded.

    Args:
        folder: The run's folder.
        model: An instance of the module that was trained. It receives the final weights and
            becomes `result.model`; a copy with the best ones is `result.best_model`. Without it
            the weights are in `result.state_dict` and `result.best_state_dict`.

    Raises:
        CheckpointError: If the folder holds no finished run, or a file of it cannot be read.
        SettingsError: If the model is not the one that was trained; it is then left as it was.
    """
    outcome = read_record(Path(folder))
    modules = None
    if model is not None:
        _check_model(model, outcome.state_dict)
        model.load_state_dict(outcome.state_dict)
        best = copy.deepcopy(model)
        best.load_state_dict(outcome.best_state_dict)
        modules = (model, best)
        outcome.clients.update(
            {
                client: dataclasses.replace(
                    found, make=functools.partial(_filled, model, outcome, found)
                )
                for client, found in outcome.clients.items()
            }
        )
    return Result(**vars(outcome), modules=modules)


def _filled(model: nn.Module, outcome: Outcome, client: ClientResult) -> nn.Module:
    """Return a copy of a module with the weights of one client's model."""
    filled = copy.deepcopy(model).eval()
    filled.load_state_dict(outcome.state_dict)
    filled.load_state_dict(client.leaves() if client.leaves else {}, strict=False)
    return filled


def _check_model(model: Any, state_dict: dict[str, Tensor]) -> None:
    """Refuse a module that could not hold these weights."""
    if not isinstance(model, nn.Module):
        raise SettingsError(
            "model must be an instance of the module that was trained, but is "
            f"{f'the class {model.__name__}' if isinstance(model, type) else repr(model)}."
        )
    own = model.state_dict()
    faults = [f"it has no {name}" for name in state_dict if name not in own]
    faults += [f"the run has no {name}" for name in own if name not in state_dict]
    faults += [
        f"{name} is {tuple(own[name].shape)}, in the run {tuple(leaf.shape)}"
        for name, leaf in state_dict.items()
        if name in own and own[name].shape != leaf.shape
    ]
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise SettingsError(
            f"This {type(model).__name__} is not the model that was trained: "
            f"{'; '.join(faults[:3])}{more}. Build it as the program of the run did."
        )


def result_of(
    program: Program,
    standing: Standing,
    settings: dict[str, Any],
    total_s: float,
) -> Result:
    """Make the result of a run from where it stands."""
    objective, state = program.algorithm.objective, standing.snapshot.state
    best = standing.best_model or model_in(state)
    # That a client took part is what a private run's promise hides.
    tally = None if settings.get("privacy") else standing.tally
    modules = objective.module(state), objective.module(best)
    weights = _weights(modules[0])
    return Result(
        best=standing.best,
        history=standing.history,
        clients=_clients(program, standing, weights),
        settings=plain(settings),
        times=_times(standing, total_s),
        ended=standing.ended,
        state_dict=weights,
        best_state_dict=weights
        if digest_of(best) == digest_of(model_in(state))
        else _weights(modules[1]),
        state=state,
        roll=Roll(program.clients.ids, tally) if tally else None,
        passes=_passes(program, tally) if tally else None,
        modules=modules,
        program=program,
    )


def _clients(
    program: Program, standing: Standing, weights: Mapping[str, Tensor]
) -> dict[ClientId, ClientResult]:
    """Return what is known of each client that was judged, or has a model of its own."""
    (work, *_), objective = program.algorithm.works, program.algorithm.objective
    state, own, judged = standing.snapshot.state, standing.snapshot.own, standing.judged

    def make(client: ClientId) -> nn.Module:
        return objective.module(model_of_client(work, state, own, client))

    def leaves(client: ClientId) -> dict[str, Tensor]:
        return differing(model_of_client(work, state, own, client), weights)

    return {
        # Their sums are for adding up; what they make is here.
        client: dataclasses.replace(
            judged.get(client, ClientResult(client, 0, {})),
            sums={},
            make=functools.partial(make, client),
            leaves=functools.partial(leaves, client) if work.model else None,
        )
        for client in sorted({*judged, *(own if work.model else ())})
    }


def _passes(program: Program, tally: Tally) -> float | None:
    """Return how often answers that counted have gone through all examples, on the average."""
    sizes, (work, *_) = program.clients.sizes(), program.algorithm.works
    if sizes is None or not sizes.sum():
        return None
    plan = work.plan
    if plan.steps is None:
        seen = sizes * float(plan.epochs or 1)
    else:
        seen = np.minimum(plan.batch_size or sizes, sizes) * float(plan.steps)
    return float(tally.answered.numpy() @ seen / sizes.sum())


def _times(standing: Standing, total_s: float) -> Times:
    history = standing.history
    client_s = sum(row["client_s"] for row in history)
    train_s = sum(row["train_s"] for row in history)
    evaluation_s = sum(row["evaluation_s"] for row in history)
    # A resumed run has rows of earlier processes, whose seconds `total_s` does not have.
    total_s = max(total_s, train_s + evaluation_s)
    return Times(total_s, client_s, evaluation_s, max(0.0, train_s - client_s))


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a module's state dict, which stays when the module is trained on."""
    return copy.deepcopy(dict(module.state_dict()))
