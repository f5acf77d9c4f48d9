"""Remote workers: tensors that live elsewhere, and programs that compute on them from here."""

from folkmoot.remote.errors import Refused, RemoteError
from folkmoot.remote.numbers import private_count, private_histogram, private_mean
from folkmoot.remote.pointer import Pointer
from folkmoot.remote.policy import Policy
from folkmoot.remote.worker import Request, Worker

__all__ = [
    "Pointer",
    "Policy",
    "Refused",
    "RemoteError",
    "Request",
    "Worker",
    "private_count",
    "private_histogram",
    "private_mean",
]
