"""Losses and the metric of survival: Cox's partial likelihood, a hazard by years, the c-index.

Cox, "Regression Models and Life-Tables", J. R. Stat. Soc. B 34, 1972: section 2 for the partial
likelihood, section 6 for the discrete logistic model. In all of them `y` is (n, 2): the time in
years, and 1 where the death was seen (0: alive when last heard of).
"""

import torch
from torch import nn
from torch.nn.functional import softplus

YEARS = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, torch.inf)
"""Ends of the intervals in which the discrete model counts deaths; chosen before looking."""


def partial_likelihood(risk, y):
    """Return the negative log partial likelihood of a region, over its deaths; risk: (n, 1).

    A patient's term holds everyone who was alive then: it is no sum over patients.
    """
    time, died = y.unbind(1)
    order = time.argsort(descending=True, stable=True)
    risk, died = risk[:, 0][order], died[order]
    terms = risk.logcumsumexp(0) - risk
    return (terms * died).sum() / died.sum().clamp(min=1)


class Hazard(nn.Module):
    """Logits of dying in each interval, of who lives at its beginning: (n, 39) -> (n, 6)."""

    def __init__(self):
        super().__init__()
        self.risk = nn.Linear(39, 1, bias=False)
        # About one in thirty dies in a year of follow-up.
        self.baseline = nn.Parameter(torch.full((len(YEARS) - 1,), -3.4))

    def forward(self, x):
        return self.risk(x) + self.baseline


def by_years(logits, y):
    """Return each patient's negative log likelihood, (n,): a sum over patients, and over years."""
    time, died = y[:, :1], y[:, 1:]
    begins, ends = torch.tensor(YEARS[:-1]), torch.tensor(YEARS[1:])
    survived = (time >= ends).float()
    dies = died * (time >= begins) * (time < ends)
    return ((survived + dies) * softplus(logits) - dies * logits).sum(1)


def pairs(risk, y):
    """Return how many comparable pairs there are, and in how many the first to die scored more."""
    time, died = y.unbind(1)
    risk = risk[:, 0]
    comparable = (time[:, None] < time) & (died[:, None] == 1)
    higher = (risk[:, None] > risk).double() + 0.5 * (risk[:, None] == risk).double()
    return int(comparable.sum()), float((higher * comparable).sum())


def concordance(found):
    """Return Harrell's c-index of pairs, which may come from several regions."""
    count, right = (sum(values) for values in zip(*found, strict=True))
    return right / count
