"""Empirical bias correction: the mean error of each channel goes into the bias, which every kernel adds anyway.

Rounding weights and clipping activations moves the mean of an op's output, channel by channel, and what stands behind
sees the shift on every sample (Nagel et al. 2019, "Data-Free Quantization through Weight Equalization and Bias
Correction", section 4.2). The shift is measured on calibration samples and taken off.

The exact way goes layer by layer, since each correction changes what the layers behind see: a run over the samples for
each layer. Here one run does for all of them. The graph with rounded weights and Q/DQ pairs gets, at each output that
has a bias, the means that the float model has there on the same sample as a further input, and adds the difference of
means on the spot:

    c = mean(float output) - mean(output);  output + c is what the next layer sees

so that every layer sees inputs whose means are right already, as if the layers before had been corrected. The mean of c
over samples is the correction. Only the means leave the graph.

Where a Relu or Clip f is all that reads the output, the means behind it count, since nobody sees what it cuts off:

    c = (mean f(float output) - mean f(output)) / share of the output that f lets through

which is one step of Newton's method for equal means; shares below `SHARE` are taken for it.

A mean over few samples is partly chance. Each channel's correction is therefore shrunk by the share of its square that
its own variance explains: c * max(0, 1 - se^2 / c^2), se the standard error over the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import Affine, PerChannel, PerTensor
from onnxq.ir import walk
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.numerics import dequantize, quantize
from onnxq.optable import OP_TABLE
from onnxq.plan.plan import Plan, Use, Values
from onnxq.runtime.session import Session
from onnxq.stats.taps import with_outputs

Inputs = Mapping[str, NDArray[Any]]
Insert = Callable[[Model, Plan], Model]
"""A copy of a model with the Q/DQ of a plan."""

ROOM = 2.0**30
"""Greatest magnitude of a corrected bias in steps of its int32 encoding: the rest is left to the products."""

LITERAL = {"session.disable_quant_qdq": "1"}
"""Configuration for the graph with rounded weights: of Q and DQ around float kernels, ONNX Runtime's fusions for Q/DQ
make something else than they say, with larger errors at the outputs (tests/repair/test_bias.py holds it against
optimizations off)."""

CUTTING = frozenset({"Relu", "Clip"})
"""Activations that let a value through as it is, or cut it off."""

SHARE = 0.1
"""Least share of an output that counts as let through: a step of Newton's method must not leave the place it is for."""

_FLOAT = 1
"""TensorProto.FLOAT."""

AXES_ARE_AN_INPUT = 18
"""Opset from which ReduceMean takes its axes as an input."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """An output whose bias can be corrected at no cost.

    Attributes:
        node: the integer op.
        use: where its bias stands, or would stand.
        output: tensor with the bias in it.
        bias: what the float model has there, float32; None where there is none yet.
        channels: length of a correction.
        spatial: channels are axis 1 (convolutions), else the last.
        factor: what the bias is multiplied with (beta of Gemm).
        activation: the Relu or Clip that alone reads the output; None: there is none.
        seen: tensor whose mean counts: what the activation gives, else the output.
    """

    node: str
    use: Use
    output: str
    bias: NDArray[np.float32] | None
    channels: int
    spatial: bool
    factor: float = 1.0
    activation: str | None = None
    seen: str = ""


def sites(graph: gs.Graph, integer: Callable[[gs.Node], bool]) -> list[Site]:
    """Where biases of the main graph can be corrected.

    1. Conv, ConvTranspose and Gemm: the bias input, a constant of one number per channel, or not there.
    2. MatMul: the constant row that an Add puts on it, alone, in float.

    Args:
        integer: does a plan put this node into an integer kernel?
    """
    consumers, outputs = walk.consumers(graph), {t.name for t in graph.outputs}
    found: list[Site] = []
    for node in graph.nodes:
        row = OP_TABLE.get(node.op)
        if row is None or row.weight is None or node.domain or not integer(node):
            continue
        weight = walk.constant_array(node.inputs[row.weight])
        if weight is None or weight.ndim < 2:
            continue
        site = _input(node, weight, row.bias) if row.bias is not None else None
        if node.op == "MatMul" and node.outputs[0].name not in outputs:
            site = _added(node, weight, consumers.get(node.outputs[0].name, []), integer)
        if site is not None:
            found.append(_behind(site, consumers.get(site.output, []), outputs))
    return found


def _behind(site: Site, readers: Sequence[walk.Consumer], outputs: Collection[str]) -> Site:
    """With the activation that alone reads its output."""
    alone = len(readers) == 1 and not readers[0].path and site.output not in outputs
    if not alone or readers[0].node.op not in CUTTING or readers[0].slot:
        return replace(site, seen=site.output)
    return replace(site, activation=readers[0].node.name, seen=readers[0].node.outputs[0].name)


def _input(node: gs.Node, weight: NDArray[Any], slot: int) -> Site | None:
    factor = 1.0
    if node.op == "Gemm":
        channels = weight.shape[0 if node.attrs.get("transB", 0) else 1]
        factor = float(node.attrs.get("beta", 1.0))
    elif node.op == "ConvTranspose":
        channels = weight.shape[1] * int(node.attrs.get("group", 1))
    else:
        channels = weight.shape[0]
    given = slot < len(node.inputs) and bool(node.inputs[slot].name)
    bias = walk.constant_array(node.inputs[slot]) if given else None
    if given and (bias is None or bias.size != channels or bias.dtype != np.float32):
        return None
    if not factor:
        return None
    return Site(
        node=node.name, use=Use((), node.name, slot), output=node.outputs[0].name, bias=bias, channels=channels,
        spatial=node.op != "Gemm", factor=factor,
    )  # fmt: skip


def _added(
    node: gs.Node, weight: NDArray[Any], readers: Sequence[walk.Consumer], integer: Callable[[gs.Node], bool]
) -> Site | None:
    if len(readers) != 1 or readers[0].path or readers[0].node.op != "Add" or integer(readers[0].node):
        return None
    add, slot = readers[0].node, 1 - readers[0].slot
    bias = walk.constant_array(add.inputs[slot])
    channels = weight.shape[-1]
    if bias is None or bias.dtype != np.float32 or bias.shape[-1:] != (channels,) or bias.size != channels:
        return None
    return Site(
        node=node.name, use=Use((), add.name, slot), output=add.outputs[0].name, bias=bias, channels=channels,
        spatial=False,
    )  # fmt: skip


class Correction:
    """Fits biases to plans of one float model.

    Args:
        model: normalised, float; does not change.
        samples: inputs to fit on, two at least.
        insert: writes Q/DQ.
        int32: biases of integer ops are written as int32.
    """

    def __init__(
        self, model: Model, samples: Sequence[Inputs], insert: Insert, *, int32: bool, threads: int | None
    ) -> None:
        self.model, self.samples, self.insert, self.int32, self.threads = model, samples, insert, int32, threads
        self._exact: dict[str, list[NDArray[Any]]] = {}  # output -> means of the float model by sample

    def fit(self, plan: Plan) -> tuple[Plan, int]:
        """The plan with corrected biases, and how many ops have one now.

        Raises:
            ModelError: ORT cannot load or run a form of the model.
        """
        decided = plan.decisions
        here = [
            site
            for site in sites(self.model.graph, lambda n: n.name in decided and decided[n.name].integer)
            if all(Use((), site.node, slot) in plan.uses for slot in (0, 1))  # else it has no integer weights
        ]
        if not here:
            return plan, 0
        self._look([site for site in here if site.output not in self._exact])
        biases, uses, count = dict(plan.biases), dict(plan.uses), 0
        for site, shifts in zip(here, self._shifts(plan, here), strict=True):
            moved = shrunk(shifts) / site.factor
            encoding = uses.get(site.use)
            if encoding is None and self.int32 and site.bias is None:
                encoding = _encoding(uses[Use((), site.node, 0)], uses[Use((), site.node, 1)])
            values = _added_to(site, moved, encoding)
            if values is None:
                continue
            biases[site.use] = Values(values)
            if encoding is not None:
                uses[site.use] = encoding
            count += 1
        return replace(plan, biases=biases, uses=uses), count

    def _look(self, missing: Sequence[Site]) -> None:
        """The means of the float model."""
        if not missing:
            return
        names = walk.tensor_names(self.model.graph)
        nodes: list[gs.Node] = []
        ends = [self._mean(site, gs.Variable(site.seen), names, nodes) for site in missing]
        tapped = with_outputs(self.model, ends, nodes)
        for site in missing:
            self._exact[site.output] = []
        with runnable(tapped) as source:
            session = Session(source, threads=self.threads)
        for inputs in self.samples:
            got = session.run(inputs, ends)
            for site, end in zip(missing, ends, strict=True):
                self._exact[site.output].append(got[end])

    def _shifts(self, plan: Plan, here: Sequence[Site]) -> list[NDArray[np.float64]]:
        """Per site the difference of means, float64 [samples, channels]."""
        literal = rounded(self.model, plan)
        graph = literal.graph
        names = walk.tensor_names(graph) | {n.name for n in graph.nodes}
        at = {site.output: site for site in here}
        cutting = {n.name: n for n in graph.nodes if n.op in CUTTING}
        nodes: list[gs.Node] = []
        wants: dict[str, str] = {}
        gaps: dict[str, str] = {}
        for node in graph.nodes:
            nodes.append(node)
            for output in list(node.outputs):
                site = at.get(output.name)
                if site is None:
                    continue
                raw = gs.Variable(walk.unique_name(names, f"{site.output}_uncorrected"), dtype=output.dtype)
                list.__setitem__(node.outputs, node.outputs.index(output), raw)
                list.append(raw.inputs, node)
                list.clear(output.inputs)
                wants[site.output] = walk.unique_name(names, f"{site.output}_want")
                cut = cutting.get(site.activation) if site.activation else None
                gap = self._gap(site, raw, wants[site.output], cut, names, nodes)
                gaps[site.output] = gap.name
                nodes.append(gs.Node("Add", f"{gap.name}_Add", {}, [raw, gap], [output]))
        graph.nodes = nodes
        made = self.insert(literal, activations(plan, graph))
        fed = with_outputs(made, list(gaps.values()), inputs=[gs.Variable(n, np.float32) for n in wants.values()])
        with runnable(fed) as source:
            session = Session(source, threads=self.threads, config=LITERAL)
        out: list[list[NDArray[np.float64]]] = [[] for _ in here]
        for position, inputs in enumerate(self.samples):
            exact = {wants[s.output]: self._exact[s.output][position] for s in here}
            got = session.run({**inputs, **exact}, [gaps[s.output] for s in here])
            for shifts, site in zip(out, here, strict=True):
                found = got[gaps[site.output]].astype(np.float64).reshape(-1, site.channels)
                if found.size and np.isfinite(found).all():
                    shifts.append(found.mean(axis=0))
        return [np.array(shifts).reshape(-1, site.channels) for shifts, site in zip(out, here, strict=True)]

    def _gap(
        self, site: Site, raw: gs.Variable, want: str, cut: gs.Node | None, names: set[str], nodes: list[gs.Node]
    ) -> gs.Variable:
        """Nodes that give c, shaped as the means are."""

        def add(op: str, what: str, inputs: Sequence[gs.Tensor], **attributes: Any) -> gs.Variable:
            made = gs.Variable(walk.unique_name(names, f"{site.output}_{what}"))
            nodes.append(gs.Node(op, f"{made.name}_{op}", attributes, list(inputs), [made]))
            return gs.Variable(made.name)  # by name only, see `_mean`

        tensor = gs.Variable(raw.name)
        if cut is None:
            mean = self._mean(site, tensor, names, nodes)
            return add("Sub", "gap", [gs.Variable(want), gs.Variable(mean)])
        bounds: list[gs.Tensor] = []
        for bound in cut.inputs[1:]:
            constant, name = isinstance(bound, gs.Constant), walk.unique_name(names, f"{site.output}_bound")
            bounds.append(gs.Constant(name, bound.values) if constant else gs.Variable(bound.name))
        behind = add(cut.op, "cut", [tensor, *bounds], **cut.attrs)
        mean = self._mean(site, behind, names, nodes)
        through = add("Cast", "through", [add("Equal", "same", [behind, tensor])], to=_FLOAT)
        share = self._mean(site, through, names, nodes)
        least = gs.Constant(walk.unique_name(names, f"{site.output}_least"), np.array([SHARE], dtype=np.float32))
        missing = add("Sub", "missing", [gs.Variable(want), gs.Variable(mean)])
        return add("Div", "gap", [missing, add("Max", "share", [gs.Variable(share), least])])

    def _mean(self, site: Site, tensor: gs.Variable, names: set[str], nodes: list[gs.Node]) -> str:
        """Nodes that give the mean of each channel: [N, C, 1, ...] where channels are axis 1, else [1, C]."""
        mean = walk.unique_name(names, f"{site.output}_mean")
        # tensors by name only: the model's own would list these nodes among their consumers
        source = gs.Variable(tensor.name)
        if site.spatial:  # reads the blocked layout of convolutions as it is
            nodes.append(gs.Node("GlobalAveragePool", f"{mean}_Pool", {}, [source], [gs.Variable(mean)]))
            return mean
        rows = gs.Variable(walk.unique_name(names, f"{site.output}_rows"))
        cut = gs.Constant(walk.unique_name(names, f"{mean}_cut"), np.array([-1, site.channels], dtype=np.int64))
        nodes.append(gs.Node("Reshape", f"{mean}_Reshape", {}, [source, cut], [rows]))
        axes: list[gs.Tensor] = []
        attributes: dict[str, Any] = {"keepdims": 1}
        if self.model.opset >= AXES_ARE_AN_INPUT:
            axes.append(gs.Constant(walk.unique_name(names, f"{mean}_axes"), np.array([0], dtype=np.int64)))
        else:
            attributes["axes"] = [0]
        nodes.append(
            gs.Node("ReduceMean", f"{mean}_Reduce", attributes, [gs.Variable(rows.name), *axes], [gs.Variable(mean)])
        )
        return mean


def shrunk(shifts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of [samples, channels] over samples, less what is chance: positive-part shrinkage, channel by channel.

    >>> shrunk(np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 0.5]]))
    array([1., 0.])
    """
    count = len(shifts)
    if count < 2:
        return np.zeros(shifts.shape[1])
    mean = shifts.mean(axis=0)
    chance = shifts.var(axis=0, ddof=1) / count
    square = np.maximum(mean**2, np.finfo(np.float64).tiny)
    found: NDArray[np.float64] = mean * np.maximum(0.0, 1.0 - chance / square)
    return found


def rounded(model: Model, plan: Plan) -> Model:
    """A copy whose constants in 8 bits have, in float, the values that the plan rounds them to (main graph only)."""
    copy = model.copy()
    names = walk.tensor_names(copy.graph)
    made: dict[tuple[object, ...], gs.Constant] = {}
    for node in copy.graph.nodes:
        for slot, tensor in enumerate(node.inputs):
            encoding = plan.uses.get(Use((), node.name, slot))
            if encoding is None or encoding.type == "int32" or not isinstance(tensor, gs.Constant):
                continue
            key = (tensor.name, encoding.key)
            if key not in made:
                values = dequantize(quantize(tensor.values, encoding), encoding)
                made[key] = gs.Constant(walk.unique_name(names, f"{tensor.name}_rounded"), values)
            walk.set_input(node, slot, made[key])
    return copy


def activations(plan: Plan, graph: gs.Graph) -> Plan:
    """The plan without what it says of constants, and without what only makes float ops faster."""
    uses = dict(_of_variables(plan, graph))
    return Plan(values=plan.values, uses=uses, decisions=plan.decisions, kinds=plan.kinds)


def _of_variables(plan: Plan, graph: gs.Graph) -> Iterator[tuple[Use, Affine]]:
    for path, inner in walk.graphs(graph):
        held = [(Use(path, n.name, s), t) for n in inner.nodes for s, t in enumerate(n.inputs)]
        held += [(Use(path, "", s), t) for s, t in enumerate(inner.outputs)]
        for use, tensor in held:
            if use in plan.uses and isinstance(tensor, gs.Variable):
                yield use, plan.uses[use]


def _encoding(data: Affine, weight: Affine) -> Affine:
    """Of a bias that is new: sx * sw, as the kernels add it."""
    scale = np.asarray(data.scale * weight.scale, dtype=np.float32)
    kind: PerTensor | PerChannel = PerChannel(0) if scale.ndim else PerTensor()
    return Affine(
        type="int32", granularity=kind, scale=scale, zero_point=np.zeros(scale.shape, dtype=np.int32)
    )  # fmt: skip


def _added_to(site: Site, moved: NDArray[np.float64], encoding: Affine | None) -> NDArray[np.float32] | None:
    """The corrected bias; None if nothing changes. Channels whose bias would leave the range of int32 stay."""
    old = np.zeros(site.channels, dtype=np.float32) if site.bias is None else site.bias
    flat = old.astype(np.float64).reshape(-1)
    moved = np.where(np.isfinite(moved), moved, 0.0)
    if encoding is not None:
        steps = np.abs(flat + moved) / encoding.scale.astype(np.float64).reshape(-1)
        moved = np.where(steps > ROOM, 0.0, moved)
    new: NDArray[np.float32] = (flat + moved).astype(np.float32).reshape(old.shape)
    return None if np.array_equal(new, old) else new
