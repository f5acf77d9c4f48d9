"""A client in a process of its own, and an engine whose clients are such processes.

    python sites.py PORT CLIENT

A frame is its length in 8 bytes, then a tree as safetensors with a header. A client trains with
the stream of the sequential engine, so that a round's sum has the bits of a simulated one.
"""

import contextlib
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn

import folkmoot as fm
from folkmoot.aggregators.compressed import large, put_back
from folkmoot.core import fold, rng, wire
from folkmoot.core.aggregator import Update
from folkmoot.core.engine import Cohort, Collected, LeftOut, Setting
from folkmoot.engines.stream import Stream, one_thread
from folkmoot.engines.tasks import example
from folkmoot.train.compression import compressing

SEED, CLIENTS, EPOCHS = 0, 8, 5
SIZES = [100, 150, 200, 250, 300, 350, 400, 450]
CODEC = fm.codecs.quantize(8)
LATE = "it was not done at the deadline"


def data():
    """Build the clients; each draws its own examples."""

    def load(client):
        dice = torch.Generator().manual_seed(client)
        x = torch.randn(SIZES[client], 784, generator=dice)
        return {"x": x, "y": (x[:, :10]).argmax(1)}

    return fm.data.from_function(range(CLIENTS), load)


def algorithm(packed=False):
    """Build FedAvg of 102 thousand parameters; with `packed` its updates travel in 8 bits each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    plain = fm.fedavg(fm.local.sgd(fm.classifier(model), lr=0.02, epochs=EPOCHS, batch_size=10))
    return compressing(plain, CODEC) if packed else plain


def send(connection, tree, **header):
    """Send a frame."""
    payload = wire.to_bytes(tree, {key: str(value) for key, value in header.items()})
    connection.sendall(len(payload).to_bytes(8, "big") + payload)


def receive(connection, until_s=None):
    """Receive a frame, by a time of the monotonic clock if one is given."""
    size = int.from_bytes(_exactly(connection, 8, until_s), "big")
    return wire.from_bytes(_exactly(connection, size, until_s))


def _exactly(connection, size, until_s):
    found = bytearray()
    while len(found) < size:
        if until_s is not None:
            connection.settimeout(max(1e-3, until_s - time.monotonic()))
        chunk = connection.recv(min(size - len(found), 1 << 16))
        if not chunk:
            raise ConnectionError("hung up")
        found += chunk
    return bytes(found)


def main(port, client):
    """Answer rounds; when the server hangs up, ask for the next one on a new connection."""
    torch.set_num_threads(1)
    stream, tasks = Stream(Setting(data(), SEED)), {}
    for packed in (False, True):
        built = algorithm(packed)
        tasks[packed] = next(built.round(built.init()))
    while True:
        connection = socket.create_connection(("127.0.0.1", port))
        with connection, contextlib.suppress(ConnectionError):
            send(connection, {}, client=client)
            while True:
                sent, header = receive(connection)
                packed, number = header["packed"] == "True", int(header["round"])
                task = tasks[packed]._replace(broadcast=sent)
                begun = time.monotonic()
                tree, weight = answer(stream, task, client, number, packed)
                send(connection, tree, weight=weight, train_s=time.monotonic() - begun)


def answer(stream, task, client, number, packed):
    """Train, and return what travels, with its weight."""
    cohort = Cohort(number, (client,), CLIENTS, CLIENTS)
    with one_thread():
        update, _ = stream.train(task, cohort, client, None)
        if not packed:
            return {"value": update.value}, update.weight
        vector, _ = large(update.value)
        return CODEC.pack(_link(task), vector, _key(cohort, client)), update.weight


def _link(task):
    """Return the codec's state, the same for every client."""
    return task.aggregator.init(example(task), CLIENTS).codec["link"]


def _key(cohort, client):
    base = rng.derive(SEED, round=cohort.round, purpose=cohort.purpose("encode"))
    return rng.of_client(base, client)


class Sites:
    """The open engine: processes behind links, asked all at once."""

    name, exact, streams = "sites", True, CLIENTS

    def __init__(self, links):
        here = Path(__file__).parent
        self.listening = socket.create_server(("127.0.0.1", 0))
        port = str(self.listening.getsockname()[1])
        links = json.dumps(links)
        self.proxy = subprocess.Popen(
            [sys.executable, str(here / "links.py"), port, links], stdout=subprocess.PIPE, text=True
        )
        ports = json.loads(self.proxy.stdout.readline())
        self.processes = [
            subprocess.Popen([sys.executable, str(here / "sites.py"), str(ports[at]), str(at)])
            for at in range(CLIENTS)
        ]
        self.pool = ThreadPoolExecutor(CLIENTS)
        self.connections = {}
        self.deadline_s, self.packed = float("inf"), False
        self.seconds, self.trained_s = [], {client: [] for client in range(CLIENTS)}

    def ask(self, task, state, cohort, own):
        """Send the model to all, wait for their answers or the deadline, and add."""
        while len(self.connections) < CLIENTS:
            self._accept()
        begun = time.monotonic()
        asked = [self.pool.submit(self._one, task, cohort, c, begun) for c in cohort.clients]
        found = [future.result() for future in asked]
        self.seconds.append(time.monotonic() - begun)
        expected = example(task)
        total = fold.zero(task.aggregator.encode(state, expected, 0))
        left_out, uploads = [], {}
        for client, answered in zip(cohort.clients, found, strict=True):
            if answered is None:
                self.connections.pop(client).close()
                left_out.append(LeftOut(client, cohort.round, LATE))
                continue
            tree, header = answered
            self.trained_s[client].append(float(header["train_s"]))
            value = tree.get("value", tree)
            if self.packed:
                arrived = CODEC.unpack(state.codec["link"], tree, _key(cohort, client))
                value = put_back(expected.value, large(expected.value)[1], arrived)
            # A cohort of 8 is cut into blocks of one.
            block = fold.add(fold.zero(expected), Update(value, float(header["weight"])))
            total, uploads[client] = fold.merge(total, block), 0
        return Collected(total, {}, left_out, 0.0, uploads)

    def _one(self, task, cohort, client, begun):
        connection = self.connections[client]
        connection.settimeout(None)
        send(connection, task.broadcast, round=cohort.round, packed=self.packed)
        try:
            return receive(connection, begun + min(self.deadline_s, 600.0))
        except TimeoutError:
            return None

    def _accept(self):
        connection, _ = self.listening.accept()
        _, header = receive(connection)
        self.connections[int(header["client"])] = connection

    def close(self):
        """End all processes."""
        for process in [*self.processes, self.proxy]:
            process.terminate()
            process.wait()
        self.proxy.stdout.close()
        for connection in [self.listening, *self.connections.values()]:
            connection.close()
        self.pool.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
