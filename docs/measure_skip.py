"""ONNX Runtime's fused ops of transformers against their parts: `python docs/measure_skip.py` prints two tables of
docs/placement.md.

Sum and LayerNormalization as two ops and as com.microsoft.SkipLayerNormalization; attention in its parts (split into
heads, product, scale, Softmax, product, join) and as com.microsoft.MultiHeadAttention, without a mask. One thread, the
median of runs in turns; above 1, the fused op is faster.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.ir import save, text
from onnxq.runtime.session import Session
from onnxq.validate.latency import measure

HEAD = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'
NORMS = ((16, 384), (128, 384), (128, 768), (512, 768))
ATTENTION = ((17, 4, 16), (128, 12, 32), (197, 12, 64), (384, 12, 64), (577, 12, 64), (1024, 8, 64), (2048, 8, 64))


def main() -> None:
    parser = argparse.ArgumentParser(description="Fused ops of transformers against their parts.")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row")
    told = parser.parse_args()
    print("| tokens | width | Sum, LayerNormalization, ms | SkipLayerNormalization, ms | times as fast |")
    print("|---|---|---|---|---|")
    for tokens, width in NORMS:
        feeds = {name: normal(1, tokens, width) for name in "xr"} | {name: np.ones(width, np.float32) for name in "gh"}
        parts, fused = (norm(tokens, width, fused=fused) for fused in (False, True))
        print(f"| {tokens} | {width} | {timed(parts, fused, feeds, told.seconds)}", flush=True)
    print("\n| tokens | heads | width of a head | parts, ms | MultiHeadAttention, ms | times as fast |")
    print("|---|---|---|---|---|---|")
    for tokens, heads, width in ATTENTION:
        feeds = {name: normal(1, tokens, heads * width) for name in "qkv"}
        parts, fused = (attention(tokens, heads, width, fused=fused) for fused in (False, True))
        print(f"| {tokens} | {heads} | {width} | {timed(parts, fused, feeds, told.seconds)}", flush=True)


def norm(tokens: int, width: int, *, fused: bool) -> bytes:
    """x + r, normalized."""
    shape = f"float[1,{tokens},{width}]"
    parts = "s = Sum(x, r) y = LayerNormalization(s, g, h)"  # an Add would be fused
    body = "y = com.microsoft.SkipLayerNormalization<epsilon = 1e-05>(x, r, g, h)" if fused else parts
    inputs = f"{shape} x, {shape} r, float[{width}] g, float[{width}] h"
    return made(f"g ({inputs}) => ({shape} y) {{ {body} }}")


def attention(tokens: int, heads: int, width: int, *, fused: bool) -> bytes:
    """Softmax(q k / sqrt(width)) v for each head."""
    shape = f"float[1,{tokens},{heads * width}]"
    constants = f"int64[4] split = {{0, 0, {heads}, {width}}}, int64[3] join = {{0, 0, {heads * width}}}"
    each = "".join(
        f"{n}s = Reshape({n}, split) {n}t = Transpose<perm = [{perm}]>({n}s) "
        for n, perm in (("q", "0,2,1,3"), ("k", "0,2,3,1"), ("v", "0,2,1,3"))
    )
    scores = "a = MatMul(qt, kt) b = Mul(a, scale) p = Softmax<axis = -1>(b) o = MatMul(p, vt)"
    parts = f"{each} {scores} j = Transpose<perm = [0,2,1,3]>(o) y = Reshape(j, join)"
    body = f"y = com.microsoft.MultiHeadAttention<num_heads = {heads}>(q, k, v)" if fused else parts
    scale = f"float scale = {{{width**-0.5}}}"
    return made(f"g ({', '.join(f'{shape} {n}' for n in 'qkv')}) => ({shape} y) <{constants}, {scale}> {{ {body} }}")


def made(graph: str) -> bytes:
    return save.to_bytes(text.parse(HEAD + graph))


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def timed(parts: bytes, fused: bytes, feeds: Mapping[str, NDArray[Any]], seconds: float) -> str:
    """The last three cells of a row, behind a look at whether both give the same."""
    first, second = (Session(model, threads=1).run(feeds)["y"] for model in (parts, fused))
    assert np.allclose(first, second, atol=1e-4)
    found = measure(parts, fused, [feeds], budget_seconds=seconds)
    return f"{found.reference_ms:.3f} | {found.candidate_ms:.3f} | {found.speedup:.2f} |"


if __name__ == "__main__":
    main()
