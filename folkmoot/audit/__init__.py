"""Empirical privacy: what can be shown to leak, beside what was promised not to."""

from folkmoot.audit.canaries import assert_private, audit
from folkmoot.audit.inversion import first_layer, invert, labels_of, nearest, similarity, updates
from folkmoot.audit.membership import Membership, membership
from folkmoot.audit.picture import draw
from folkmoot.audit.report import Audit
from folkmoot.audit.strangers import audit_examples
from folkmoot.audit.sums import audit_sum

__all__ = [
    "Audit",
    "Membership",
    "assert_private",
    "audit",
    "audit_examples",
    "audit_sum",
    "draw",
    "first_layer",
    "invert",
    "labels_of",
    "membership",
    "nearest",
    "similarity",
    "updates",
]
