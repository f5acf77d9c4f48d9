"""Secure aggregation: a server adds up what clients send, and learns the sum and nothing else.

Nothing here imports torch, or does I/O: a protocol must be checkable by reading it.
"""
