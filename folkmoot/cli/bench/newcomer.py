"""The first five minutes: how long a newcomer waits, and how much he types.

Two whole programs, imports included, do the same work on scikit-learn's digits with a module of the
user's own: one with folkmoot, one by hand. They run as files, by turns.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WITH_FOLKMOOT = """\
import folkmoot as fm
from sklearn.datasets import load_digits
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(64, 64), nn.Linear(64, 10)
    def forward(self, x):
        return self.out(self.hidden(x / 16).relu())
x, y = load_digits(return_X_y=True)
clients = [(x[begin:begin + 150], y[begin:begin + 150]) for begin in range(0, 1500, 150)]
work = fm.local.sgd(fm.classifier(Net()), lr=0.1, epochs=5, batch_size=10)
result = fm.run(fm.fedavg(work), clients, rounds=5, test=(x[1500:], y[1500:]))
print(result.metrics["test_accuracy"])
"""
BY_HAND = """\
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(64, 64), nn.Linear(64, 10)
    def forward(self, x):
        return self.out(self.hidden(x / 16).relu())
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
model = Net()
server = {name: leaf.clone() for name, leaf in model.state_dict().items()}
for round in range(5):
    total = {name: torch.zeros_like(leaf) for name, leaf in server.items()}
    for begin in range(0, 1500, 150):
        model.load_state_dict(server)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(5):
            for rows in (torch.randperm(150) + begin).split(10):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
        for name, leaf in model.state_dict().items():
            total[name] += leaf / 10
    server = total
    model.load_state_dict(server)
    with torch.no_grad():
        print((model(x[1500:]).argmax(1) == y[1500:]).float().mean().item())
"""

_IMPORT = "import time; begun = time.perf_counter(); import {}; print(time.perf_counter() - begun)"
_DEMO = "from folkmoot.cli import main; main()"


def newcomer(runs: int) -> dict[str, Any]:
    """Measure what a newcomer meets, each `runs` times, and return medians as plain JSON."""
    with tempfile.TemporaryDirectory(prefix="folkmoot-bench-") as place:
        return {
            "digits": _digits(Path(place), runs),
            "import_folkmoot_s": _import("folkmoot", runs),
            "import_torch_s": _import("torch", runs),
            "demo_quick": _demo(Path(place), runs),
        }


def _digits(folder: Path, runs: int) -> dict[str, Any]:
    """Run both programs by turns; each has been read by Python once before it counts."""
    programs = {"folkmoot": WITH_FOLKMOOT, "plain": BY_HAND}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(runs + 1):
        for name, text in programs.items():
            file = folder / f"digits_{name}.py"
            file.write_text(text)
            begun = time.perf_counter()
            _python([str(file)], folder)
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "lines": len(WITH_FOLKMOOT.splitlines()),
        "plain_lines": len(BY_HAND.splitlines()),
        "folkmoot_s": medians["folkmoot"],
        "plain_s": medians["plain"],
        "ratio": medians["folkmoot"] / medians["plain"],
    }


def _import(name: str, runs: int) -> float:
    """Return the seconds that an import takes in a fresh interpreter."""
    return statistics.median(
        float(_python(["-c", _IMPORT.format(name)], Path.cwd())) for _ in range(runs)
    )


def _demo(folder: Path, runs: int) -> dict[str, float]:
    """Return when `folkmoot demo --quick` shows its first accuracy, and when it ends."""
    firsts, ends = [], []
    for _ in range(runs):
        begun, shown = time.perf_counter(), None
        command = [sys.executable, "-c", _DEMO, "demo", "--quick"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
        ) as demo:
            assert demo.stdout is not None
            for line in demo.stdout:
                if shown is None and "accuracy" in line:
                    shown = time.perf_counter() - begun
        if demo.returncode:
            raise subprocess.CalledProcessError(demo.returncode, command)
        ends.append(time.perf_counter() - begun)
        firsts.append(ends[-1] if shown is None else shown)
    return {"first_accuracy_s": statistics.median(firsts), "end_s": statistics.median(ends)}


def _python(arguments: list[str], folder: Path) -> str:
    """Run Python and return what it printed."""
    return subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
    ).stdout
