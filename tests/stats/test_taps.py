"""Which tensors need a tap, and which hold an attention mask."""

from __future__ import annotations

import pytest

from onnxq.ir.text import parse, text
from onnxq.stats.taps import aliases, mask_tensors, names_of, produced, with_outputs

HEAD = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>\n'


def test_with_outputs_leaves_the_model_alone() -> None:
    model = parse(HEAD + "g (float[2] x) => (float[2] z) { y = Relu(x) z = Neg(y) }")
    before = text(model)
    tapped = with_outputs(model, ["y", "z"])
    assert names_of(tapped.graph.outputs) == ["z", "y"]
    assert text(model) == before
    assert produced(model.graph) == ["x", "y", "z"]


def test_aliases_follow_copies_to_their_origin() -> None:
    model = parse(
        HEAD
        + """g (float[1,4] x) => (float[1,2,2,1] e, float[1,4] f) <int64[2] s = {2, 2}, int64[1] z = {0}> {
      a = Relu(x)
      b = Reshape(a, s)
      c = Transpose(b)
      d = Unsqueeze(c, z)
      q = Flatten(d)
      w = Slice(x, z, z)
      p = Identity(x)
      f = com.microsoft.Reshape(x)
      k = Reshape(s, z)
      e = SpaceToDepth <blocksize=1> (d)
    }"""
    )
    assert aliases(model.graph) == {"b": "a", "c": "a", "d": "a", "q": "a", "e": "a", "p": "x", "k": "s"}


def masks(body: str, constants: str = "") -> set[str]:
    values = f"<{constants}>" if constants else ""
    return mask_tensors(parse(f"{HEAD}g (float[2,2] x, bool[2,2] b) => (float[2,2] y) {values} {{ {body} }}").graph)


@pytest.mark.parametrize("low", ["-inf", "-3.4e38", "-1e9", "-10000.0"])
def test_a_mask_is_followed_to_the_softmax(low: str) -> None:
    found = masks("c = Cast <to=1> (b) n = Mul(c, low) s = Add(x, n) y = Softmax(s)", f"float low = {{{low}}}")
    assert found == {"low", "n", "s"}
    assert masks("s = Where(b, x, low) y = Softmax(s)", f"float low = {{{low}}}") == {"low", "s"}


def test_a_mask_is_followed_into_bodies_and_out_of_them() -> None:
    source = """g (float[4] x, bool c, int64 n) => (float[4] y) <float low = {-1e9}, bool t = {1}> {
      m = Mul(x, low)
      a = If (c) <then_branch = b () => (float[4] p) { p = Add(x, m) },
                  else_branch = e () => (float[4] q) { q = Softmax(m) }>
      l = Loop (n, t, a) <body = f (int64 i, bool g, float[4] s) => (bool h, float[4] r) {
        h = Identity(g) r = Slice(s, i0, i1) o = Sigmoid(s) }>
      y = Softmax(l) }"""
    source = source.replace("bool t = {1}", "bool t = {1}, int64[1] i0 = {0}, int64[1] i1 = {4}")
    assert mask_tensors(parse(HEAD + source).graph) == {"low", "m", "p", "a", "s", "r", "l"}
    assert mask_tensors(parse(HEAD + source.replace("-1e9", "-9.0")).graph) == set()


def test_a_mask_made_by_constant_nodes() -> None:
    low = "k = Constant <value = float {-inf}> ()"
    assert masks(f"{low} s = Where(b, x, k) y = Softmax(s)") == {"k", "s"}
    assert masks(f"{low} y = Clip(x, k)") == {"k"}
    assert masks("k = Constant <value_float = -1e9> () s = Add(x, k) y = Softmax(s)") == {"k", "s"}
    assert masks("k = Constant <value_float = -1.0> () s = Add(x, k) y = Softmax(s)") == set()


def test_a_mask_made_by_constant_of_shape() -> None:
    assert masks("d = Shape(x) m = ConstantOfShape <value = float[1] {-1e9}> (d) s = Add(x, m) y = Softmax(s)") == {
        "m",
        "s",
    }


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("y = Clip(x, low)", "float low = {-3.4e38}"),
        ("y = Gemm(x, w, c)", "float[2,2] w = {1, 2, 3, 4}, float[2] c = {-20000, 1}"),
        ("s = Mul(x, low) y = Softmax(s)", "float low = {-9999}"),
        ("c = Cast <to=7> (b) s = Mul(c, low) y = Cast <to=1> (s)", "int64 low = {-100000}"),
    ],
)
def test_what_is_no_mask(body: str, constants: str) -> None:
    assert masks(body, constants) == set()
