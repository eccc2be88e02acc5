"""Running a model for what it says of itself: types of its tensors, the shapes that flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.data.sample import Sample
from onnxq.errors import CalibrationError, ModelError
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.ir.shapes import infer
from onnxq.runtime.session import Level, Session
from onnxq.stats.reductions import Known
from onnxq.stats.statistics import Shape, merge_shapes
from onnxq.stats.taps import names_of, produced, with_outputs


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the model says of itself with optimizations off.

    Attributes:
        shapes: of all tensors of the main graph; dimensions that differ between two samples are "?".
        outputs: of the model, on the first sample; empty if they were not asked for.
    """

    shapes: dict[str, Shape]
    outputs: dict[str, Any]


def observe_shapes(model: Model, samples: Sequence[Sample], *, threads: int | None = None) -> dict[str, Shape]:
    """`observe`, the shapes only."""
    return observe(model, samples, threads=threads).shapes


def observe(model: Model, samples: Sequence[Sample], *, outputs: bool = False, threads: int | None = None) -> Observed:
    """Shapes of all tensors of the main graph, seen by running the model on the first two samples.

    For models without (or with wrong) shape inference. What is no tensor (sequences, maps, optionals) is left out.
    Fetches shapes only, so it needs no more memory than a plain run.

    Args:
        model: any model that ORT runs; not changed.
        samples: one or two suffice; further ones are ignored. Dimensions that differ between the two become "?".
        outputs: fetch what the model itself gives on the first of them, too.

    Raises:
        CalibrationError: no sample, or ORT cannot run one.
        ModelError: ORT cannot load the model.
    """
    if not samples:
        raise CalibrationError("there are no samples to observe shapes on: calibration needs at least one")
    here = produced(model.graph)
    given = names_of(model.graph.inputs)
    names = [n for n in here if n not in given]
    dtypes = element_types(model, names)
    # strings are objects, too, and have shapes that nobody quantizes
    probes = {f"onnxq_shape_{i}": n for i, n in enumerate(n for n in names if dtypes[n].kind != "O")}
    # last tensor first: in file order ONNX Runtime would run all probes at the end and keep every tensor until then;
    # variables of the same names, not the tensors themselves: those would list the probes among their consumers
    nodes = [
        gs.Node(op="Shape", name=p, inputs=[gs.Variable(n)], outputs=[gs.Variable(p)])
        for p, n in reversed(probes.items())
    ]
    session = reference(with_outputs(model, list(probes), nodes), threads)
    shapes: dict[str, Shape] = {}
    given_out: dict[str, Any] = {}
    own = names_of(model.graph.outputs) if outputs else []
    for sample in samples[:2]:
        found = checked_run(session, sample, sample.inputs, [*probes, *own])
        given_out = given_out or {name: found[name] for name in own}
        own = []
        for probe, name in probes.items():
            shapes[name] = merge_shapes(shapes.get(name), tuple(int(d) for d in found[probe]))
        for name in given:
            if name in sample.inputs:
                shapes[name] = merge_shapes(shapes.get(name), sample.inputs[name].shape)
    return Observed(shapes=shapes, outputs=given_out)


def element_types(
    model: Model, names: Sequence[str], known: Mapping[str, Known] | None = None
) -> dict[str, np.dtype[Any]]:
    """Element types of tensors of the main graph: inferred, or where that fails asked of ONNX Runtime; object for what
    holds no numbers.

    Args:
        known: from `infer(model, declared=False)`, to spare doing it again.
    """
    inferred = infer(model, declared=False) if known is None else known
    given = {t.name: t.dtype for t in model.graph.inputs}
    found = {n: inferred.get(n, (None, None))[0] or given.get(n) for n in names}
    missing = [n for n, dtype in found.items() if dtype is None or np.dtype(dtype).kind not in "fiub"]
    if missing:
        session = reference(with_outputs(model, [n for n in missing if n not in given]), None)
        specs = {s.name: s.dtype for s in (*session.inputs, *session.output_specs)}
        found.update((n, specs[n]) for n in missing)
    return {n: np.dtype(d) for n, d in found.items()}


def reference(model: Model, threads: int | None) -> Session:
    """The model with optimizations off."""
    with runnable(model) as source:
        return Session(source, level=Level.OFF, threads=threads, memory_pattern=False, prepacking=False)


def checked_run(
    session: Session, sample: Sample, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """One run.

    Raises:
        CalibrationError: ORT cannot run the sample, which is named.
    """
    try:
        return session.run(inputs, outputs)
    except ModelError as error:
        raise CalibrationError(f"sample {sample.index} ({sample.name}): {error}") from error
