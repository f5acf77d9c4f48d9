"""`folkmoot demo`: the main job, handwritten digits across the people who wrote them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from folkmoot.cli.errors import reported
from folkmoot.cli.places import Places
from folkmoot.cli.run import Debug, Out, Workers

_COHORT = 50
_ROUNDS, _QUICK_ROUNDS = 200, 10


def demo(
    quick: Annotated[
        bool,
        typer.Option("--quick", envvar="FOLKMOOT_QUICK", help="Fewer rounds on the same data."),
    ] = False,
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="Rounds to run.", show_default="200")
    ] = None,
    workers: Workers = None,
    out: Out = None,
    debug: Debug = False,
) -> None:
    """Train a model across 539 people's handwritten digits, in a minute or two, offline."""
    rounds = rounds or (_QUICK_ROUNDS if quick else _ROUNDS)
    with reported(debug):
        place = Places(out)("demo")
        print(
            "Training a small network to read digits, across the people who wrote them.", flush=True
        )
        result = _train(rounds, 2 if quick else None, workers, place)
        print(result)
        print(f"\nPicture: {place / 'plot.png'}")
        print(f"Report:  {place / 'report.html'} (one file, opens in any browser)")
        print("Next:    folkmoot new mine")


def _train(rounds: int, evaluate_every: int | None, workers: int | None, place: Path) -> Any:
    """Run the first program of the documentation."""
    import torch
    from torch import nn

    from folkmoot.algorithms import fedavg
    from folkmoot.cli.display import display
    from folkmoot.data import load
    from folkmoot.local import classifier, sgd
    from folkmoot.train.run import run
    from folkmoot.train.summary import plural

    clients, test = load("mnist_writers")
    cohort = min(_COHORT, len(clients))
    print(
        f"{plural(rounds, 'round')}: {cohort} of {len(clients)} writers learn from their own "
        "digits, the server averages.\n"
        f"Scored on MNIST's {len(test['y']):,} test digits, by people whom no round has seen.",
        flush=True,
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    work = sgd(classifier(model), lr=0.2, epochs=1, batch_size=10)
    return run(
        fedavg(work),
        clients,
        rounds=rounds,
        cohort=cohort,
        test=test,
        seed=0,
        workers=workers,
        evaluate_every=evaluate_every,
        progress=display(None, False),
        save=place,
        name="demo",
    )
