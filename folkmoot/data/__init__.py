"""Clients and what they hold: shipped sets, your own data, partitions of pooled data.

    clients, test = fm.data.load("mnist_writers")
    clients = fm.data.from_frame(frame, client="hospital", target="label")
    clients = fm.data.partition.dirichlet(examples, 100, alpha=0.3).clients(examples)

Anything with clients in it is a `ClientData`, a mapping from id to `Client`; examples are dicts of
tensors. pandas, h5py and datasets are imported only by the readers that need them.
"""

from folkmoot.data import partition
from folkmoot.data.assignment import Partition
from folkmoot.data.client_data import Client, ClientData, UnknownClientError
from folkmoot.data.examples import as_examples, check_examples
from folkmoot.data.formats.flamby import from_flamby
from folkmoot.data.formats.folder import from_folder
from folkmoot.data.formats.frame import from_frame
from folkmoot.data.formats.hugging_face import from_hugging_face
from folkmoot.data.formats.leaf import from_leaf
from folkmoot.data.formats.tff import from_tff
from folkmoot.data.load import load
from folkmoot.data.pooled import from_arrays
from folkmoot.data.sets.beijing_air import beijing_air
from folkmoot.data.sets.fsdd import fsdd
from folkmoot.data.sets.hapt import hapt
from folkmoot.data.sets.heart_disease import heart_disease
from folkmoot.data.sets.mnist_writers import mnist_writers
from folkmoot.data.sets.shakespeare import shakespeare
from folkmoot.data.sets.tcga_brca import tcga_brca
from folkmoot.data.sets.turbofan import turbofan
from folkmoot.data.sources import as_clients, from_datasets, from_function

__all__ = [
    "Client",
    "ClientData",
    "Partition",
    "UnknownClientError",
    "as_clients",
    "as_examples",
    "beijing_air",
    "check_examples",
    "from_arrays",
    "from_datasets",
    "from_flamby",
    "from_folder",
    "from_frame",
    "from_function",
    "from_hugging_face",
    "from_leaf",
    "from_tff",
    "fsdd",
    "hapt",
    "heart_disease",
    "load",
    "mnist_writers",
    "partition",
    "shakespeare",
    "tcga_brca",
    "turbofan",
]
