"""Linear regression by mean products: what scikit-learn finds of all rows together, in one round.

Least squares needs of data only the means of columns and of products of any two. Each client sends
those of its rows, weighted by their number, so the solution is that of all rows in one place,
whatever the clients hold; a mean of local solutions (`adapters/sklearn.py`) is not. Ridge's penalty
also needs the number of rows, which is a second exchange.

What one could get wrong: products square the condition number, so inputs that are nearly multiples
of each other, or far from 0 beside their spread, lose twice as many digits as in one place. One
client's means are seen by the server unless they are summed securely; of a client with as few rows
as columns they tell the rows. Secure sums cut what is far longer than was stated:
`result.history[0]["clipped"]` counts such clients; and their steps are finer where the most rows of
a client are known, `fm.Secure(weight_cap=...)`.
"""

from typing import Any

import torch
from torch import Tensor

from folkmoot.adapters.sklearn import sklearn
from folkmoot.adapters.stated import column
from folkmoot.aggregators import total, weighted_mean
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Algorithm, Batch, LocalWork, Round, Seen, Task
from folkmoot.core.errors import SettingsError, not_negative, positive
from folkmoot.core.tree import Tree


def least_squares(estimator: Any, *, inputs: int, length: float | None = None) -> Algorithm:
    """Build linear regression by mean products.

    Args:
        estimator: `LinearRegression` or `Ridge` of scikit-learn; of its options, `fit_intercept`
            and Ridge's `alpha`, a number, are heard.
        inputs: Columns of "x", (rows, inputs). "y" is (rows,).
        length: For secure sums: how long a client's mean products may be, as one vector of
            (inputs + 2)^2 numbers; up to 32 times that is room. None is `inputs` + 2, as of
            standardised columns.

    Returns:
        An algorithm of one exchange, or two for Ridge; a second round solves anew for its cohort.
        `result.model.learner` is the fitted estimator.

    Raises:
        SettingsError: If scikit-learn is not installed, or the estimator is another one.
    """
    plain = sklearn(estimator, inputs=inputs)
    length = inputs + 2.0 if length is None else length
    positive(length=length)
    options = estimator.get_params()
    if type(estimator).__name__ not in ("LinearRegression", "Ridge") or options.get("positive"):
        raise SettingsError(
            "least_squares() solves LinearRegression() and Ridge(alpha=...), without positive=, "
            f"but was given {estimator!r}. Use fm.fedavg(fm.adapters.sklearn(...))."
        )
    alpha, centred = options.get("alpha", 0.0), bool(options["fit_intercept"])
    not_negative(alpha=alpha)
    products = _products(plain, inputs)
    rows = _rows(products)

    def init() -> Tree:
        return {**plain.init(), "round": torch.ones((), dtype=torch.int64)}

    def round(state: Tree) -> Round:
        # Nobody needs to hear of a model; a field finds its room by what is broadcast.
        sent = {"round": state["round"], "length": torch.tensor(length, dtype=torch.float64)}
        means = yield Task(sent, products, weighted_mean())
        pull = 0.0
        if alpha:
            counted = yield Task(sent, rows, total())
            pull = alpha / max(float(counted.value["rows"]), 1.0)
        coefficients, intercept = _solved(means.value["products"], pull, centred)
        params = {"coef_": coefficients, "intercept_": intercept}
        return {**state, "params": params, "round": state["round"] + 1}

    return Algorithm("least_squares", init, round, (plain, products, rows))


def _products(plain: LocalWork, inputs: int) -> LocalWork:
    """Return work that sends the mean products of any two columns: of the inputs, 1, and y."""

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        return {"products": torch.zeros(inputs + 2, inputs + 2, dtype=torch.float64)}

    def step(work: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        column(batch.data["x"], batch.data["y"], inputs)
        x, y = batch.data["x"].double(), batch.data["y"].double().reshape(-1, 1)
        columns = torch.cat([x, torch.ones_like(y), y], dim=1)
        return {"products": columns.T @ columns / len(x)}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        value = {"products": carry["products"]}
        # Said to be packed: what a codec rounds off, a difference of two large means may need.
        return Update(value, seen.examples, packed_bytes=trees.num_bytes(value)), {}

    return plain._replace(name="products", start=start, step=step, finish=finish)


def _rows(products: LocalWork) -> LocalWork:
    """Return work that sends how many rows a client has; NaN where its products are left out."""

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        sound = carry["products"].isfinite().all()
        rows = torch.where(sound, float(seen.examples), float("nan")).double()
        return Update({"rows": rows}), {}

    return products._replace(name="rows", finish=finish)


def _solved(products: Tensor, pull: float, centred: bool) -> tuple[Tensor, Tensor]:
    """Return coefficients, (inputs,), and intercept, [], of mean products.

    Where inputs hang on each other the shortest coefficients are chosen, as scikit-learn does.
    """
    ones, last = products.shape[0] - 2, products.shape[0] - 1
    gram, moment = products[:ones, :ones], products[:ones, last]
    means, mean = products[:ones, ones], products[ones, last]
    if centred:
        gram, moment = gram - means.outer(means), moment - mean * means
    pulled = gram + pull * torch.eye(ones, dtype=torch.float64)
    # Ridge's solution is one, so it may be found in units in which no input is too small to count;
    # without a penalty the shortest of several hangs on the units.
    units = pulled.diagonal().clamp(min=0).sqrt() if pull else torch.ones_like(moment)
    units = torch.where(units > 0, units, 1.0)
    inverse = torch.linalg.pinv(pulled / units.outer(units), hermitian=True)
    found = inverse @ (moment / units) / units
    return found, (mean - means @ found if centred else torch.zeros((), dtype=torch.float64))
