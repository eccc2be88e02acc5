"""What is done to a loaded model before the first pass sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.errors import OnnxqError
from onnxq.ir import walk
from onnxq.ir.model import Model
from onnxq.ir.opset import Run, convert, made_up_sample
from onnxq.ir.save import runnable
from onnxq.ir.shapes import infer
from onnxq.runtime.session import Level, Session
from onnxq.targets.target import Target


def prepare(
    model: Model,
    target: Target,
    inputs: Mapping[str, NDArray[Any]] | None,
    *,
    keep_overridable: bool,
    run: Run | None = None,
) -> Model:
    """A loaded float model at the target's opset, with types and shapes written in: what the first pass sees.

    Args:
        inputs: of one sample, on which the conversion is checked; None: made-up ones.
        run: runs a model for that check, as `run_literally` does, which is the default.
    """
    model = convert(model, target.opset, target.ir_version, inputs, run or run_literally)
    describe(model.graph, infer(model))
    if keep_overridable:
        hide_overridable(model)
    return model


def describe(graph: gs.Graph, known: Mapping[str, tuple[Any, Any]]) -> None:
    """Write inferred types and shapes where the file declares none, or a symbol where the size is known; sizes that
    depend on the sample stay symbolic."""
    for _, inner in walk.graphs(graph):
        for node in inner.nodes:
            for tensor in node.outputs:
                if tensor.name not in known or not isinstance(tensor, gs.Variable):
                    continue
                dtype, shape = known[tensor.name]
                tensor.dtype = tensor.dtype if tensor.dtype is not None else dtype
                tensor.shape = shape if tensor.shape is None else _refined(tensor.shape, shape)


def _refined(declared: Sequence[int | str | None], known: Sequence[int | str | None] | None) -> Sequence[Any]:
    """The declared shape, with the sizes that are known for what it leaves open."""
    if known is None or len(known) != len(declared):
        return declared
    return tuple(
        k if isinstance(k, int) and not isinstance(d, int) else d for d, k in zip(declared, known, strict=True)
    )


def annotate(graph: gs.Graph, shapes: Mapping[str, tuple[int | str, ...]]) -> None:
    """Write observed ranks and dimensions where the graph declares none, so that passes and planner may read them."""
    for node in graph.nodes:
        for tensor in node.outputs:
            if tensor.shape is None and tensor.name in shapes:
                tensor.shape = shapes[tensor.name]


def hide_overridable(model: Model) -> None:
    """Let every overridable initializer look like a tensor of unknown value, so that no pass folds it and nothing of
    it is quantized.

    Saving writes it as initializer and input again.
    """
    for constant in model.meta.overridable_constants:
        open_tensor = gs.Variable(constant.name, dtype=constant.dtype, shape=constant.shape)
        for _, inner in walk.graphs(model.graph):
            for node in inner.nodes:
                for slot, tensor in enumerate(node.inputs):
                    if tensor is constant:
                        walk.set_input(node, slot, open_tensor)


def run_literally(model: Model, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """One run in ORT with optimizations off: the reference semantics."""
    with runnable(model) as source:
        return Session(source, level=Level.OFF, threads=1, prepacking=False).run(inputs)


FREE_SIZES = (1, 32, 224, 2048)
"""What dimensions of unknown size are tried with: windows and joins of many networks want more than one pixel."""

MOST_ELEMENTS = 1 << 24
"""Elements that all made-up inputs have together at most."""


def made_up_inputs(model: Model) -> dict[str, NDArray[Any]]:
    """Made-up inputs on which the model runs; if it runs on none, those whose free dimensions are 1.

    Raises:
        ValueError: an input is no tensor of numbers, or of unknown rank.
    """
    first = inputs = made_up_sample(model)
    dimensions = [[d if isinstance(d, int) and d > 0 else None for d in t.shape] for t in model.graph.inputs]
    sizes = FREE_SIZES if any(None in shape for shape in dimensions) else FREE_SIZES[:1]
    for free in sizes:
        if sum(math.prod(free if d is None else d for d in shape) for shape in dimensions) > MOST_ELEMENTS:
            break
        inputs = first if free == 1 else made_up_sample(model, free)
        try:
            run_literally(model, inputs)
        except OnnxqError:
            continue
        return inputs
    return first


class Literally:
    """`run_literally`, which remembers what the models gave: whoever needs it next need not run them again."""

    def __init__(self) -> None:
        self._ran: list[tuple[Model, dict[str, NDArray[Any]]]] = []

    def __call__(self, model: Model, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = run_literally(model, inputs)
        self._ran.append((model, found))
        return found

    def take(self, model: Model) -> dict[str, NDArray[Any]] | None:
        """What this very model gave when it ran last, None if it did not run; all is forgotten."""
        found = [outputs for ran, outputs in self._ran if ran is model]
        self._ran.clear()
        return found[-1] if found else None
