"""The article's process: a Keras model, `initialize`, and `next`, ten times.

    python examples/article/process.py

What the article calls `build_federated_averaging_process` is `fm.process(fm.fedavg(...))`: the
client's optimizer stands with the work, the server's with the algorithm. Nothing is traced into a
graph, so clients may be any arrays. Afterwards the weights go back into a plain Keras model, which
reads the same digits. Needs `pip install 'folkmoot[keras]'`. Ends with:

    accuracy 0.865 after 10 rounds of 20 writers; as a Keras model 0.865
"""

import os
import random

os.environ["KERAS_BACKEND"] = "torch"  # Keras asks once, when it is first imported.

import keras

import folkmoot as fm

NUM_ROUNDS = 2 if "FOLKMOOT_QUICK" in os.environ else 10
NUM_ASKED = 20


def model_fn():
    model = keras.Sequential(
        [keras.Input((1, 28, 28)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
    )
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    return model


keras.utils.set_random_seed(0)
clients, test = fm.data.load("mnist_writers")
work = fm.local.sgd(fm.keras(model_fn), lr=0.02, epochs=5, batch_size=20)
process = fm.process(fm.fedavg(work, server=fm.optimizers.sgd(1.0)), seed=0)

state = process.initialize()
for round_number in range(1, NUM_ROUNDS + 1):
    asked = random.Random(round_number).sample(clients.ids, NUM_ASKED)
    state, happened = process.next(state, clients.subset(asked))
    metrics = process.evaluate(state, test)
    print(f"round {round_number:2d}, {happened['answered']} clients, metrics={metrics}")

model = model_fn()
process.get_model_weights(state).assign_weights_to(model)
right = model(test["x"]).argmax(1) == test["y"]
print(
    f"accuracy {metrics['sparse_categorical_accuracy']:.3f} after {state.round} rounds of "
    f"{NUM_ASKED} writers; as a Keras model {float(right.float().mean()):.3f}"
)
