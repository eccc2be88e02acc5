"""Attention that is written in Einsum becomes int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rewriting import model

from onnxq.config.job import Job
from onnxq.driver import quantize
from onnxq.ir import text
from onnxq.ir.save import to_bytes
from onnxq.runtime.session import Session

WIDTH, HEADS, EACH = 32, 4, 8


def _weight(name: str, seed: int, *shape: int) -> str:
    values = np.random.default_rng(seed).normal(0, WIDTH**-0.5, shape).reshape(-1)
    return f"float[{','.join(map(str, shape))}] {name} = {{{', '.join(f'{v:.5f}' for v in values)}}}"


def _attention(batch: str, length: str) -> str:
    into = "".join(f'[{n}] {n}h = Einsum<equation = "bid,dhe->bihe">(x, w{n}) ' for n in "qkv")
    weights = [_weight(f"w{n}", seed, WIDTH, HEADS, EACH) for seed, n in enumerate("qkv")]
    weights.append(_weight("wo", 3, HEADS, EACH, WIDTH))
    return model(
        f"(float[{batch},{length},{WIDTH}] x) => (float[{batch},{length},{WIDTH}] y) <{', '.join(weights)}, "
        f"float scale = {{{EACH**-0.5}}}> {{ {into}"
        '[scores] s = Einsum<equation = "bihe,bjhe->bhij">(qh, kh) [scaled] t = Mul(s, scale) [p] p = Softmax(t) '
        '[context] c = Einsum<equation = "bhij,bjhe->bihe">(p, vh) [out] y = Einsum<equation = "bihe,hed->bid">(c, wo) }'
    )


@pytest.mark.parametrize(("batch", "length"), [("1", "16"), ("N", "S")])
def test_attention_becomes_int8(batch: str, length: str, tmp_path: Path) -> None:
    samples = np.random.default_rng(9).normal(0, 1, (8, 1, 16, WIDTH)).astype(np.float32)
    (tmp_path / "m.onnx").write_bytes(to_bytes(text.parse(_attention(batch, length))))
    np.savez(tmp_path / "x.npz", x=samples)
    job = Job(model=tmp_path / "m.onnx").with_overrides(
        output=tmp_path / "o.onnx", calib=str(tmp_path / "x.npz"), method="minmax", threads=1, speed=False,
        placement="rules",
    )  # fmt: skip
    found = quantize(job).coverage
    assert found is not None
    heavy = {op.name: op for op in found.ops if op.heavy}
    assert {op.op for op in heavy.values()} == {"MatMul"}
    assert all(heavy[n].integer for n in ("q", "k", "v", "out"))
    before, after = (Session(tmp_path / name, threads=1).run({"x": samples[0]})["y"] for name in ("m.onnx", "o.onnx"))
    assert np.square(before).mean() > 100 * np.square(before - after).mean()
