"""Readers of data that users have in other forms, one form a file; nothing is ever downloaded."""
