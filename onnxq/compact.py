"""The smallest file: int8 wherever there is a kernel, else weights of 8 bits, and of 4 bits as many as accuracy allows.

Weights of 4 bits are half as large as int8 and ten times as noisy, so they are given to the largest weights first: the
fewest of them save most. How many is found by bisection, each form judged on real samples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import onnx_graphsurgeon as gs

from onnxq.config.placing import Judged
from onnxq.data.sample import Dataset
from onnxq.encoding import Kind
from onnxq.ir import walk
from onnxq.ir.model import Model
from onnxq.nearness import judge_of
from onnxq.options import Options
from onnxq.plan.kinds import WEIGHTS, possible
from onnxq.plan.plan import Placement, Plan
from onnxq.plan.reasons import volume_reason

SMALL = "its weights are smaller so"
"""Why an op that could be int8 is float at its borders."""


def smallest(
    graph: gs.Graph,
    plan: Plan,
    able: Mapping[str, Mapping[Kind, str]],
    *,
    judge: Callable[[Model], Judged],
    replan: Callable[[Placement], Plan],
    insert: Callable[[Plan], Model],
) -> tuple[Plan, list[str]]:
    """The plan, and sentences for the user.

    Args:
        graph: normalised.
        plan: with int8 wherever rules put it.
        able: node -> kind -> why it cannot have it, "" if it can.
        judge: runs a form on samples.
        replan: the plan under a placement.
        insert: the model with what a plan says.
    """
    integer = {name for name, decision in plan.decisions.items() if decision.integer}
    rest: dict[str, Kind] = {}
    every: dict[str, Kind] = {}
    for name, reasons in able.items():
        kind = _eight(reasons)
        if kind is not None:
            every[name] = kind
            if name not in integer:
                rest[name] = kind

    def placed(kinds: Mapping[str, Kind]) -> Placement:
        return Placement(kinds=kinds, floats={n: SMALL for n in kinds if n in integer})

    def judged(kinds: Mapping[str, Kind]) -> tuple[Plan, Judged]:
        made = replan(placed(kinds)) if kinds else plan
        return made, judge(insert(made))

    base: dict[str, Kind] = {}
    found: tuple[Plan, Judged] | None = None
    for kinds in (rest, every):  # weights of 8 bits are nearer to float than static int8
        made = judged(kinds)
        if made[1].holds:
            base, found = kinds, made
            break
    if found is None:
        plan, verdict = judged(rest)
        return plan, [f"The accuracy budget does not hold, even for weights of 8 bits: {verdict.sentence}."]
    groups = [names for names in _by_weight(graph) if all(able.get(n, {}).get("weights4", "no") == "" for n in names)]
    tried: dict[int, tuple[Plan, Judged]] = {0: found}
    low, high = 0, len(groups)  # the most that hold lie in [low, high]
    while low < high:
        middle = (low + high + 1) // 2
        four: dict[str, Kind] = {name: "weights4" for names in groups[:middle] for name in names}
        tried[middle] = judged({**base, **four})
        if tried[middle][1].holds:
            low = middle
        else:
            high = middle - 1
    best, verdict = tried[low]
    return best, _told(best, verdict)


def shrunk(
    model: Model,
    plan: Plan,
    data: Dataset,
    options: Options,
    *,
    replan: Callable[[Placement], Plan],
    insert: Callable[[Plan], Model],
) -> tuple[Plan, list[str]]:
    """`smallest` with the budget and the judge of the options; without a judge, outputs are compared.

    Args:
        model: normalised, float.
        data: calibration samples.
    """
    judge = judge_of(model, data, options)
    able = possible(model.graph, options.target, options.keep_float)
    nodes = [node for _, inner in walk.graphs(model.graph) for node in inner.nodes]
    slow = frozenset(node.name for node in nodes if volume_reason(options.target, node))

    def small(placement: Placement) -> Plan:
        """What rules keep float for its speed makes the file smaller, too."""
        return replan(replace(placement, integer=slow))

    return smallest(model.graph, small(Placement()) if slow else plan, able, judge=judge, replan=small, insert=insert)


def _eight(reasons: Mapping[Kind, str]) -> Kind | None:
    """A quarter of the size of float: by weights alone if that is possible."""
    kinds: Sequence[Kind] = ("weights8", "dynamic")
    return next((kind for kind in kinds if reasons.get(kind, "no") == ""), None)


def _by_weight(graph: gs.Graph) -> list[tuple[str, ...]]:
    """Nodes that read the same weight, the largest weights first."""
    readers: dict[int, list[str]] = defaultdict(list)
    sizes: dict[int, int] = {}
    for _, inner in walk.graphs(graph):
        for node in inner.nodes:
            slots = WEIGHTS.get(node.op, ())
            if len(slots) == 1 and isinstance(node.inputs[slots[0]], gs.Constant):
                weight = node.inputs[slots[0]]
                readers[id(weight)].append(node.name)
                sizes[id(weight)] = weight.values.size
    order = sorted(readers, key=lambda key: (-sizes[key], readers[key]))
    return [tuple(readers[key]) for key in order]


def _told(plan: Plan, verdict: Judged) -> list[str]:
    counts = {kind: sum(k == kind for k in plan.kinds.values()) for kind in ("weights4", "weights8", "dynamic")}
    said = [
        f"{counts[kind]} {words}"
        for kind, words in (
            ("weights4", "with weights of 4 bits"),
            ("weights8", "with weights of 8 bits"),
            ("dynamic", "dynamic"),
        )
        if counts[kind]
    ]
    integer = sum(decision.integer for decision in plan.decisions.values())
    return [
        f"The smallest file within the budget has {', '.join([f'{integer} ops in int8', *said])}: {verdict.sentence}."
    ]
