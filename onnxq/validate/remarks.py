"""Sentences about what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from onnxq.validate.accuracy import Accuracy
from onnxq.validate.coverage import Coverage
from onnxq.validate.latency import Latency

SLOWER = 0.98
"""Below this speed-up, if its interval excludes 1, the result says that it is slower than the float model, and why."""

LOST_DB = 10.0
"""SQNR below which an output is said to be far off: a tenth of its energy is error."""


def lost(accuracy: Accuracy | None) -> tuple[str, ...]:
    """What to do about outputs that are far from those of the float model, where no labels say that they are right."""
    if accuracy is None or accuracy.metric is not None:
        return ()
    far = [o for o in accuracy.outputs if o.sqnr_db is not None and o.sqnr_db < LOST_DB]
    if not far:
        return ()
    named = ", ".join(f"{o.name} {o.sqnr_db:.1f} dB" for o in far[:3]) + (f" and {len(far) - 3} more" * (len(far) > 3))
    return (
        f"The outputs are far from those of the float model (SQNR of {named}): judge them by labelled samples before "
        "you use this model; onnxq sensitivity tells which tensors cost most, --keep-float keeps them float.",
    )


def elsewhere(target: str) -> tuple[str, ...]:
    """What to bear in mind where the model is made for another machine."""
    return (
        f"The model is made for {target}, but speed and kernels are those of ONNX Runtime on this CPU: measure them "
        "where it is to run.",
    )


def _chance(one: Latency) -> bool:
    """The interval of the speed-up does not exclude that the model is as fast."""
    return one.speedup_interval is not None and one.speedup_interval.high >= 1.0


def slow(latency: Sequence[Latency], found: Coverage) -> tuple[str, ...]:
    """Why a quantized model is not faster, as far as structure tells."""
    slower = [one for one in latency if one.speedup < SLOWER and not _chance(one)]
    if not slower:
        return ()
    counts = ", ".join(f"{one.speedup:.2f}x at {one.threads} thread{'s' if one.threads > 1 else ''}" for one in slower)
    if not found.integer_ops and not found.conversions:
        return (f"This model is slower than the original on this CPU ({counts}), although all of it is float.",)
    ops = "1 integer op needs" if found.integer_ops == 1 else f"{found.integer_ops} integer ops need"
    conversions = "1 conversion" if found.conversions == 1 else f"{found.conversions} conversions"
    small = "small or depthwise convolutions" if any(o.op == "Conv" for o in found.ops) else "small operators"
    return (
        f"This model is slower in int8 on this CPU ({counts}): {ops} {conversions} between int8 and float, and "
        f"{small} gain little from integer kernels.",
    )
