"""From rows of figures to sensitivities."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import MetricError
from onnxq.ir import walk
from onnxq.sensitivity.measure import ELEMENTS, EQUAL, LOST, NOISE, SIGNAL, Rows, Trial
from onnxq.sensitivity.result import (
    Effect,
    OutputNoise,
    Sensitivity,
    TensorSensitivity,
    UnitSensitivity,
    mean_noise,
    predict,
)
from onnxq.sensitivity.switches import Instrumented
from onnxq.sensitivity.work import Scoring


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Which sets of switches are measured, each once.

    Attributes:
        sets: all of them, what is wanted most first; cut where the time was over.
        everything: all switches.
        rest: for each switch all others; empty if not asked for.
        units: integer op -> its switches; measured if `units_measured`.
    """

    sets: tuple[Trial, ...]
    everything: Trial
    rest: tuple[Trial, ...]
    units: Mapping[str, Trial]
    units_measured: bool

    @classmethod
    def of(cls, made: Instrumented, *, rest: bool, units: bool, loudness: Sequence[float] = ()) -> Trials:
        """The trials of a model.

        Args:
            loudness: of each switch's tensor: everything comes first then, then single tensors, the loudest first, and
                those that follow others, then units, then the rests.
        """
        everything = tuple(range(len(made.switches)))
        others = tuple(tuple(i for i in everything if i != one) for one in everything) if rest else ()
        nodes = (node for _, inner in walk.graphs(made.model.graph) for node in inner.nodes)
        order = {node.name: i for i, node in enumerate(nodes)}
        members: dict[str, list[int]] = {}
        for index, switch in enumerate(made.switches):
            for unit in switch.units:
                members.setdefault(unit, []).append(index)
        together = {unit: tuple(members[unit]) for unit in sorted(members, key=order.__getitem__)}
        first = (
            sorted(everything, key=lambda i: (bool(made.switches[i].follows), -loudness[i])) if loudness else everything
        )
        sets = dict.fromkeys(
            [
                everything,
                *((i,) for i in first),
                *(together.values() if units else ()),
                *(others[i] for i in first if rest),
            ]
        )
        return cls(sets=tuple(sets), everything=everything, rest=others, units=together, units_measured=units)


def gather(
    made: Instrumented,
    trials: Trials,
    noise: Rows,
    scored: tuple[Scoring, Rows] | None,
    loudness: Sequence[float] = (),
) -> Sensitivity:
    """Sums over the samples, in their order. Hashes, descriptions and notes of the caller are not in it.

    Args:
        loudness: of each switch's tensor; what `trials` lacks is estimated by it.

    Raises:
        MetricError: the metric cannot score its records.
    """
    effects = _effects(made, trials, noise, scored)
    nothing = Effect(outputs=_outputs(made, noise, np.zeros((len(noise.outputs), 5))), noise=0.0)

    def effect(trial: Trial) -> Effect | None:
        return effects.get(trial) if trial else nothing

    estimates = _estimates(made, [effect((i,)) for i in range(len(made.switches))], loudness)
    tensors = [
        TensorSensitivity(
            tensor=s.tensor,
            kind=s.kind,
            type=s.type,
            node=s.node,
            op=s.op,
            units=s.units,
            follows=s.follows,
            alone=effect((i,)),
            estimate=estimates.get(i),
            rest=effect(trials.rest[i]) if trials.rest else None,
        )
        for i, s in enumerate(made.switches)
    ]
    leading = {t.tensor for t in tensors if not t.follows}
    total = predict(tensors)
    tensors = [replace(t, share=_share(t.noise, total) if t.tensor in leading else 0.0) for t in tensors]
    ops = {n.name: str(n.op) for _, inner in walk.graphs(made.model.graph) for n in inner.nodes}
    units = tuple(
        UnitSensitivity(
            node=name,
            op=ops[name],
            tensors=tuple(tensors[i].tensor for i in trial),
            summed=predict(tensors[i] for i in trial),
            owned=math.fsum(tensors[i].noise / len(tensors[i].units) for i in trial if tensors[i].tensor in leading),
            together=effect(trial) if trials.units_measured else None,
        )
        for name, trial in trials.units.items()
    )
    everything = effect(trials.everything) or nothing
    found = Sensitivity(
        model_hash="",
        plan_hash="",
        samples=len(noise.energies),
        data="",
        tensors=tuple(tensors),
        units=units,
        total=everything,
        notes=_notes(everything),
    )
    if scored is None:
        return found
    scoring, rows = scored
    return Sensitivity(
        **{
            **vars(found),
            "eval_samples": len(rows.records),
            "metric": scoring.name,
            "higher_is_better": scoring.metric.higher_is_better,
            "score": _score(scoring, rows.records[:, 0]),
        }
    )


def _estimates(made: Instrumented, alone: Sequence[Effect | None], loudness: Sequence[float]) -> dict[int, float]:
    """The noise of what was not measured: its loudness times the median ratio of noise to loudness of the measured
    tensors of its kind, or of all if none of its kind was."""
    ratios: dict[str, list[float]] = {}
    for switch, found, loud in zip(made.switches, alone, loudness, strict=bool(loudness)):
        if found is not None and loud > 0.0:
            ratios.setdefault(switch.kind, []).append(found.noise / loud)
    everything = [ratio for some in ratios.values() for ratio in some] or [1.0]
    return {
        i: loudness[i] * statistics.median(ratios.get(switch.kind, everything)) if loudness[i] else 0.0
        for i, switch in enumerate(made.switches)
        if alone[i] is None
    }


def _share(noise: float, total: float) -> float:
    return noise / total if 0.0 < total < math.inf else float(math.isinf(noise))


def _effects(
    made: Instrumented, trials: Trials, noise: Rows, scored: tuple[Scoring, Rows] | None
) -> dict[Trial, Effect]:
    sums = noise.energies.sum(axis=0)
    reference = None if scored is None else _score(scored[0], scored[1].records[:, 0])
    found: dict[Trial, Effect] = {}
    for number, trial in enumerate(trials.sets):
        outputs = _outputs(made, noise, sums[number])
        score = drop = None
        if scored is not None and reference is not None:
            score = _score(scored[0], scored[1].records[:, 1 + number])
            lost = 0.0 if score == reference else reference - score
            drop = lost if scored[0].metric.higher_is_better else 0.0 - lost
        found[trial] = Effect(outputs=outputs, noise=mean_noise(outputs), score=score, drop=drop)
    return found


def _outputs(made: Instrumented, rows: Rows, sums: NDArray[np.float64]) -> tuple[OutputNoise, ...]:
    found = {
        name: OutputNoise(
            name=name,
            floating=rows.floating[i],
            signal=float(sums[i, SIGNAL]),
            noise=float(sums[i, NOISE]),
            elements=int(sums[i, ELEMENTS]),
            equal=int(sums[i, EQUAL]),
            lost=int(sums[i, LOST]),
        )
        for i, name in enumerate(rows.outputs)
    }
    return tuple(replace(found[name], head=found.get(made.heads.get(name, ""))) for name in made.own)


def _score(scoring: Scoring, records: NDArray[np.float64]) -> float:
    try:
        return float(scoring.metric.score(records))
    except Exception as error:  # the metric may be anybody's code
        raise MetricError(
            f'metric "{scoring.name}" cannot score its {len(records)} records: {str(error) or type(error).__name__}'
        ) from error


def _notes(total: Effect) -> tuple[str, ...]:
    out = []
    if not any(o.floating for o in total.outputs):
        out.append("No output is float: noise is the share of elements that differ.")
    heads = [f"{o.head.name} for {o.name}" for o in total.outputs if o.head is not None]
    if heads:
        out.append(f"Noise was measured in front of a last op that saturates: at {', '.join(heads)}.")
    silent = [o.name for o in total.outputs if o.floating and not (o.head or o).signal]
    if silent:
        out.append(f"Outputs that are zero on all samples say nothing and do not count: {', '.join(silent)}.")
    lost = sum(o.lost for o in total.outputs)
    if lost:
        out.append(f"{lost} elements become NaN or infinite, or change their place, with everything rounded.")
    return tuple(out)
