"""Algorithms: one paper a file. A new one has its line here, and nothing else changes."""

from folkmoot.algorithms.agnostic import agnostic as agnostic
from folkmoot.algorithms.apfl import apfl as apfl
from folkmoot.algorithms.cyclic import cyclic as cyclic
from folkmoot.algorithms.ditto import ditto as ditto
from folkmoot.algorithms.ef21 import ef21 as ef21
from folkmoot.algorithms.fedasync import fedasync as fedasync
from folkmoot.algorithms.fedavg import fedavg as fedavg
from folkmoot.algorithms.fedavgm import fedavgm as fedavgm
from folkmoot.algorithms.fedbn import fedbn as fedbn
from folkmoot.algorithms.feddyn import feddyn as feddyn
from folkmoot.algorithms.fedexp import fedexp as fedexp
from folkmoot.algorithms.fednova import fednova as fednova
from folkmoot.algorithms.fedopt import fedadagrad as fedadagrad
from folkmoot.algorithms.fedopt import fedadam as fedadam
from folkmoot.algorithms.fedopt import fedyogi as fedyogi
from folkmoot.algorithms.fedper import fedper as fedper
from folkmoot.algorithms.fedprox import fedprox as fedprox
from folkmoot.algorithms.fedrep import fedrep as fedrep
from folkmoot.algorithms.fedsam import fedsam as fedsam
from folkmoot.algorithms.ifca import ifca as ifca
from folkmoot.algorithms.lg_fedavg import lg_fedavg as lg_fedavg
from folkmoot.algorithms.mime import mime as mime
from folkmoot.algorithms.mime import mimelite as mimelite
from folkmoot.algorithms.moon import moon as moon
from folkmoot.algorithms.pfedme import pfedme as pfedme
from folkmoot.algorithms.qfedavg import qfedavg as qfedavg
from folkmoot.algorithms.scaffold import scaffold as scaffold

__all__ = sorted(name for name, value in globals().items() if callable(value))
