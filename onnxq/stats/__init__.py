"""Statistics of tensors: observers and the value they make up. The engine that collects them: `onnxq.stats.collect`."""

from onnxq.stats.calibrator import Calibrator
from onnxq.stats.observers import Histogram, MinMax, Observer, make_observer
from onnxq.stats.statistics import Statistics, TensorStatistics

__all__ = ["Calibrator", "Histogram", "MinMax", "Observer", "Statistics", "TensorStatistics", "make_observer"]
