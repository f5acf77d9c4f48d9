"""The vocabulary: nine nouns as plain data and pure functions; imports torch and nothing of
ours."""
