"""Models of other libraries: each adapter is an extra, whose library is imported when it is used.

An adapter has its line here; importing all of them imports none of the libraries.
"""

from folkmoot.adapters.keras import keras as keras

__all__ = sorted(name for name, value in globals().items() if callable(value))
