"""Why did ORT keep an operator in float? Read off the file: what is around the node, what ORT's fusions want."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.validate.kernels import DROPS, MOVES, NO_OUTPUT_Q, QUANTIZABLE, WEIGHTED
from onnxq.validate.network import Network, array

_EIGHT = ("int8", "uint8")
_SIXTEEN = ("int16", "uint16")
NOT_QUANTIZED = "the model is not quantized"
UNKNOWN = "ONNX Runtime kept it in float for a reason that onnxq does not know"


@dataclass(frozen=True)
class Reasons:
    """Reasons for the nodes of one file."""

    file: Network

    def reason(self, node: gs.Node, kernel: gs.Node | None) -> str:
        """One phrase; `kernel` is what ORT runs in its place."""
        if not self.file.quantized:
            return NOT_QUANTIZED
        if node.op in ("Relu", "Clip"):
            return self._activation(node) or UNKNOWN
        if node.op not in QUANTIZABLE and node.op not in DROPS:
            return f"ONNX Runtime has no integer kernel for {node.op}"
        if node.op == "Resize" and node.attrs.get("mode", "nearest") not in ("nearest", b"nearest"):
            return "ONNX Runtime has no integer kernel for Resize with interpolation"
        slots = QUANTIZABLE.get(node.op, (0,)) or tuple(range(len(node.inputs)))
        reason = self._inputs(node, slots) or self.wrong_axis(node) or self._bias(node)
        reason = reason or self._output(node, slots[0])
        return reason or self._fused_away(node, kernel) or UNKNOWN

    # ---- inputs

    def _inputs(self, node: gs.Node, slots: tuple[int, ...]) -> str:
        types: list[str] = []
        for slot in slots:
            if slot >= len(node.inputs) or not node.inputs[slot].name:
                continue
            tensor = node.inputs[slot]
            dq = self.file.producers.get(tensor.name)
            if dq is None or dq.op != "DequantizeLinear":
                return self._not_quantized(node, slot, dq)
            reason = self._dequantize(node, slot, dq)
            if reason:
                return reason
            types.append(_type(dq))
        allowed = _EIGHT + _SIXTEEN if node.op in MOVES else _EIGHT
        odd = next((t for t in types if t not in allowed), "")
        if odd:
            return f"its input is {odd}: ONNX Runtime has integer kernels for 8 bits only"
        if node.op in QUANTIZABLE and node.op not in WEIGHTED and len(set(types)) > 1:
            return f"its inputs have different types ({' and '.join(sorted(set(types)))})"
        if node.op in ("Conv", "MatMul") and types and types[0] == "int8":
            return "its input is int8, and ONNX Runtime on x86 has fast kernels for uint8 inputs only"
        if node.op == "Gemm" and types == ["int8", "uint8"]:
            return "its input is int8 and its weight uint8"
        return ""

    def _not_quantized(self, node: gs.Node, slot: int, producer: gs.Node | None) -> str:
        tensor = node.inputs[slot]
        if isinstance(tensor, gs.Constant):
            if node.op in WEIGHTED:
                return "its weight is float"
            return f'its constant operand "{tensor.name}" is float'
        body = self.file.nodes[node.name][0]
        inside = f" (it stands inside {body[-1]})" if body else ""
        if producer is None:
            return f'its input {slot} "{tensor.name}" is not quantized{inside}'
        what = "weight, computed at run time by" if node.op in WEIGHTED and slot == 1 else f"input {slot}, from"
        return f"its {what} {producer.op}, is not quantized{inside}"

    def _dequantize(self, node: gs.Node, slot: int, dq: gs.Node) -> str:
        scale, zero = array(dq.inputs[1]), _zero_point(dq)
        weight = node.op in WEIGHTED and slot == 1
        body = self.file.nodes[node.name][0]
        if self.file.nodes[dq.name][0] != body:
            return f"the DequantizeLinear of its input {slot} stands outside of {body[-1]}"
        if scale is None:
            return f"the scale of its input {slot} is not a constant"
        if scale.size > 1 and not weight:
            return f"its input {slot} has one scale per channel, which only weights may have"
        if zero is None and (node.op == "Gemm" or node.op in DROPS or (node.op == "Conv" and _type(dq) == "int8")):
            return f"the DequantizeLinear of its input {slot} has no zero point"
        return ""

    # ---- weights

    def wrong_axis(self, node: gs.Node) -> str:
        """Weight scales along another axis than ORT reads: where ORT fuses that all the same, it computes nonsense."""
        if node.op not in WEIGHTED:
            return ""
        dq = self.file.producers.get(node.inputs[1].name)
        scale = array(dq.inputs[1]) if dq is not None and dq.op == "DequantizeLinear" else None
        if dq is None or scale is None or scale.size < 2:
            return ""
        if dq.attrs.get("block_size"):
            return "its weight has one scale per block"
        values = array(dq.inputs[0])
        rank = values.ndim if values is not None else 2
        axis = int(dq.attrs.get("axis", 1)) % rank
        wanted = {"Conv": 0, "MatMul": rank - 1}.get(node.op, 0 if node.attrs.get("transB") else 1)
        if axis == wanted:
            return ""
        return f"its weight has its scales along axis {axis}, and ONNX Runtime wants axis {wanted}"

    def _bias(self, node: gs.Node) -> str:
        if node.op != "Gemm" or len(node.inputs) < 3 or not node.inputs[2].name:
            return ""
        if node.attrs.get("alpha", 1.0) != 1.0 or node.attrs.get("beta", 1.0) != 1.0:
            return "it has a bias and an alpha or beta other than 1"
        dq = self.file.producers.get(node.inputs[2].name)
        quantized = dq is not None and dq.op == "DequantizeLinear"
        if quantized and dq is not None and _type(dq) != "int32":
            return f"its bias is {_type(dq)} and must be int32"
        if not quantized and not self._quantizers(node.outputs[0]):
            return "its bias is float and no QuantizeLinear follows: one of the two must be quantized"
        return ""

    # ---- output

    def _output(self, node: gs.Node, slot: int) -> str:
        uses = [u.node for t in node.outputs for u in self.file.consumers.get(t.name, ())]
        final = node.outputs[0]
        result = final.name in self.file.results
        if not result and len(uses) == 1 and uses[0].op in ("Relu", "Clip") and node.op == "Conv":
            activation = uses[0]
            if self._quantizers(activation.outputs[0]):
                reason = self._activation(activation)
                if reason:
                    return f"the {activation.op} behind it stays: {reason}"
                final = activation.outputs[0]
                uses = [u.node for u in self.file.consumers.get(final.name, ())]
                result = final.name in self.file.results
        quantizers = [n for n in uses if n.op == "QuantizeLinear"]
        others = [n for n in uses if n.op != "QuantizeLinear"]
        if not quantizers:
            if node.op in NO_OUTPUT_Q:
                return ""
            where = (
                "it is an output of the graph"
                if result
                else f"it is read by {others[0].op}"
                if others
                else "nobody reads it"
            )
            return f"its output is not quantized ({where}), and its integer kernel needs a QuantizeLinear right behind"
        if result:
            return "its output is quantized, but is also an output of the graph in float"
        if others:
            return f"its output is quantized, but is also read in float by {others[0].op}"
        return self._parameters(node, slot, quantizers)

    def _parameters(self, node: gs.Node, slot: int, quantizers: list[gs.Node]) -> str:
        several = _several(quantizers) if len(node.outputs) == 1 else ""
        if several:
            return f"its output is {several}"
        q = quantizers[0]
        scale, dq = array(q.inputs[1]), self.file.producers[node.inputs[slot].name]
        if scale is None or scale.size > 1:
            return "its output has one scale per channel or a scale that is not constant"
        given, made = _type(dq), _type(q)
        if node.op in DROPS:
            if _zero_point(q) is None:
                return "the QuantizeLinear behind it has no zero point"
            if any(_key(other) != _key(dq) for other in quantizers):
                return "the QuantizeLinear behind it has other parameters than the DequantizeLinear before it"
        elif given != made:
            return f"its input is {given}, but its output {made}"
        return ""

    def _activation(self, node: gs.Node) -> str:
        """Relu and Clip are integer only where the QuantizeLinear behind them clips the same numbers anyway."""
        output = node.outputs[0].name
        quantizers = self._quantizers(node.outputs[0])
        if not quantizers:
            return f"no QuantizeLinear behind the {node.op} makes it redundant"
        if output in self.file.results:
            return f"the output of the {node.op} is also an output of the graph in float"
        if len(self.file.consumers.get(output, ())) > len(quantizers):
            return f"the output of the {node.op} is also read in float"
        several = _several(quantizers)
        return f"the output of the {node.op} is {several}" if several else self._redundant(node, quantizers[0])

    def _redundant(self, node: gs.Node, quantizer: gs.Node) -> str:
        """Why ORT does not see that `quantizer` lets no more through than the Relu or Clip before it."""
        scale = array(quantizer.inputs[1])
        if _zero_point(quantizer) is None:
            return f"the QuantizeLinear behind the {node.op} has no zero point"
        if scale is not None and scale.size > 1:
            return f"the QuantizeLinear behind the {node.op} has one scale per channel"
        least, most = _bounds(node)
        if least is None or most is None:
            return f"the bounds of the {node.op} are not constants"
        if scale is None and node.op == "Clip":  # of Relu, ORT looks at the zero point only
            return f"the scale of the QuantizeLinear behind the {node.op} is not a constant"
        low, high = _range(quantizer)
        if low < least or high > most:
            return (
                f"the QuantizeLinear behind the {node.op} covers {low:.4g} to {high:.4g}, which goes beyond "
                f"{least:.4g} to {most:.4g}"
            )
        if node.op == "Clip" and scale is not None and scale.ndim:
            return f"the scale of the QuantizeLinear behind the {node.op} is not a scalar"
        return ""

    def _quantizers(self, tensor: gs.Tensor) -> list[gs.Node]:
        return [u.node for u in self.file.consumers.get(tensor.name, ()) if u.node.op == "QuantizeLinear"]

    def _fused_away(self, node: gs.Node, kernel: gs.Node | None) -> str:
        if node.op == "MatMul" and kernel is not None and kernel.op in ("Gemm", "FusedGemm"):
            return "ONNX Runtime merged it with the float Add behind it into a float Gemm"
        return ""


def _zero_point(node: gs.Node) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None:
    return array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None


def _type(node: gs.Node) -> str:
    """Integer type of a Q or DQ."""
    zero = _zero_point(node)
    if zero is not None:
        return zero.dtype.name
    values = array(node.inputs[0])
    if node.op == "DequantizeLinear" and values is not None:
        return values.dtype.name
    if node.op == "DequantizeLinear" and node.inputs[0].inputs and node.inputs[0].inputs[0].op == "QuantizeLinear":
        return _type(node.inputs[0].inputs[0])
    return {3: "int8", 5: "int16", 4: "uint16"}.get(int(node.attrs.get("output_dtype", 0)), "uint8")


def _key(node: gs.Node) -> tuple[object, ...]:
    """Identity of the parameters of a Q or DQ; of a computed scale: its name."""
    scale, zero = array(node.inputs[1]), _zero_point(node)
    return (
        _type(node),
        node.inputs[1].name if scale is None else scale.tobytes(),
        b"" if zero is None else zero.tobytes(),
    )


def _several(quantizers: list[gs.Node]) -> str:
    """ORT wants one Q behind an operator, or several that read the same parameter tensors, which it merges."""
    if len({_key(q) for q in quantizers}) > 1:
        return f"quantized by {len(quantizers)} QuantizeLinear with different parameters"
    if len({tuple(t.name for t in q.inputs) for q in quantizers}) > 1:
        return f"quantized by {len(quantizers)} QuantizeLinear with equal parameters in different tensors"
    return ""


def _range(node: gs.Node) -> tuple[float, float]:
    """Least and greatest real number of a Q."""
    scale, zero = array(node.inputs[1]), _zero_point(node)
    if scale is None:
        return -np.inf, np.inf
    limits = np.iinfo(_type(node))
    point = float(zero.astype(np.float64).max()) if zero is not None else 0.0
    most = float(scale.max())
    return (limits.min - point) * most, (limits.max - point) * most


def _bounds(node: gs.Node) -> tuple[float | None, float | None]:
    """What a Relu or Clip lets through."""
    if node.op == "Relu":
        return 0.0, np.inf
    found: list[float | None] = []
    for slot, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        if len(node.inputs) > slot and node.inputs[slot].name:
            values = array(node.inputs[slot])
            found.append(None if values is None else float(values.reshape(-1)[0]))
        else:
            found.append(float(node.attrs.get(name, default)))
    return found[0], found[1]
