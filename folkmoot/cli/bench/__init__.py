"""`folkmoot bench`: the same work by hand and by folkmoot, each in processes of its own."""

from folkmoot.cli.bench.command import bench

__all__ = ["bench"]
