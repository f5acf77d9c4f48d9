"""The vocabulary: nine nouns as plain data and pure functions; imports nothing of ours."""

VERSION = "0.1.0"
