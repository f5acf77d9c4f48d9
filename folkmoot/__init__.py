"""folkmoot: train models across data that stays where it is.

    import folkmoot as fm

    clients, test = fm.data.load("mnist_writers")
    work = fm.local.sgd(fm.classifier(model), lr=0.2, epochs=1, batch_size=10)
    result = fm.run(fm.fedavg(work), clients, rounds=200, cohort=50, test=test, seed=0)

Names are found when they are first used, so importing the package imports neither torch nor numpy.
"""

import difflib
import importlib
import re
from pathlib import Path
from typing import Any

from folkmoot.core import VERSION

__version__ = VERSION

_HOMES = {
    # The front door
    "DP": "folkmoot.privacy.dp:DP",
    "Comparison": "folkmoot.train.comparison:Comparison",
    "Device": "folkmoot.engines.devices:Device",
    "Evaluation": "folkmoot.train.compared:Evaluation",
    "Fleet": "folkmoot.engines.fleet:Fleet",
    "Secure": "folkmoot.secagg.secure:Secure",
    "Result": "folkmoot.train.result:Result",
    "Worker": "folkmoot.remote.worker:Worker",
    "check": "folkmoot.train.check:check",
    "compare": "folkmoot.train.comparison:compare",
    "evaluate": "folkmoot.evaluation:evaluate",
    "evaluate_privately": "folkmoot.train.private_evaluation:evaluate_privately",
    "finetune": "folkmoot.train.alone:finetune",
    "load_result": "folkmoot.train.result:load_result",
    "process": "folkmoot.train.process:process",
    "run": "folkmoot.train.run:run",
    # What is learnt
    "classifier": "folkmoot.local.kinds:classifier",
    "keras": "folkmoot.adapters:keras",
    "language_model": "folkmoot.local.kinds:language_model",
    "objective": "folkmoot.local.objective:objective",
    "regressor": "folkmoot.local.kinds:regressor",
    # The nouns
    "Aggregate": "folkmoot.core.aggregator:Aggregate",
    "Aggregator": "folkmoot.core.aggregator:Aggregator",
    "Algorithm": "folkmoot.core.algorithm:Algorithm",
    "Batch": "folkmoot.core.algorithm:Batch",
    "Bounds": "folkmoot.core.codec:Bounds",
    "Codec": "folkmoot.core.codec:Codec",
    "Cohort": "folkmoot.core.engine:Cohort",
    "Engine": "folkmoot.core.engine:Engine",
    "LocalWork": "folkmoot.core.algorithm:LocalWork",
    "Metric": "folkmoot.local.metrics:Metric",
    "Optimizer": "folkmoot.optimizers:Optimizer",
    "Plan": "folkmoot.core.algorithm:Plan",
    "Seen": "folkmoot.core.algorithm:Seen",
    "Task": "folkmoot.core.algorithm:Task",
    "Tree": "folkmoot.core.tree:Tree",
    "Update": "folkmoot.core.aggregator:Update",
    # Operators
    "aggregate": "folkmoot.aggregators.mean:aggregate",
    "chain": "folkmoot.core.codec:chain",
    "grad": "folkmoot.local.grad:grad",
    # Errors
    "BudgetError": "folkmoot.core.errors:BudgetError",
    "ClientError": "folkmoot.core.errors:ClientError",
    "DataError": "folkmoot.core.errors:DataError",
    "FolkmootError": "folkmoot.core.errors:FolkmootError",
    "RoundError": "folkmoot.core.errors:RoundError",
    "SettingsError": "folkmoot.core.errors:SettingsError",
    # Rooms
    "adapters": "folkmoot.adapters",
    "aggregators": "folkmoot.aggregators",
    "algorithms": "folkmoot.algorithms",
    "audit": "folkmoot.audit",
    "codecs": "folkmoot.codecs",
    "data": "folkmoot.data",
    "engines": "folkmoot.engines",
    "fleets": "folkmoot.engines.fleets",
    "local": "folkmoot.local",
    "metrics": "folkmoot.local.metrics",
    "optimizers": "folkmoot.optimizers",
    "privacy": "folkmoot.privacy",
    "remote": "folkmoot.remote",
    "secagg": "folkmoot.secagg",
    "sampling": "folkmoot.train.sampling",
    "schedules": "folkmoot.schedules",
    "staleness": "folkmoot.staleness",
    "stopping": "folkmoot.train.stopping",
    "tree": "folkmoot.core.tree",
}

# An algorithm has one line, in the list of its folder, which is read here and not yet imported.
_LISTED = Path(__file__).with_name("algorithms").joinpath("__init__.py").read_text("utf-8")
_HOMES |= {
    name: f"{home}:{name}"
    for home, name in re.findall(
        r"^from (folkmoot\.algorithms\.\w+) import (\w+) as", _LISTED, re.M
    )
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        near = difflib.get_close_matches(name, _HOMES, n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module 'folkmoot' has no attribute {name!r}{hint}")
    module, _, attribute = _HOMES[name].partition(":")
    home = importlib.import_module(module)
    value = getattr(home, attribute) if attribute else home
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
