"""Facts about ONNX Runtime's CPU kernels: which are integer, what fuses into them, and under which conditions.

Read off ORT 1.31 and tested against the installed version: each test in `tests/validate/test_reasons.py` takes a cause
away and looks for the integer kernel in ORT's own graph.
"""

from __future__ import annotations

LAYOUT_OPTIMIZERS = ("NchwcTransformer", "NhwcTransformer")
"""Optimizers that only change memory layout. They rename tensors on their way, so names are followed without them."""


def words(text: str) -> frozenset[str]:
    """A set of names written as one line."""
    return frozenset(text.split())


_CONV = words("Conv FusedConv NhwcFusedConv QLinearConv ConvInteger")
_MATMUL = words(
    "MatMul Gemm FusedMatMul TransposeMatMul FusedMatMulActivation FusedGemm QLinearMatMul QGemm MatMulInteger "
    "MatMulIntegerToFloat DynamicQuantizeMatMul MatMulNBits Attention QAttention MultiHeadAttention GroupQueryAttention"
)
_RECURRENT = {op: frozenset({op, f"DynamicQuantize{op}"}) for op in ("LSTM", "GRU", "RNN")}

FAMILIES: dict[str, frozenset[str]] = {
    **dict.fromkeys(_CONV, _CONV),
    **dict.fromkeys(_MATMUL, _MATMUL),
    **_RECURRENT,
    "DynamicQuantizeLSTM": frozenset({"DynamicQuantizeLSTM"}),
    "ConvTranspose": frozenset({"ConvTranspose", "FusedConvTranspose"}),
    "DeformConv": frozenset({"DeformConv"}),
    "Einsum": frozenset({"Einsum", *_MATMUL}),
}
"""Heavy operator (it multiplies and accumulates) -> the kernels that it may end up in."""

INTEGER_KERNELS = words(
    "QGemm MatMulInteger ConvInteger MatMulIntegerToFloat DynamicQuantizeMatMul DynamicQuantizeLSTM QAttention "
    "QEmbedLayerNormalization MatMulNBits GatherBlockQuantized QuantizeLinear DequantizeLinear"
)
"""Kernels on integers, besides all that start with QLinear."""

BOOKKEEPING = words(
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear Constant Identity Dropout Cast CastLike Shape Size "
    "ConstantOfShape Range If Loop Scan Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct "
    "SequenceEmpty SequenceErase SequenceInsert SequenceLength SplitToSequence ConcatFromSequence ZipMap"
)
"""Operators that are no work of their own: conversions, constants, shapes, control flow."""

HELPERS = words("Reshape Transpose Cast Squeeze Unsqueeze DequantizeLinear QuantizeLinear Identity Slice")
"""What ORT may put behind a kernel when it fuses."""

WEIGHTED = frozenset({"Conv", "MatMul", "Gemm"})

QUANTIZABLE: dict[str, tuple[int, ...] | None] = {
    "Conv": (0, 1),
    "MatMul": (0, 1),
    "Gemm": (0, 1),
    "Add": (0, 1),
    "Mul": (0, 1),
    "Concat": None,
    "Where": (1, 2),
    "AveragePool": (0,),
    "GlobalAveragePool": (0,),
    "LeakyRelu": (0,),
    "Sigmoid": (0,),
    "Softmax": (0,),
}
"""DQ -> op -> Q becomes a QLinear kernel: the inputs that must be DQ (None: all). MatMul and Gemm don't need the Q."""

NO_OUTPUT_Q = frozenset({"MatMul", "Gemm"})

MOVES = words("Transpose Reshape Flatten Squeeze Unsqueeze Slice Gather GatherElements Expand Tile")
"""Pure moves: with equal parameters on both sides Q and DQ are dropped; 8 and 16 bits."""

DROPS = MOVES | words("Resize DepthToSpace MaxPool ReduceMax ReduceMin Split")
"""All operators around which ORT drops Q and DQ with equal parameters; 8 bits, except for moves."""


def is_integer_kernel(op: str) -> bool:
    """True for a kernel that computes on integers whatever its input; for moves and pools that depends on it."""
    return op.startswith("QLinear") or op in INTEGER_KERNELS
