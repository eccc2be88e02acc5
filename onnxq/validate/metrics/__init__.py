"""Labelled and label-free scores of a model: built-in ones, entry points of other packages, or the user's own file."""

from __future__ import annotations

from onnxq.validate.metrics.base import MeanOf, Metric, load_metric

__all__ = ["MeanOf", "Metric", "load_metric"]
