"""Write the samples that travel inside the package: two small sets whole, and 100 writers of MNIST.

    python tools/make_samples.py

Reads `data/`, writes `folkmoot/data/samples/`; the same files come out each time. No random choice:
writers are taken at even steps of their sorted numbers, so both groups of writers are in the
sample, and as large a share of the unseen test writers as of the train writers.
"""

import shutil
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "data"
TARGET = ROOT / "folkmoot" / "data" / "samples"

TRAIN_WRITERS = 100


def main() -> None:
    for name in ("heart_disease", "tcga_brca"):
        (TARGET / name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SOURCE / name / f"{name}.csv", TARGET / name / f"{name}.csv")
    (TARGET / "mnist_writers").mkdir(parents=True, exist_ok=True)
    with np.load(SOURCE / "mnist_writers" / "mnist_writers.npz", allow_pickle=False) as arrays:
        columns = dict(arrays)
    writers, unseen = (np.unique(columns["writer"][columns["split"] == part]) for part in (0, 1))
    unseen_kept = round(len(unseen) * TRAIN_WRITERS / len(writers))
    kept = np.concatenate([spread(writers, TRAIN_WRITERS), spread(unseen, unseen_kept)])
    rows = np.isin(columns["writer"], kept)
    target = TARGET / "mnist_writers" / "mnist_writers.npz"
    np.savez_compressed(target, **{name: values[rows] for name, values in columns.items()})
    for path in sorted(TARGET.glob("*/*")):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


def spread(values: np.ndarray, number: int) -> np.ndarray:
    """Return so many of the values, at even steps."""
    return values[np.arange(number) * len(values) // number]


if __name__ == "__main__":
    main()
