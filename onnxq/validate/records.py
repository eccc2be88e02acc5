"""What a metric notes of each sample, for two models, and the scores with their interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.sample import Sample
from onnxq.errors import MetricError
from onnxq.validate.intervals import Interval
from onnxq.validate.metrics.base import Metric, is_label_free
from onnxq.validate.statistics import difference_interval, mcnemar, mcnemar_mid, right_or_wrong


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """The labelled score of both models on the same samples.

    Attributes:
        name: as the user wrote it.
        reference, candidate: scores, unit of the metric.
        drop: how much worse the candidate is (positive: worse), unit of the metric.
        interval: 95 % interval of the drop: Tango's for right/wrong metrics, else paired bootstrap over samples.
        mcnemar_p: for right/wrong metrics: p that both are equally often right, exact.
        mcnemar_mid_p: the same as mid-p value, which is less conservative.
        only_reference, only_candidate: samples that only one of the two gets right (right/wrong metrics).
    """

    name: str
    higher_is_better: bool
    samples: int
    reference: float
    candidate: float
    drop: float
    interval: Interval
    resamples: int
    mcnemar_p: float | None = None
    only_reference: int | None = None
    only_candidate: int | None = None
    mcnemar_mid_p: float | None = None


@dataclass
class Records:
    """Rows of one metric, sample by sample, of the float model and of the candidate."""

    name: str
    metric: Metric
    rows: tuple[list[list[float]], list[list[float]]] = field(default_factory=lambda: ([], []))

    def add(self, reference: Mapping[str, Any], candidate: Mapping[str, Any], sample: Sample) -> None:
        """One sample.

        Raises:
            MetricError: the metric raises; names the sample, its index and what was raised.
        """
        label = reference if is_label_free(self.metric) else sample.label
        for rows, outputs in zip(self.rows, (reference, candidate), strict=True):
            rows.append(self._record(outputs, label, sample))

    def _record(self, outputs: Mapping[str, Any], label: Any, sample: Sample) -> list[float]:
        try:
            return [float(v) for v in self.metric.record(outputs, label)]
        except Exception as error:  # the metric may be anybody's code
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise MetricError(
                f'metric "{self.name}" fails on sample {sample.name} (index {sample.index}): '
                f"{kind}{str(error) or type(error).__name__}"
            ) from error

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rows [n, k] of the float model and of the candidate.

        Raises:
            MetricError: they are of different lengths.
        """
        widths = {len(r) for side in self.rows for r in side}
        if len(widths) != 1:
            raise MetricError(
                f'metric "{self.name}" gave rows of different lengths ({sorted(widths)}): '
                "record must give one fixed length"
            )
        return np.array(self.rows[0], dtype=np.float64), np.array(self.rows[1], dtype=np.float64)

    def result(self, *, resamples: int = 2000, seed: int = 0, level: float = 0.95) -> MetricResult:
        """Both scores and the drop.

        Raises:
            MetricError: the metric cannot score its rows.
        """
        one, two = self.arrays()
        metric = self.metric
        try:
            reference, candidate = float(metric.score(one)), float(metric.score(two))
            better = metric.higher_is_better
            interval = difference_interval(metric, one, two, resamples=resamples, level=level, seed=seed)
            right = not is_label_free(metric) and right_or_wrong(metric, one, two)
        except Exception as error:  # the metric may be anybody's code
            raise MetricError(
                f'metric "{self.name}" cannot score its {len(one)} records: {str(error) or type(error).__name__}'
            ) from error
        drop = 0.0 if reference == candidate else reference - candidate
        # of an error rate, 0 is right
        a, b = (rows[:, 0].astype(bool) == better for rows in (one, two))
        return MetricResult(
            name=self.name,
            higher_is_better=better,
            samples=len(one),
            reference=reference,
            candidate=candidate,
            drop=drop if better else 0.0 - drop,
            interval=interval if better else interval.negated(),
            resamples=resamples,
            mcnemar_p=mcnemar(a, b) if right else None,
            mcnemar_mid_p=mcnemar_mid(a, b) if right else None,
            only_reference=int((a & ~b).sum()) if right else None,
            only_candidate=int((b & ~a).sum()) if right else None,
        )
