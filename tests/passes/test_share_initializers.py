from __future__ import annotations

import dataclasses

from rewriting import bitwise, keep

from onnxq.testing import check_pass, default_context
from onnxq_passes.share_initializers import ShareInitializers

PASS = ShareInitializers(least_bytes=8)


def test_contract() -> None:
    check_pass(ShareInitializers)


def test_equal_constants_become_one() -> None:
    before = "(float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {1, 2}> { [p] c = Add(x, a) [q] y = Mul(c, b) }"
    after = "(float[2] x) => (float[2] y) <float[2] a = {1, 2}> { [p] c = Add(x, a) [q] y = Mul(c, a) }"
    bitwise(PASS, before, after, rewrites=1)


def test_constants_of_bodies_are_shared_with_the_outer_graph() -> None:
    before = """(bool c, float[2] x) => (float[2] y) {
        [if] y = If(c) <then_branch = t () => (float[2] u) <float[2] a = {1, 2}> { [p] u = Add(x, a) },
                        else_branch = e () => (float[2] v) <float[2] b = {1, 2}> { [q] v = Mul(x, b) }> }"""
    after = """(bool c, float[2] x) => (float[2] y) <float[2] a = {1, 2}> {
        [if] y = If(c) <then_branch = t () => (float[2] u) { [p] u = Add(x, a) },
                        else_branch = e () => (float[2] v) { [q] v = Mul(x, a) }> }"""
    bitwise(PASS, before, after, rewrites=1)


def test_near_misses_value_shape_and_type() -> None:
    keep(
        PASS,
        "(float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {1, 3}> { [p] c = Add(x, a) [q] y = Mul(c, b) }",
    )
    keep(
        PASS,
        "(float[2] x) => (float[m, 2] y) <float[2] a = {1, 2}, float[1, 2] b = {1, 2}> { [p] c = Add(x, a) [q] y = Mul(c, b) }",
    )
    keep(
        PASS,
        "(float[2] x) => (float[2] y) <float[2] a = {0, 0}, float[2] b = {-0.0, 0}> { [p] c = Add(x, a) [q] y = Add(c, b) }",
    )


def test_small_constants_and_overridable_models_stay() -> None:
    text = "(float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {1, 2}> { [p] c = Add(x, a) [q] y = Mul(c, b) }"
    keep(ShareInitializers(least_bytes=9), text)
    keep(PASS, text, context=dataclasses.replace(default_context(), keep_overridable=True))


def test_several_groups_of_several() -> None:
    head = "(float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] d = {3, 4}"
    nodes = "{{ p = Add(x, a) q = Add(p, {}) r = Add(q, {}) s = Mul(r, d) y = Mul(s, {}) }}"
    before = (
        f"{head}, float[2] b = {{1, 2}}, float[2] c = {{1, 2}}, float[2] e = {{3, 4}}> {nodes.format('b', 'c', 'e')}"
    )
    bitwise(PASS, before, f"{head}> {nodes.format('a', 'a', 'd')}", rewrites=3)


def test_near_misses_the_end_of_a_long_one_and_the_type() -> None:
    ones = ", ".join(["1"] * 20)
    graph = f"(float[21] x) => (float[21] y) <float[21] a = {{{ones}, 2}}, float[21] b = {{{ones}, 3}}> {{ p = Add(x, a) y = Mul(p, b) }}"
    keep(PASS, graph)
    keep(
        PASS,
        "(float[2] x, int32[2] k) => (float[2] y, int32[2] z) <float[2] a = {0, 0}, int32[2] b = {0, 0}> { y = Add(x, a) z = Add(k, b) }",
    )
