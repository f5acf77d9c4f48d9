"""Sensors: the air of Beijing, the engines of aircraft, and what people do, by their devices.

    python examples/sensors [--docs]

Three tables: training together in rounds, in buffers as answers come, with fewer bytes, and with
privacy, against each device by itself and against all rows in one place. Hours are virtual, of
boards whose chips do three million operations a second; they sleep for twenty minutes of an hour,
and four of ten are on LTE-M. Draws sensors-air.png, sensors-engines.png and sensors-people.png,
here or, with --docs, in docs/pictures. Ends with:

    together against alone: air 18.4 and 18.5, engines 14.8 and 40.9, people 0.924 and 0.974
"""

import sys
import warnings
from pathlib import Path

from fields import FIELDS
from training import QUICK, ways

import folkmoot as fm

DOCS = "--docs" in sys.argv
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures" if DOCS else Path()
SEEDS = range(1 if QUICK else 3)
# That noise is louder than a round is what the tables are there to show.
warnings.filterwarnings("ignore", "The noise of a round", UserWarning)

told = []
for name, field in FIELDS.items():
    table = fm.compare(ways(field), seeds=SEEDS)
    print(f"\n{name}\n\n{table.markdown() if DOCS else table}")
    table.plot(PICTURES / f"sensors-{name}.png", table.names[0])
    values = [table.interval(way, table.names[0]).mean for way in ("federated", "each alone")]
    told.append("{} {:.3g} and {:.3g}".format(name, *values))
print(f"\ntogether against alone: {', '.join(told)}")
