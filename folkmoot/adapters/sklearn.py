"""Linear models of scikit-learn as local work: what travels is `coef_` and `intercept_`.

Each round a client fits a copy of the estimator, from the global arrays where the estimator can
begin with some: `LogisticRegression`, `Lasso` and `ElasticNet` by a warm start, those trained by
gradient steps with `partial_fit`. `LinearRegression` and `Ridge` have a closed form and forget
where they began, so one round is all there is: the mean of local solutions by examples, which is
not the pooled solution unless clients' inputs have one covariance.

What one could get wrong: an estimator learns from its data which classes and inputs there are, and
a client may lack some, so both are stated. Penalties act at each client. Where a client lacks a
class, nothing but `tol` and `max_iter` ends the growth of its intercepts: take few steps in each of
many rounds, such as `LogisticRegression(max_iter=1)`. Scales must be those of all clients:
standardise data beforehand, not in a pipeline that each client fits.
"""

import functools
import warnings
from typing import Any

import numpy as np

from folkmoot.adapters import losses
from folkmoot.adapters.functions import functions
from folkmoot.adapters.stated import column, is_whole, whole
from folkmoot.core.algorithm import LocalWork
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.local import metrics

_CLASSIFIERS = {"LogisticRegression": "warm", "SGDClassifier": "steps", "Perceptron": "steps"}
_REGRESSORS = {
    "LinearRegression": "anew",
    "Ridge": "anew",
    "Lasso": "warm",
    "ElasticNet": "warm",
    "SGDRegressor": "steps",
}
_SOLVERS = ("lbfgs", "newton-cg", "newton-cholesky")
"""Of LogisticRegression: those to which a row of weight 0 says nothing."""


def sklearn(
    estimator: Any, *, inputs: int, classes: int | None = None, epochs: int = 1
) -> LocalWork:
    """Let a linear estimator of scikit-learn learn from clients.

    Args:
        estimator: `LogisticRegression`, `SGDClassifier` or `Perceptron`; `LinearRegression`,
            `Ridge`, `Lasso`, `ElasticNet` or `SGDRegressor`. It is copied; one that has been fitted
            is the first global model, else all arrays begin with zeros.
        inputs: Columns of "x", (rows, inputs); it is converted to float64.
        classes: Of a classifier: how many there are in all, at least 2. Labels "y" count from 0;
            a client may lack some.
        epochs: Passes over a client's examples in a round, of an estimator that is trained by
            gradient steps. Its rate begins anew in each round.

    Returns:
        Local work for `fm.fedavg` and its kin. `result.model.learner` is the fitted estimator.

    Raises:
        SettingsError: If scikit-learn is not installed, the estimator is another one, has options
            that need all data in one place, or a number is out of range.
    """
    linear = _library()
    whole(inputs=inputs, epochs=epochs)
    way = _way(linear, estimator, classes)
    if epochs != 1 and way != "steps":
        raise SettingsError(
            f"epochs={epochs} is for estimators that take gradient steps, and a "
            f"{type(estimator).__name__} fits until it is done. Leave epochs= out."
        )
    _refuse_options(estimator)
    fits = {"warm": _fit_warm, "anew": _fit_anew, "steps": _fit_steps}
    return functions(
        _started(estimator, inputs, classes),
        _get,
        _set,
        functools.partial(_fit, fits[way], classes, epochs),
        predict=_decide if classes else _predict,
        loss=_loss(estimator, classes),
        metrics=(losses.accuracy(),) if classes else (metrics.rmse(), metrics.mae()),
    )


def _library() -> Any:
    try:
        from sklearn import linear_model
    except ImportError as error:
        raise SettingsError(
            "Estimators of scikit-learn need it, and it is not installed: pip install "
            "'folkmoot[sklearn]'."
        ) from error
    return linear_model


def _way(linear: Any, estimator: Any, classes: int | None) -> str:
    """Return how an estimator is fitted, or refuse it."""
    known = {**_CLASSIFIERS, **_REGRESSORS}
    name = type(estimator).__name__
    if name not in known or type(estimator) is not getattr(linear, name):
        kind = f"the class {estimator.__name__}" if isinstance(estimator, type) else f"a {name}"
        raise SettingsError(
            f"sklearn() takes a linear estimator, one of {', '.join(known)}, but was given {kind}. "
            "Anything else that learns enters by fm.adapters.functions(...)."
        )
    if name in _CLASSIFIERS and not is_whole(classes, 2):
        raise SettingsError(
            f"A {name} must know how many classes there are in all, for a client may lack some: "
            f"classes= must be a whole number of at least 2, but is {classes!r}."
        )
    if name in _REGRESSORS and classes is not None:
        raise SettingsError(f"A {name} learns numbers, so leave classes={classes!r} out.")
    return known[name]


def _refuse_options(estimator: Any) -> None:
    name, options = type(estimator).__name__, estimator.get_params()
    if name == "LogisticRegression" and options["solver"] not in _SOLVERS:
        raise SettingsError(
            f"LogisticRegression(solver={options['solver']!r}) does not tell a missing class from "
            f"a rare one. Use one of {', '.join(_SOLVERS)}."
        )
    if options.get("class_weight") == "balanced":
        raise SettingsError(
            "class_weight='balanced' would be balanced at each client by its own labels, so that "
            "they learn by different losses. State the weights: class_weight={0: ..., 1: ...}."
        )
    for option in ("average", "early_stopping"):
        if options.get(option):
            raise SettingsError(
                f"{name}({option}=...) keeps a second model, or rows, of its own at each client. "
                f"Leave {option}= out."
            )


def _loss(estimator: Any, classes: int | None) -> Any:
    """Return what models are judged by; margins, which are no logits, by the labels they miss."""
    if classes is None:
        return losses.square_error
    known = estimator.get_params().get("loss") == "log_loss" and classes == 2
    logits = known or type(estimator).__name__ == "LogisticRegression"
    return losses.cross_entropy if logits else losses.wrong


def _started(estimator: Any, inputs: int, classes: int | None) -> Any:
    """Return a copy with arrays: its own where it has been fitted, else zeros."""
    from sklearn.base import clone

    first = clone(estimator)
    rows = None if classes is None else (1 if classes == 2 else classes)
    shape = (inputs,) if rows is None else (rows, inputs)
    found = getattr(estimator, "coef_", None)
    if found is None:
        first.coef_ = np.zeros(shape)
        single = rows is None and type(estimator).__name__ != "SGDRegressor"
        first.intercept_ = 0.0 if single else np.zeros(rows or 1)
    elif found.shape != shape:
        raise SettingsError(
            f"The fitted {type(estimator).__name__} has coef_ of shape {found.shape}, but inputs="
            f"{inputs}, classes={classes} ask for {shape}."
        )
    elif classes is not None and list(estimator.classes_) != list(range(classes)):
        raise SettingsError(
            f"The fitted {type(estimator).__name__} tells apart {list(estimator.classes_)}, but "
            f"here labels count from 0 to {classes - 1}. Fit it to such labels."
        )
    else:
        first.coef_ = np.array(found, dtype=np.float64)
        first.intercept_ = np.array(estimator.intercept_, dtype=np.float64)
    first.n_features_in_ = inputs
    if classes is not None:
        first.classes_ = np.arange(classes)
    return first


def _get(estimator: Any) -> dict[str, Any]:
    return {"coef_": estimator.coef_, "intercept_": estimator.intercept_}


def _set(estimator: Any, arrays: dict[str, Any]) -> None:
    estimator.coef_, estimator.intercept_ = arrays["coef_"], arrays["intercept_"]


def _fit(fit: Any, classes: int | None, epochs: int, estimator: Any, data: Tree) -> None:
    from sklearn.exceptions import ConvergenceWarning

    y = column(data["x"], data["y"], estimator.n_features_in_, classes)
    x = data["x"].astype(np.float64)
    with _one_thread(), warnings.catch_warnings():
        # A round may be cut short on purpose: max_iter=1 is one step.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit(estimator, x, y, classes, epochs)


def _fit_anew(estimator: Any, x: Any, y: Any, classes: int | None, epochs: int) -> None:
    estimator.fit(x, y)


def _fit_warm(estimator: Any, x: Any, y: Any, classes: int | None, epochs: int) -> None:
    asked = estimator.warm_start
    estimator.set_params(warm_start=True)
    if classes is None:
        estimator.fit(x, y)
    else:
        # A row of weight 0 for each class that this client lacks: the loss is that of all classes.
        absent = np.setdiff1d(np.arange(classes), y)
        rows = np.concatenate([x, np.zeros((len(absent), x.shape[1]))])
        weights = np.concatenate([np.ones(len(x)), np.zeros(len(absent))])
        estimator.fit(rows, np.concatenate([y, absent]), sample_weight=weights)
    estimator.set_params(warm_start=asked)


def _fit_steps(estimator: Any, x: Any, y: Any, classes: int | None, epochs: int) -> None:
    known = {} if classes is None else {"classes": np.arange(classes)}
    for _ in range(epochs):
        estimator.partial_fit(x, y, **known)


def _decide(estimator: Any, data: Tree) -> Any:
    """Return decision values: (rows,) of two classes, above 0 for class 1; else (rows, classes)."""
    return estimator.decision_function(data["x"].astype(np.float64))


def _predict(estimator: Any, data: Tree) -> Any:
    return estimator.predict(data["x"].astype(np.float64))


@functools.cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def _one_thread() -> Any:
    """Fit with one thread of arithmetic: more threads give other bits, and workers have cores."""
    return _controller().limit(limits=1)
