"""Each reason why an op stays float: removing the cause makes ONNX Runtime run the op in an integer kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from quantized import quantize_text

HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'


def _w(*shape: int, scale: float = 0.1) -> np.ndarray:
    return np.random.default_rng(1).normal(0, scale, shape).astype(np.float32)


CONV = HEAD + "g (float[1,4,8,8] x) => (float[1,4,8,8] y) <float[4,4,3,3] W = {0}> { y = Conv <pads=[1,1,1,1]> (x, W) }"


@dataclass
class Case:
    """`broken` has the cause, `mended` has not; `op` is the op that is looked at."""

    reason: str
    op: str
    kernel: str
    broken: str
    mended: str
    broken_options: dict[str, Any] = field(default_factory=dict)
    mended_options: dict[str, Any] = field(default_factory=dict)


def graph(body: str, *, ins: str = "float[1,4,8,8] x", outs: str = "float[1,4,8,8] y", inits: str = "") -> str:
    values = f" <{inits}>" if inits else ""
    return f"{HEAD}g ({ins}) => ({outs}){values} {{ {body} }}"


W = {"W": _w(4, 4, 3, 3)}
W2 = {"W": _w(4, 4, 3, 3), "V": _w(4, 4, 3, 3)}
PADS = "<pads=[1,1,1,1]>"
INIT = "float[4,4,3,3] W = {0}"
INIT2 = "float[4,4,3,3] W = {0}, float[4,4,3,3] V = {0}"

CASES = [
    Case(
        'kept float by the pattern "Conv"',
        "Conv",
        "QLinearConv",
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        {"keep_float": ["Conv"], "constants": W},
        {"constants": W},
    ),
    Case(
        "both operands are computed at run time",
        "Conv",
        "QLinearConv",
        graph(f"V = Relu(W) y = Conv {PADS} (x, V)", ins="float[1,4,8,8] x, float[4,4,3,3] W"),
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        {},
        {"constants": W},
    ),
    Case(
        "its bias is computed at run time",
        "Conv",
        "QLinearConv",
        graph(f"b = Relu(a) y = Conv {PADS} (x, W, b)", ins="float[1,4,8,8] x, float[4] a", inits=INIT),
        graph(f"y = Conv {PADS} (x, W, b)", inits=INIT + ", float[4] b = {1, 2, 3, 4}"),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "no sample reached y",
        "Conv",
        "QLinearConv",
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        {"constants": W, "unreached": ["y"]},
        {"constants": W},
    ),
    Case(
        "the integer Gemm with a bias wants alpha = beta = 1",
        "Gemm",
        "QGemm",
        graph(
            "y = Gemm <alpha = 0.5> (x, W, b)",
            ins="float[2,8] x",
            outs="float[2,4] y",
            inits="float[8,4] W = {0}, float[4] b = {1,2,3,4}",
        ),
        graph(
            "y = Gemm <alpha = 1.0> (x, W, b)",
            ins="float[2,8] x",
            outs="float[2,4] y",
            inits="float[8,4] W = {0}, float[4] b = {1,2,3,4}",
        ),
        {"constants": {"W": _w(8, 4)}},
        {"constants": {"W": _w(8, 4)}},
    ),
    Case(
        "its bias has shape [2, 4]: a scale per output channel needs [4]",
        "Gemm",
        "QGemm",
        graph(
            "y = Gemm (x, W, b)",
            ins="float[2,8] x",
            outs="float[2,4] y",
            inits="float[8,4] W = {0}, float[2,4] b = {1,2,3,4,5,6,7,8}",
        ),
        graph(
            "y = Gemm (x, W, b)",
            ins="float[2,8] x",
            outs="float[2,4] y",
            inits="float[8,4] W = {0}, float[4] b = {1,2,3,4}",
        ),
        {"constants": {"W": _w(8, 4)}},
        {"constants": {"W": _w(8, 4)}},
    ),
    Case(
        "its weight holds NaN or Inf",
        "Conv",
        "QLinearConv",
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        {"constants": {"W": np.full_like(W["W"], np.inf)}},
        {"constants": W},
    ),
    Case(
        "its bias holds NaN or Inf",
        "Conv",
        "QLinearConv",
        graph(f"y = Conv {PADS} (x, W, b)", inits=INIT + ", float[4] b = {0}"),
        graph(f"y = Conv {PADS} (x, W, b)", inits=INIT + ", float[4] b = {0}"),
        {"constants": {**W, "b": np.array([1, np.nan, 3, 4], np.float32)}},
        {"constants": {**W, "b": np.array([1, 2, 3, 4], np.float32)}},
    ),
    Case(
        "its data operand is constant",
        "MatMul",
        "QLinearMatMul",
        graph("m = MatMul(W, x) y = Neg(m)", ins="float[8,2] x", outs="float[4,2] y", inits="float[4,8] W = {0}"),
        graph(
            "m = MatMul(x, W) y = MatMul(m, V)",
            ins="float[2,8] x",
            outs="float[2,4] y",
            inits="float[8,4] W = {0}, float[4,4] V = {0}",
        ),
        {"constants": {"W": _w(4, 8)}},
        {"constants": {"W": _w(8, 4), "V": _w(4, 4)}},
    ),
    Case(
        "its result is only used in float",
        "Add",
        "QLinearAdd",
        graph(f"a = Conv {PADS} (x, W) b = Conv {PADS} (x, V) y = Add(a, b)", inits=INIT2),
        graph(f"a = Conv {PADS} (x, W) b = Conv {PADS} (x, V) c = Add(a, b) y = Conv {PADS} (c, V)", inits=INIT2),
        {"constants": W2},
        {"constants": W2},
    ),
    Case(
        "its input is float: it comes from Sin",
        "Add",
        "QLinearAdd",
        graph(f"a = Conv {PADS} (x, W) b = Sin(x) c = Add(a, b) y = Conv {PADS} (c, V)", inits=INIT2),
        graph(f"a = Conv {PADS} (x, W) c = Add(a, x) y = Conv {PADS} (c, V)", inits=INIT2),
        {"constants": W2},
        {"constants": W2},
    ),
    Case(
        "in one 8-bit scale the narrow one would lose",
        "Concat",
        "QLinearConcat",
        graph(
            f"a = Conv {PADS} (x, W) c = Concat <axis=0> (a, x) y = Conv {PADS} (c, V)",
            inits=INIT2,
            outs="float[2,4,8,8] y",
        ),
        graph(
            f"a = Conv {PADS} (x, W) c = Concat <axis=0> (a, x) y = Conv {PADS} (c, V)",
            inits=INIT2,
            outs="float[2,4,8,8] y",
        ),
        {"constants": {"W": _w(4, 4, 3, 3, scale=100.0), "V": _w(4, 4, 3, 3)}},
        {"constants": W2},
    ),
    Case(
        "the factors in its constant k keep only",
        "Mul",
        "QLinearMul",
        graph(
            f"a = Conv {PADS} (x, W) c = Mul(a, k) y = Conv {PADS} (c, V)",
            inits=INIT2 + ", float[4,1,1] k = {1000.0, 0.5, 0.7, 0.1}",
        ),
        graph(
            f"a = Conv {PADS} (x, W) c = Mul(a, k) y = Conv {PADS} (c, V)",
            inits=INIT2 + ", float[4,1,1] k = {1.0, 0.5, 0.7, 0.1}",
        ),
        {
            "constants": {
                **W2,
                "k": np.array([30.0, 0.4, 0.4, 0.4], np.float32).reshape(4, 1, 1) * np.float32(np.pi / 3),
            }
        },
        {"constants": W2},
    ),
    Case(
        "the integer MaxPool is slower than the float one unless an integer Conv feeds it",
        "MaxPool",
        "NhwcMaxPool",
        graph(
            f"a = Sin(x) z = Conv {PADS} (a, W) c = MaxPool <kernel_shape=[2,2]> (a) y = Conv {PADS} (c, W)",
            inits=INIT,
            outs="float[1,4,7,7] y, float[1,4,8,8] z",
        ),
        graph(
            f"a = Conv {PADS} (x, W) c = MaxPool <kernel_shape=[2,2]> (a) y = Conv {PADS} (c, W)",
            inits=INIT,
            outs="float[1,4,7,7] y",
        ),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "Resize with mode linear computes new values",
        "Resize",
        "Resize",
        graph(
            f'a = Conv {PADS} (x, W) c = Resize <mode="linear"> (a, , s) y = Conv {PADS} (c, W)',
            inits=INIT + ", float[4] s = {1,1,2,2}",
            outs="float[1,4,16,16] y",
        ),
        graph(
            f'a = Conv {PADS} (x, W) c = Resize <mode="nearest"> (a, , s) y = Conv {PADS} (c, W)',
            inits=INIT + ", float[4] s = {1,1,2,2}",
            outs="float[1,4,16,16] y",
        ),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "cannot vanish into it",
        "Relu",
        "QLinearConv",
        graph(f"a = Conv {PADS} (x, W) r = Relu(a) y = Add(a, r)", inits=INIT),
        graph(f"a = Conv {PADS} (x, W) y = Relu(a)", inits=INIT),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "its bounds are computed at run time",
        "Clip",
        "QLinearConv",
        graph(f"a = Conv {PADS} (x, W) y = Clip(a, lo)", ins="float[1,4,8,8] x, float lo", inits=INIT),
        graph(f"a = Conv {PADS} (x, W) y = Clip(a, lo)", inits=INIT + ", float lo = {0}"),
        {"constants": W, "inputs": {"lo": np.array(0.0, np.float32)}},
        {"constants": W},
    ),
    Case(
        "its bounds leave out 0",
        "Clip",
        "QLinearConv",
        graph(f"a = Conv {PADS} (x, W) y = Clip(a, lo)", inits=INIT + ", float lo = {0.25}"),
        graph(f"a = Conv {PADS} (x, W) y = Clip(a, lo)", inits=INIT + ", float lo = {-0.25}"),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "it works on an attention mask",
        "Add",
        "QLinearAdd",
        graph(
            f"a = Conv {PADS} (x, W) b = Conv {PADS} (x, V) p = Mul(m, k) c = Add(b, p)"
            f" d = Add(a, c) y = Conv {PADS} (d, W)",
            ins="float[1,4,8,8] x, float[1,1,1,8] m",
            inits=INIT2 + ", float k = {-1000000000.0}",
        ),
        graph(
            f"a = Conv {PADS} (x, W) b = Conv {PADS} (x, V) d = Add(a, b) y = Conv {PADS} (d, W)",
            inits=INIT2,
        ),
        {"constants": W2, "inputs": {"m": np.array([0, 0, 0, 0, 0, 0, 1, 1], np.float32).reshape(1, 1, 1, 8)}},
        {"constants": W2},
    ),
    Case(
        "no integer op stands before it",
        "Relu",
        "QLinearConv",
        graph("a = Sin(x) y = Relu(a)"),
        graph(f"a = Conv {PADS} (x, W) y = Relu(a)", inits=INIT),
        {},
        {"constants": W},
    ),
    Case(
        "CPU has no integer kernel for ConvTranspose",
        "ConvTranspose",
        "QLinearConv",
        graph(f"y = ConvTranspose {PADS} (x, W)", inits=INIT),
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "it stands in a body of If, Loop or Scan",
        "Conv",
        "QLinearConv",
        graph(
            f"y = If (c) <then_branch = t () => (float[1,4,8,8] a) {{ a = Conv {PADS} (x, W) }}, "
            f"else_branch = e () => (float[1,4,8,8] b) {{ b = Neg(x) }}>",
            ins="float[1,4,8,8] x, bool c",
            inits=INIT,
        ),
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        {"inputs": {"c": np.array(True)}},
        {"constants": W},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.reason[:40])
def test_removing_the_cause_makes_it_integer(case: Case) -> None:
    broken = quantize_text(case.broken, **case.broken_options)
    reasons = [d.reason for d in broken.plan.decisions.values() if d.op == case.op and not d.integer]
    assert any(case.reason in r for r in reasons), (reasons, broken.plan.decisions)
    mended = quantize_text(case.mended, **case.mended_options)
    wanted = "Conv" if case.op == "ConvTranspose" else case.op
    decisions = [d for d in mended.plan.decisions.values() if d.op == wanted]
    assert decisions and all(d.integer for d in decisions), mended.plan.decisions
    assert mended.kernels()[case.kernel] >= 1, mended.kernels()
    if case.kernel.startswith("Q") and case.kernel not in ("QLinearConv",):
        assert broken.kernels()[case.kernel] == 0, broken.kernels()
    heavy = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"}
    assert not heavy & set(mended.kernels()), "a heavy op was left in float without a word"


def test_every_reason_of_the_selector_has_a_case() -> None:
    """A reason that is added without a case above fails here."""
    import inspect
    import re

    from onnxq.plan import reasons, select

    source = inspect.getsource(select) + inspect.getsource(reasons)
    starts = re.findall(r'(?:return|reasons\[[^]]+\] =|=) \(?\s*f?"([a-z][^"{]{12,})', source)
    known = " | ".join(c.reason for c in CASES) + " | ".join(EXEMPT)
    missing = [s for s in starts if s.strip()[:14] not in known and s.strip().split("{")[0][:14] not in known]
    assert not missing


EXEMPT = (
    "it reads a constant table",  # an embedding, or a node that fold-constants removes first
    "the result of ",  # ends in "cannot vanish into it"
    "it reads an initializer",  # overridable: tests/test_quantization.py
    "its operand is ",  # int64 and the like
    "its input comes from a float op",  # the same as "its input is float", found in the second round
)
