"""The package's version, in the one place that everything may import."""

VERSION = "0.1.0"
