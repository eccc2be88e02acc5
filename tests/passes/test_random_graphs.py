"""Random graphs through every pass, one by one in random order, and through the pipelines: the same meaning, nothing left
for a second run, the same text from a twin, sound names; and each pass fires often and refuses often.

hypothesis makes the recipes (tests/support/recipes.py), the same ones on every run, so that the counts are stable; what
fails it shrinks and prints, and `random_float.build(recipe)` makes the graph again. `test_at_length` runs other ones each
time. What the passes did is printed at the end of the test run. Two shards per family, so that two processes share the
work; each shard asks for half.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import random_float
import random_graphs
import random_integer
import random_passes
import random_qdq
import recipes
import whole
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from random_passes import LEFT, Outputs, Tally

from onnxq import registry
from onnxq.ir import load, text
from onnxq.pipeline.base import Pass, Stage
from onnxq.pipeline.spec import load_pipeline
from onnxq.pipeline.verify import difference

SHARDS = 2
LEAST = 50
"""In so many graphs each pass fires, and in so many it refuses, over all shards."""

FLOAT, QDQ, INTEGER, NETWORKS = 1200, 660, 1000, 100
"""Different graphs per family."""

EXAMPLES = settings(
    deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.reuse, Phase.generate, Phase.shrink)
)
CHANCE = st.randoms(use_true_random=True)
"""For the order of the passes: hypothesis draws its seed."""

BITWISE = {
    "constants-to-initializers",
    "deduplicate-names",
    "eliminate-dead",
    "eliminate-identity",
    "fold-constants",
    "lift-matmul-bias",
    "merge-transposes",
    "recompose-clip",
    "share-initializers",
    "fuse-dynamic-quantize-matmul",
    "fuse-integer-movement",
    "fuse-qlinear-concat",
    "fuse-qlinear-where",
    "gather-resize",
    "signed-to-unsigned",
    "unfuse-integer-movement",
}
"""Beside all passes from QDQ to QDQ but expand-gates. The other float passes and products with a float result round in another order."""

LOSSY = ("quantize-dynamic", "quantize-weights")
"""Float passes that round weights to integers: what they compute is in their own tests; here shapes and types count."""

ROUNDING, HALF_ROUNDING = 1e-4, 2e-2
"""Greatest difference behind a float pass, as a part of the greatest output (at least 1): float32, and where the graph
asks for half precision, whose 2^-11 per step LayerNormalization amplifies."""

STEPS, RIPPLE_DB = 6, 20.0
"""Greatest difference behind a fusion, in steps of an 8-bit output (`fusing.OUT` for float outputs): kernels of Add, Mul,
Softmax and GlobalAveragePool are one step off now and then, a float bias is rounded, and later ops see it. A Mul by eight
makes eight steps of one: where more than STEPS are off, the noise must be below the signal (around its mean) by so many
dB; a wrong scale or axis gives less than 10."""


def bitwise(old: Outputs, new: Outputs) -> str:
    return difference(old, new, bitwise=True)


def rounded(part: float) -> random_passes.Compare:
    """Within a part of the greatest output."""

    def compare(old: Outputs, new: Outputs) -> str:
        for name, before in old.items():
            for a, b in zip(before, new[name], strict=True) if isinstance(before, list) else [(before, new[name])]:
                if a.dtype == object:
                    if a.tolist() != b.tolist():
                        return f"output {name} is another"
                    continue
                gap = float(np.abs(a.astype(np.float64) - b).max())
                if not gap <= part * max(1.0, float(np.abs(a).max())):
                    return f"output {name} moves by {gap}"
        return ""

    return compare


def stepped(old: Outputs, new: Outputs) -> str:
    """Within STEPS of the integers, or a ripple of them."""
    for name, a in old.items():
        before = a.astype(np.float64)
        off = before - new[name]
        gap = float(np.abs(off).max()) / (1.0 if a.dtype.kind in "iu" else random_integer.OUT)
        if gap > STEPS + 1e-3 and before.var() < 10 ** (RIPPLE_DB / 10) * np.square(off).mean():
            return f"output {name} moves by {gap} steps"
        if not np.isfinite(gap):
            return f"output {name} is not finite"
    return ""


def ours(chosen: Callable[[type[Pass]], bool]) -> list[str]:
    """Names of our passes that need nothing but a graph."""
    found = []
    for name in registry.names(registry.PASSES):
        if registry.distribution(registry.PASSES, name) == "onnxq":
            pass_class = registry.load(registry.PASSES, name)
            if not pass_class.needs and chosen(pass_class):
                found.append(name)
    return found


AROUND_CONVS = {"align-channels", "stack-rows", "gather-resize", "split-space-to-depth"}
"""Passes from QDQ to QDQ for which the graphs of fusions have what they look for."""

FAMILIES = {
    "random_float": ours(lambda p: p.takes is Stage.FLOAT),
    "random_qdq": [
        name
        for name in ours(lambda p: p.takes is Stage.QDQ and p.gives in (Stage.QDQ, Stage.FLOAT))
        if name not in AROUND_CONVS
    ],
    "random_integer": sorted(
        AROUND_CONVS
        | set(
            ours(
                lambda p: (
                    p.takes is not Stage.FLOAT
                    and (p.takes, p.gives) != (Stage.QDQ, Stage.QDQ)
                    and p.gives is not Stage.FLOAT
                )
            )
        )
    ),
    "random_graphs": ["insert-qdq", "float-to-half"],
}


def bodies(names: Sequence[str]) -> list[tuple[str, Pass]]:
    return [(name, registry.load(registry.PASSES, name)()) for name in names]


def steps_of(pipeline: str, names: Sequence[str]) -> list[Any]:
    return [s for s in load_pipeline(pipeline).steps if s.name in names]


def share(
    count: int, shard: int, recipes: st.SearchStrategy[Any], check: Callable[[Any, random.Random, Tally], object]
) -> Tally:
    """Run `check` on recipes until a shard has its share of different graphs, the same ones on every run."""
    tally, wanted = Tally(), count // SHARDS

    @seed(shard)
    @settings(EXAMPLES, max_examples=2 * wanted, database=None)
    @given(recipes, CHANCE)
    def run(recipe: Any, chance: random.Random) -> None:
        if len(tally.graphs) >= wanted:
            return
        try:
            check(recipe, chance, tally)
        except BaseException as error:
            tally.forget()  # it comes again, to be shrunk
            error.add_note(str(recipe))
            raise

    run()
    assert len(tally.graphs) == wanted
    return tally


def enough(tally: Tally, family: str, record: Callable[[str, object], None]) -> None:
    """Each pass fires and refuses in its share of the graphs."""
    record("random graphs", tally.rows(FAMILIES[family]))
    rare = {
        name: f"fires in {tally.fired[name]}, refuses in {tally.refused[name]}"
        for name in FAMILIES[family]
        if min(tally.fired[name], tally.refused[name]) < LEAST / SHARDS
    }
    assert not rare, (
        f"of {len(tally.graphs)} random graphs, {LEAST // SHARDS} must be rewritten by each pass, and as many refused: {rare}; "
        f"add what these passes rewrite, and near misses, to tests/support/{family}.py"
    )


def test_every_pass_of_ours_is_in_one_family() -> None:
    listed = sorted(name for names in FAMILIES.values() for name in names)
    all_ours = [n for n in registry.names(registry.PASSES) if registry.distribution(registry.PASSES, n) == "onnxq"]
    assert listed == all_ours, "add the pass to FAMILIES, and what it rewrites to a module that builds random graphs"
    assert set(LEFT) | BITWISE <= set(listed)


def test_there_are_2000_graphs() -> None:
    assert FLOAT + QDQ + INTEGER + NETWORKS >= 2000


def check_float(recipe: random_float.Recipe, chance: random.Random, tally: Tally) -> None:
    source, feeds = text.parse(random_float.build(recipe)), random_float.inputs()
    if not tally.new(source):
        return
    names = [n for n in FAMILIES["random_float"] if n not in LOSSY]
    near = rounded(HALF_ROUNDING if random_float.halves(recipe) else ROUNDING)
    order = bodies(chance.sample(names, len(names)))
    random_passes.one_by_one(source, order, feeds, lambda n: bitwise if n in BITWISE else near, tally)
    random_passes.pipeline(source, steps_of("cpu", names), feeds, near, "the float part of cpu")
    for name in LOSSY:
        random_passes.one_by_one(source, bodies([name]), feeds, lambda _: _same_shapes, tally)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_float_graphs(shard: int, record_property: Callable[[str, object], None]) -> None:
    tally = share(FLOAT, shard, recipes.FLOAT, check_float)
    enough(tally, "random_float", record_property)


@pytest.mark.parametrize("place", range(4), ids=["If", "Loop", "Scan", "main"])
def test_every_fragment_runs(place: int) -> None:
    """So that a fault of the generator is not taken for one of a pass."""
    for kind in range(len(random_float.FRAGMENTS)):
        recipe = random_float.Recipe((random_float.Step(kind, 0, 0, place),))
        model = text.parse(random_float.build(recipe))
        outputs = random_passes.run(model, random_float.inputs())
        numbers = [v for v in outputs.values() if isinstance(v, np.ndarray) and v.dtype.kind == "f"]
        assert numbers and all(np.isfinite(v).all() for v in numbers), random_float.FRAGMENTS[kind]


FORMS = [("hoist-quantize", {"form": "bare"}), ("sink-dequantize", {"form": "bare"})]
"""Settings of Q/DQ passes, besides the defaults."""


def check_qdq(recipe: random_qdq.Recipe, chance: random.Random, tally: Tally) -> None:
    source, feeds = text.parse(random_qdq.build(recipe)), random_qdq.inputs()
    if not tally.new(source):
        return
    rounding = ["strip-qdq", "expand-gates"]
    exact = [n for n in FAMILIES["random_qdq"] if n not in rounding]
    further = [(n, registry.load(registry.PASSES, n)(**s)) for n, s in FORMS]
    # the defaults first, each once: what is counted are graphs, not runs
    order = bodies(chance.sample(exact, len(exact)))
    behind = random_passes.one_by_one(source, order, feeds, lambda _: bitwise, tally)
    random_passes.one_by_one(behind, chance.sample(further, len(further)), feeds, lambda _: bitwise, Tally())
    moves = steps_of("qoperator", [*exact, "signed-to-unsigned"])
    random_passes.pipeline(source, moves, feeds, bitwise, "the moves of qoperator")
    # not exact by nature: what the pairs rounded goes through as it is; all else is checked
    for name in rounding:
        random_passes.one_by_one(source, bodies([name]), feeds, lambda _: _same_shapes, tally)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_qdq_graphs(shard: int, record_property: Callable[[str, object], None]) -> None:
    tally = share(QDQ, shard, recipes.QDQ, check_qdq)
    enough(tally, "random_qdq", record_property)


def _same_shapes(old: Outputs, new: Outputs) -> str:
    def shapes(value: Any) -> list[Any]:
        return [(v.shape, v.dtype) for v in (value if isinstance(value, list) else [value])]

    moved = [n for n in old if shapes(old[n]) != shapes(new[n])]
    return f"outputs {moved} have other shapes or types" if moved else ""


def check_integer(recipe: random_integer.Recipe, chance: random.Random, tally: Tally) -> None:
    source, feeds = random_integer.build(recipe)
    if not tally.new(source):
        return
    names = [n for n in FAMILIES["random_integer"] if not n.startswith("unfuse-")]
    backwards = [n for n in FAMILIES["random_integer"] if n.startswith("unfuse-")]
    order = chance.sample(names, len(names))
    if chance.random() < 0.5:
        order.sort(key=lambda n: n != "signed-to-unsigned")

    def near(name: str) -> random_passes.Compare:
        return bitwise if name in BITWISE else stepped

    random_passes.one_by_one(source, bodies(order), feeds, near, tally)
    fused = random_passes.pipeline(source, steps_of("qoperator", names), feeds, stepped, "the fusions of qoperator")
    random_passes.one_by_one(fused, bodies(chance.sample(backwards, len(backwards))), feeds, near, tally)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_integer_graphs(shard: int, record_property: Callable[[str, object], None]) -> None:
    tally = share(INTEGER, shard, recipes.INTEGER, check_integer)
    enough(tally, "random_integer", record_property)


def close(old: Outputs, new: Outputs) -> str:
    """As near as tests/properties asks of networks, where an output is more than noise."""
    loud = [n for n in old if np.abs(old[n]).max() > 1e-3]
    far = {n: db for n in loud if (db := whole.sqnr([old], [new], n)) < NETWORK_DB}
    return f"outputs differ: {far} dB" if far else ""


LOUD = 1e6
NETWORK_DB = 15.0
"""Least SQNR (dB) of the fused model against its Q/DQ."""


def check_network(recipe: random_graphs.Recipe, _: random.Random, tally: Tally) -> None:
    """insert-qdq and float-to-half carry out a plan: what counts as a refusal is that the plan leaves a node in float, or
    in float32, with a reason. Behind insert-qdq come the rest of qoperator. (tests/properties looks at the plan itself.)
    """
    network = random_graphs.build(recipe)
    if not tally.new(load.from_proto(whole.copy(network))):
        return
    samples = random_graphs.inputs(recipe, network, 2)
    made = whole.quantized(network, samples)
    tally.fired["insert-qdq"] += any(s.name == "insert-qdq" and s.report.rewrites for s in made.run.steps)
    tally.refused["insert-qdq"] += any(not d.integer and d.reason for d in made.plan.decisions.values())
    assert not random_passes.broken_names(made.model)
    rest = [s for s in load_pipeline("qoperator").steps if s.body.takes is not Stage.FLOAT]
    random_passes.pipeline(made.model, rest, samples[0], close, "the rest of qoperator")
    if len(tally.graphs) % 2:  # beyond what half precision holds
        samples = [{n: v * np.float32(LOUD) if v.dtype == np.float32 else v for n, v in one.items()} for one in samples]
    half = whole.quantized(network, samples, "tensorrt", float_type="float16")
    single = whole.quantized(network, samples, "tensorrt", float_type="float32")
    tally.fired["float-to-half"] += any(t.dtype == np.float16 for n in half.model.graph.nodes for t in n.outputs)
    tally.refused["float-to-half"] += bool(half.plan.singles)
    assert not random_passes.broken_names(half.model)
    fault = close(*(random_passes.run(one.model, samples[0]) for one in (single, half)))
    assert not fault, f"in half precision, {fault}"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_networks(shard: int, record_property: Callable[[str, object], None]) -> None:
    enough(share(NETWORKS, shard, recipes.NETWORKS, check_network), "random_graphs", record_property)


CHECKS = {
    "float": (recipes.FLOAT, check_float),
    "qdq": (recipes.QDQ, check_qdq),
    "integer": (recipes.INTEGER, check_integer),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", CHECKS)
@settings(EXAMPLES, max_examples=1000)
@given(data=st.data(), chance=CHANCE)
def test_at_length(family: str, data: st.DataObject, chance: random.Random) -> None:
    """Other graphs on every run."""
    strategy, check = CHECKS[family]
    check(data.draw(strategy), chance, Tally())  # hypothesis prints what it drew


def test_what_fails_is_shrunk_and_named() -> None:
    """A check that recipes with two outputs fail: the smallest one is printed, though its graph was seen before."""

    def check(recipe: random_qdq.Recipe, _: random.Random, tally: Tally) -> None:
        tally.last, seen = hash(recipe), len(tally.graphs)
        tally.graphs.add(tally.last)
        assert recipe.outputs == 1 or len(tally.graphs) == seen

    with pytest.raises(AssertionError) as failure:
        share(QDQ, 0, recipes.QDQ, check)
    printed = failure.value.__notes__[0]
    assert printed.count("Step(") == 3 and printed.count("kind=0, a=0, b=0, numbers=0, place=0") == 3  # the least
