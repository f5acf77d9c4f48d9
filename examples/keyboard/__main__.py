"""A keyboard: the next character, learnt from 978 roles of Shakespeare whose text stays with them.

    python examples/keyboard [--docs]
    python examples/keyboard --type

The first compares training together, with fewer bytes, with the privacy of a whole role, with all
text in one place, and alone: on held-out text of all roles, and on that of twelve with text enough,
before and after the model is adapted to each of them. The second suggests words as one types, with
the model in the folder keyboard-run, which it trains if there is none. Draws keyboard.png, here or,
with --docs, in docs/pictures. Ends with:

    right: together 0.46, in one place 0.47; of twelve roles 0.46, adapted to each 0.46, alone 0.41
"""

import sys
import warnings
from pathlib import Path

import suggest
import training
from model import Keyboard

import data
import folkmoot as fm

DOCS = "--docs" in sys.argv
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures" if DOCS else Path()
RUN = Path("keyboard-run")
TOLD = [
    ("federated", "all roles"),
    ("pooled", "all roles"),
    ("federated", "twelve roles"),
    ("federated", "adapted"),
    ("each alone", "adapted"),
]
# That noise is louder than a round is what the table is there to show.
warnings.filterwarnings("ignore", "The noise of a round", UserWarning)

if "--type" in sys.argv:
    if not RUN.is_dir():
        print(f"There is no {RUN} yet: training for a minute.", file=sys.stderr)
        training.together(0, data.load()[0], save=RUN)
    suggest.type_along(fm.load_result(RUN, model=Keyboard()).model.eval())
else:
    table = fm.compare(training.ways(RUN), seeds=range(1 if training.QUICK else 3))
    print(table.markdown() if DOCS else table)
    table.plot(PICTURES / "keyboard.png", "all roles")
    means = [table.interval(*one).mean for one in TOLD]
    print(
        "\nright: together {:.2f}, in one place {:.2f}; of twelve roles {:.2f}, adapted to each "
        "{:.2f}, alone {:.2f}".format(*means)
    )
