"""The first program: 539 people who write digits train one model, and keep their digits.

    python examples/first_program.py

Prints a table and draws run.png; the accuracy on 10,000 digits by people who took no part is:

    test accuracy 0.969
"""
# ruff: noqa: I001
# fmt: off
