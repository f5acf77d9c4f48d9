"""Models of other libraries: each adapter is an extra, whose library is imported when it is used.

An adapter has its line here; importing all of them imports none of the libraries.
"""

from folkmoot.adapters.functions import functions as functions
from folkmoot.adapters.keras import keras as keras
from folkmoot.adapters.least_squares import least_squares as least_squares
from folkmoot.adapters.peft import peft as peft
from folkmoot.adapters.sklearn import sklearn as sklearn
from folkmoot.adapters.xgboost import xgboost as xgboost

__all__ = sorted(name for name, value in globals().items() if callable(value))
