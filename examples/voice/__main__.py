"""Six people teach a network ten digits: what is it worth to a seventh, and to each of them?

    python examples/voice

First each of the six is left out in turn, and heard by what the other five have learnt; then all
six train, and each is judged by recordings of its own. Draws voice.png and voice-known.png; with
--docs into docs/pictures, and prints Markdown. Ends with:

    a new speaker: federated 0.78, pooled 0.79, one alone 0.54; known: 0.94, fine-tuned 0.98
"""

import statistics
import sys
import warnings
from pathlib import Path

import ways

import folkmoot as fm
from data import accuracy, together

SEEDS = range(1 if ways.QUICK else 3)
PEOPLE = tuple(ways.everyone)
LEFT_OUT = PEOPLE[:1] if ways.QUICK else PEOPLE
TO_ALL = {
    "pooled": ways.pooled,
    "local only": ways.local_only,
    "federated": ways.federated,
    "2 bits a number": ways.compressed,
    "hidden, secure": ways.hidden,
}
TO_EACH = TO_ALL | {"fine-tuned": ways.fine_tuned, "own last layer": ways.own_layer}


def to_a_stranger(way, seed):
    """Leave each speaker out in turn, and judge the models of the others by all it has recorded."""
    found, costs = {}, []
    for name in LEFT_OUT:
        models, cost = way(tuple(one for one in PEOPLE if one != name), seed)
        recorded = together((ways.everyone[name].train, ways.everyone[name].test))
        found[name] = statistics.fmean(accuracy(one, recorded) for one in set(models.values()))
        costs.append(cost)
    summary = {"new speaker": statistics.fmean(found.values()), "worst": min(found.values())}
    return summary | costs[0] | found


def to_each(way, seed):
    """Train with everyone, and judge each speaker's model by its own tests."""
    models, cost = way(PEOPLE, seed)
    found = [accuracy(models[name], ways.everyone[name].test) for name in PEOPLE]
    return {"own tests": statistics.fmean(found), "worst": min(found)} | cost


def compared(judge, ways_to_train):
    """Return the table of some ways."""
    judged = {name: lambda seed, way=way: judge(way, seed) for name, way in ways_to_train.items()}
    return fm.compare(judged, seeds=SEEDS)


def part(table, names):
    """Return the columns of a table that are not in `names`, and those that are."""

    def columns(wanted):
        found = {
            way: {name: values[name] for name in values if wanted(name)}
            for way, values in table.found.items()
        }
        return fm.Comparison(seeds=table.seeds, found=found)

    return columns(lambda name: name not in names), columns(lambda name: name in names)


# That noise is louder than a batch is what the tables are there to show.
warnings.filterwarnings("ignore", "The noise of a round", UserWarning)
docs = "--docs" in sys.argv[1:]
folder = Path(__file__).parents[2] / "docs/pictures" if docs else Path()
strangers, by_name = part(compared(to_a_stranger, TO_ALL), LEFT_OUT)
known = compared(to_each, TO_EACH)
told = {
    "A new speaker, whom nobody has trained on.": strangers,
    "The same, by who is left out.": by_name,
    "Each of the six, by tests of its own.": known,
}
for title, table in told.items():
    print(f"{title}\n\n{table.markdown() if docs else table}\n")
strangers.plot(folder / "voice.png", "new speaker")
known.plot(folder / "voice-known.png", "own tests")


def mean(table, way, name):
    return f"{table.interval(way, name).mean:.2f}"


print(
    f"a new speaker: federated {mean(strangers, 'federated', 'new speaker')}, "
    f"pooled {mean(strangers, 'pooled', 'new speaker')}, "
    f"one alone {mean(strangers, 'local only', 'new speaker')}; "
    f"known: {mean(known, 'federated', 'own tests')}, "
    f"fine-tuned {mean(known, 'fine-tuned', 'own tests')}"
)
