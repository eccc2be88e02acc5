"""How much of a model runs in integer kernels, by ORT's own optimized graph, and why the rest does not."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.errors import ModelError
from onnxq.ir import load, save
from onnxq.runtime.observe import NodeRun, node_runs, write_optimized
from onnxq.runtime.session import Level, Session
from onnxq.validate.kernels import BOOKKEEPING, FAMILIES, LAYOUT_OPTIMIZERS, is_integer_kernel
from onnxq.validate.macs import macs
from onnxq.validate.mapping import Mapping as KernelMapping
from onnxq.validate.network import Network, read, view
from onnxq.validate.reasons import Reasons

DECISIONS = "onnxq.decisions"
"""Metadata property of our files: JSON, node -> why it was left in float."""
UNMAPPED = "unmapped"


@dataclass(frozen=True, kw_only=True)
class OpCoverage:
    """One operator of the file.

    Attributes:
        name: of the node; unnamed nodes are called after their output.
        op: operator type, as in the file.
        path: where it is: () or steps `node/attribute` into bodies.
        heavy: it multiplies and accumulates.
        integer: its work is done by an integer kernel.
        kernel: operator type of the kernel in ORT's graph; "unmapped" if a heavy operator's is not found.
        macs: multiply-accumulates for one run; None: light, or shapes unknown.
        reason: why it is float; "" if it is not.
    """

    name: str
    op: str
    path: tuple[str, ...]
    heavy: bool
    integer: bool
    kernel: str
    macs: int | None
    reason: str

    @property
    def form(self) -> str:
        """What reports call it: float, int8, or how it computes with integers between float borders."""
        if self.kernel.startswith("DynamicQuantize"):
            return "int8 (dynamic)"
        if self.kernel in ("MatMulNBits", "GatherBlockQuantized"):
            return "integer weights"
        return "int8" if self.integer else "float"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """All operators that compute, in file order, and what ORT makes of the whole.

    Attributes:
        ops: without conversions, constants, shape arithmetic and control flow.
        kernels: operator types of ORT's optimized graph at level ALL and how often, with domain.
        notes: sentences for the user.
    """

    ops: tuple[OpCoverage, ...]
    kernels: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run, as far as known."""
        return sum(o.macs or 0 for o in self.ops)

    @property
    def integer_macs(self) -> int:
        """Those in integer kernels."""
        return sum(o.macs or 0 for o in self.ops if o.integer)

    @property
    def mac_share(self) -> float:
        """Of all that are known, 0 to 1; NaN if none is."""
        return self.integer_macs / self.macs if self.macs else math.nan

    @property
    def integer_ops(self) -> int:
        """Operators whose work is done by integer kernels."""
        return sum(o.integer for o in self.ops)

    @property
    def float_ops(self) -> tuple[OpCoverage, ...]:
        """The others, file order."""
        return tuple(o for o in self.ops if not o.integer)

    @property
    def heavy_float(self) -> tuple[OpCoverage, ...]:
        """Operators that multiply and accumulate in float, file order."""
        return tuple(o for o in self.ops if o.heavy and not o.integer)

    @property
    def heavy_total(self) -> int:
        """Operators that multiply and accumulate."""
        return sum(o.heavy for o in self.ops)

    @property
    def unmapped(self) -> tuple[str, ...]:
        """Names of heavy operators whose kernel was not found: a fault of onnxq."""
        return tuple(o.name for o in self.ops if o.kernel == UNMAPPED)

    @property
    def conversions(self) -> int:
        """Q and DQ that ORT runs."""
        return sum(n for k, n in self.kernels.items() if k in ("QuantizeLinear", "DequantizeLinear"))


def coverage(
    path: Path,
    *,
    decisions: Mapping[str, str] | None = None,
    sample: Mapping[str, NDArray[Any]] | None = None,
) -> Coverage:
    """Look at a model file through ORT.

    Args:
        path: float or quantized model.
        decisions: node -> reason; None: those that the file carries.
        sample: inputs of one run, for shapes and so for MACs; None: zeros, if all shapes but the batch are fixed.

    Raises:
        ModelError: the file can't be read, or ORT refuses it.
    """
    file = read(path)
    why = _decisions(file) if decisions is None else decisions
    notes: list[str] = []
    with save.runnable(file.model) as source:
        runs = _runs(source, sample, notes)
        with _optimized(source) as optimized:
            ops = tuple(_ops(file, KernelMapping(file, optimized), runs, why))
            followed = _histogram(optimized)
        with _optimized(source, layout=True) as final:
            kernels = _histogram(final)
    for op in ops:
        wrong = Reasons(file).wrong_axis(file.nodes[op.name][1]) if op.integer else ""
        if wrong:
            notes.append(f"{op.op} {op.name}: {wrong}; its integer kernel computes wrong numbers, or fails")
    if (lost := _integer_count(followed) - _integer_count(kernels)) > 0:
        notes.append(f"ONNX Runtime's layout optimization left out {lost} of the integer kernels")
    return Coverage(ops=ops, kernels=dict(sorted(kernels.items(), key=lambda i: (-i[1], i[0]))), notes=tuple(notes))


def coverage_or_note(
    path: Path, *, sample: Mapping[str, NDArray[Any]] | None = None
) -> tuple[Coverage | None, tuple[str, ...]]:
    """The coverage of a file; or None and a note where ORT loads it, but not what its optimizer makes of it.

    PyTorch writes such files: scales of shape [1] in front of an Add, which ORT's fusion takes and its kernel refuses.

    Raises:
        ModelError: as `coverage`.
    """
    try:
        return coverage(path, sample=sample), ()
    except ModelError as error:
        try:
            Session(path, level=Level.OFF, threads=1, prepacking=False)
        except ModelError:
            raise error from None
        quantized = bool(load.is_quantized(load.load(path).graph))
        cure = f"; `onnxq run import {path} -o imported.onnx` writes it in a form that loads" if quantized else ""
        reason = re.sub(r".*\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
        note = "What runs in integer kernels is not known: ONNX Runtime's optimizer makes a model of this file that it"
        return None, (f"{note} does not load ({reason}){cure}",)


def _ops(
    file: Network, mapping: KernelMapping, runs: Mapping[str, list[NodeRun]], why: Mapping[str, str]
) -> Iterator[OpCoverage]:
    reasons = Reasons(file)
    for name, (path, node) in file.nodes.items():
        if node.op in BOOKKEEPING or not _computes(file, node):
            continue
        heavy = node.op in FAMILIES
        kernel = mapping.kernel(node)
        if kernel is None and not heavy:
            continue  # nobody reads what it makes
        integer = _integer(kernel, mapping)
        yield OpCoverage(
            name=name,
            op=node.op,
            path=path,
            heavy=heavy,
            integer=integer,
            kernel=kernel.op if kernel is not None else UNMAPPED,
            macs=macs(node, runs.get(name, ())) if heavy else None,
            reason="" if integer else why.get(name) or reasons.reason(node, kernel),
        )


def _computes(file: Network, node: gs.Node) -> bool:
    """Float or quantized numbers go through it at run time."""
    if all(t.name in file.static for t in node.outputs):
        return False
    if is_integer_kernel(node.op) or node.op in FAMILIES:
        return True
    live = [t for t in node.inputs if not isinstance(t, gs.Constant) and t.name not in file.static]
    return any(file.kind(t) != "other" for t in live) and any(file.kind(t) != "other" for t in node.outputs)


def _integer(kernel: gs.Node | None, mapping: KernelMapping) -> bool:
    if kernel is None:
        return False
    if is_integer_kernel(kernel.op):
        return True
    slot = 1 if kernel.op == "Where" else 0
    if kernel.op in FAMILIES or len(kernel.inputs) <= slot:
        return False
    return mapping.graph.kind(kernel.inputs[slot]) == "quant"


@contextmanager
def _optimized(source: Path | bytes, *, layout: bool = False) -> Iterator[Network]:
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        out = Path(folder) / "optimized.onnx"
        write_optimized(source, out, level=Level.ALL, disabled_optimizers=() if layout else LAYOUT_OPTIMIZERS)
        yield view(load.load(out))


def _histogram(network: Network) -> Counter[str]:
    return Counter(
        n.op if n.domain in (None, "", "ai.onnx") else f"{n.domain}.{n.op}" for _, n in network.nodes.values()
    )


def _integer_count(kernels: Mapping[str, int]) -> int:
    conversions = ("QuantizeLinear", "DequantizeLinear")
    return sum(
        n
        for k, n in kernels.items()
        if is_integer_kernel(k.rpartition(".")[2]) and k.rpartition(".")[2] not in conversions
    )


def _decisions(file: Network) -> dict[str, str]:
    text = file.model.meta.metadata.get(DECISIONS, "")
    try:
        found = json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def _runs(
    source: Path | bytes, sample: Mapping[str, NDArray[Any]] | None, notes: list[str]
) -> dict[str, list[NodeRun]]:
    inputs = sample if sample is not None else _zeros(source)
    if inputs is None:
        notes.append("MACs are not counted: the model's shapes are not fixed and no sample was given")
        return {}
    try:
        return node_runs(source, inputs)
    except ModelError as error:
        if sample is not None:
            raise
        notes.append(f"MACs are not counted: the model does not run on zeros ({error})")
        return {}


def _zeros(source: Path | bytes) -> dict[str, NDArray[Any]] | None:
    """Inputs of the fixed shapes, batch 1; None if another dimension than the first is open."""
    found: dict[str, NDArray[Any]] = {}
    for spec in Session(source, level=Level.OFF, threads=1, prepacking=False).inputs:
        shape = [1 if i == 0 and not isinstance(d, int) else d for i, d in enumerate(spec.shape)]
        if spec.dtype == np.object_ or not all(isinstance(d, int) and d > 0 for d in shape):
            return None
        found[spec.name] = np.zeros([int(d) for d in shape if d is not None], spec.dtype)
    return found
