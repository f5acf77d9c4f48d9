"""Hospitals that show their patients to nobody: heart disease in four, survival in six regions.

    python examples/hospitals

What all patients at one place would teach, what each hospital has alone, and what they have
together by federated rounds: plain, in secure sums, with patients hidden, or both. Draws
hospitals.png and hospitals-survival.png; with --docs into docs/pictures, and prints Markdown. Ends:

    heart: together 0.81, hidden 0.78, pooled 0.82; lives: together 0.85, alone 0.71, pooled 0.85
"""

import sys
import warnings
from pathlib import Path

import heart
import survival

from data import QUICK

SEEDS = range(1 if QUICK else 5)

# That noise is louder than a batch, or a round, is what the tables are there to show.
warnings.filterwarnings("ignore", "The noise of a round", UserWarning)
docs = "--docs" in sys.argv[1:]
folder = Path(__file__).parents[2] / "docs/pictures" if docs else Path()

ill, lives = heart.table(SEEDS), survival.table(SEEDS)
titles = ("Heart disease in four hospitals.", "Survival with breast cancer in six regions.")
for title, table in zip(titles, (ill, lives), strict=True):
    print(f"{title}\n\n{table.markdown() if docs else table}\n")
ill.plot(folder / "hospitals.png", "accuracy")
lives.plot(folder / "hospitals-survival.png", "c-index")


def means(table, name, ways):
    """Return the means of some ways, as text."""
    return [f"{table.interval(way, name).mean:.2f}" for way in ways]


told = means(ill, "accuracy", ("federated", "hidden and secure", "pooled"))
print("heart: together {}, hidden {}, pooled {}; ".format(*told), end="")
print("lives: together {}, alone {}, pooled {}".format(*means(lives, "c-index", survival.TOLD)))
