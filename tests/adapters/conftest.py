"""What tests of adapters share: Keras runs on PyTorch, whichever test imports it first."""

import os

os.environ["KERAS_BACKEND"] = "torch"
