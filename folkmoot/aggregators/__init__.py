"""Aggregators: rules that turn a cohort's sum into what an algorithm receives."""

from folkmoot.aggregators.mean import aggregate, total, uniform_mean, weighted_mean

__all__ = ["aggregate", "total", "uniform_mean", "weighted_mean"]
