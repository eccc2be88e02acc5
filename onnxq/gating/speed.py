"""Limits on speed: interleaved runs, an interval, and no verdict on a machine that is too noisy."""

from __future__ import annotations

from collections.abc import Iterator

from onnxq.config.gate import SpeedLimit
from onnxq.validate.gate import Check, interval_check, number
from onnxq.validate.intervals import samples_by_width
from onnxq.validate.latency import Latency

GROUP = "speed"


def judge(latency: Latency, limit: SpeedLimit) -> Iterator[Check]:
    """One check per limit. The interval is that of a median (order statistics); noise is the distance of the quartiles
    of the ratio over its median.
    """
    threads = f"{latency.threads} thread{'s' if latency.threads > 1 else ''}"
    noisy = not latency.noise <= limit.max_noise
    for name, value, interval, bound, upper, unit in (
        ("speed-up", latency.speedup, latency.speedup_interval, limit.min_speedup, False, " times"),
        ("latency", latency.candidate_ms, latency.candidate_interval, limit.max_latency_ms, True, " ms"),
    ):
        if bound is None or interval is None:
            continue
        said = f"{name} at {threads}: {number(value)}{unit}"
        if noisy:
            yield Check(
                name=name,
                passed=False,
                inconclusive=True,
                measured=value,
                limit=bound,
                sentence=f"{said}, not judged: the machine is too noisy (the quartiles of the ratio are "
                f"{latency.noise:.0%} of the median apart, {limit.max_noise:.0%} are allowed); run it on a quieter one",
                group=GROUP,
                interval=interval,
                samples=latency.pairs,
            )
        else:
            yield interval_check(
                name,
                value,
                interval,
                bound,
                upper=upper,
                said=said,
                unit=unit,
                group=GROUP,
                samples=latency.pairs,
                samples_needed=samples_by_width(value, interval, bound, latency.pairs),
            )
