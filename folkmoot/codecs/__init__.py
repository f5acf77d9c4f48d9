"""Codecs: what may stand between an update and the sum."""

from folkmoot.codecs.clip import clip

__all__ = ["clip"]
