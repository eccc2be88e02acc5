"""What turned-over decisions cost, told without labels: where an output is a probability, the float model itself says
how sure it was of what another form decides otherwise.

A classifier whose probabilities are right (Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 1) is
right with the probability that it gives to the class it takes. If a form takes class j where the float model takes i,
its expected accuracy on that sample is p_j instead of p_i, so the form is expected to lose p_i - p_j; of a single
probability p, decided at 1/2, |2p - 1|. That is never negative, and too much where the float model is too sure.

The signal-to-noise ratio does not see this: of a speech detector's frames, most are silence, quiet and exact, and the
mean over samples is fine while all that is speech turns over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.config.placing import DEFAULT_POINTS, Judged
from onnxq.data.stream import spread
from onnxq.faintest import float_arrays
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.runtime.session import Session
from onnxq.trial import CERTAIN

Outputs = Mapping[str, Any]
Inputs = Mapping[str, NDArray[Any]]

LOOKED = 16
"""Samples, evenly spread, that tell which outputs are probabilities."""

_SUM = 1e-3
_ALONE = -1
"""In place of an axis: each element is a probability of its own."""


class Decisions:
    """The outputs of a model that are probabilities.

    Of an output whose values lie in 0 to 1 and sum to 1 along an axis (the last one, or axis 1), the largest decides;
    of another one in 0 to 1, with values on both sides of 1/2, each element does for itself.

    Args:
        exact: what the float model gives, by sample, one at least.
    """

    def __init__(self, exact: Sequence[Outputs]) -> None:
        self._axes: dict[str, int] = {}
        for name in exact[0]:
            arrays = [array for outputs in exact for array in float_arrays(outputs[name]) if array.size]
            axis = _axis(arrays) if arrays else None
            if axis is not None:
                self._axes[name] = axis

    def __bool__(self) -> bool:
        return bool(self._axes)

    def lost(self, exact: Outputs, other: Outputs) -> NDArray[np.float64]:
        """Expected loss of accuracy on one sample, 0 to 1, by output.

        Args:
            exact: of the float model.
            other: of the form; what has another shape or is no number is lost as a whole.
        """
        return np.array([_lost(exact[name], other[name], axis) for name, axis in self._axes.items()])


def by_decisions(
    judge: Callable[[Model], Judged], model: Model, samples: Sequence[Inputs], threads: int | None
) -> Callable[[Model], Judged]:
    """A judge that also looks at decisions, if outputs are probabilities: a form that `judge` lets pass must not be
    expected to lose more than half a point of any output's accuracy, beyond chance (two standard errors).

    Args:
        model: float.
        samples: inputs, one at least; the model is run on all of them once for each form.

    Raises:
        ModelError: ORT cannot load or run it.
    """
    with runnable(model) as source:
        session = Session(source, threads=threads)
    decisions = Decisions([session.run(samples[at]) for at in spread(len(samples), LOOKED)])
    if not decisions:
        return judge

    def both(some: Model) -> Judged:
        found = judge(some)
        if not found.holds:
            return found
        with runnable(some) as form:
            other = Session(form, threads=threads)
        lost = np.array([decisions.lost(session.run(inputs), other.run(inputs)) for inputs in samples])
        mean, error = lost.mean(axis=0), lost.std(axis=0) / np.sqrt(len(lost))
        worst = float(mean.max())
        broken = bool((mean - CERTAIN * error > DEFAULT_POINTS).any())
        chance = ", which may be chance" if worst > DEFAULT_POINTS and not broken else ""
        said = (
            f"by its own probabilities, the float model loses {worst * 100:.2g} % by decisions that turn over on "
            f"{len(samples)}, at most {DEFAULT_POINTS * 100:g} % allowed{chance}"
        )
        return replace(found, holds=not broken, sentence=f"{found.sentence}; {said}")

    return both


def _axis(arrays: Sequence[NDArray[np.floating[Any]]]) -> int | None:
    """Along which values are probabilities of each other, or `_ALONE`; None: they are no probabilities."""
    if any(not np.isfinite(a).all() or a.min() < 0.0 or a.max() > 1.0 + _SUM for a in arrays):
        return None
    rank = arrays[0].ndim
    for axis in [rank - 1, 1]:
        if all(
            1 <= axis < a.ndim and a.shape[axis] > 1 and np.allclose(a.sum(axis=axis), 1.0, atol=_SUM) for a in arrays
        ):
            return axis
    sides = {bool(side) for a in arrays for side in np.unique(a > 0.5)}
    return _ALONE if len(sides) == 2 else None


def _lost(exact: Any, other: Any, axis: int) -> float:
    """Mean over the decisions of an output, a sequence's arrays together."""
    mine, theirs = float_arrays(exact), float_arrays(other)
    if [a.shape for a in mine] != [a.shape for a in theirs] or not all(np.isfinite(a).all() for a in theirs):
        return 1.0
    found = [_each(a, b, axis).reshape(-1) for a, b in zip(mine, theirs, strict=True) if a.size]
    return float(np.concatenate(found).mean()) if found else 0.0


def _each(exact: NDArray[Any], other: NDArray[Any], axis: int) -> NDArray[np.float64]:
    if axis == _ALONE:
        lost = np.abs(2.0 * exact - 1.0) * ((exact > 0.5) != (other > 0.5))
    else:
        taken = np.take_along_axis(exact, np.expand_dims(other.argmax(axis=axis), axis), axis)
        lost = exact.max(axis=axis) - np.squeeze(taken, axis)
    return np.asarray(lost, dtype=np.float64)
