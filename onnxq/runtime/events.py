"""The events that ORT's profiler writes, gathered per node of the graph and of the bodies in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Typed = tuple[str, tuple[int, ...]]
"""Element type as ORT writes it ("float", "uint8", "int64"), and shape. ("", ()) for an optional tensor left out."""

ABSENT: Typed = ("", ())

_CONTROL = frozenset({"If", "Loop", "Scan"})
_CUT_OFF = 0.5e-6


@dataclass(kw_only=True)
class Seen:
    """What the profiler said about one node.

    Attributes:
        event: name in the profile.
        parent: the If, Loop or Scan whose body it is in.
        inputs, outputs: of those that ORT lists, at the first execution.
        seconds: run -> all executions together, without those in its bodies.
        count: run -> executions.
    """

    event: str
    op: str
    parent: Seen | None
    inputs: list[Typed]
    outputs: list[Typed]
    seconds: dict[int, float] = field(default_factory=dict)
    count: dict[int, int] = field(default_factory=dict)


def split(events: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The kernel events of each run of the model; an event is listed when it ends."""
    runs: list[list[Mapping[str, Any]]] = []
    current: list[Mapping[str, Any]] = []
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time"):
            current.append(event)
        elif event.get("cat") == "Session" and event.get("name") == "model_run":
            runs.append(current)
            current = []
    return runs


def gather(runs: Sequence[Sequence[Mapping[str, Any]]], *, between: float = 0.0) -> list[Seen]:
    """Per node of the graph or of a body what its executions took, in the order of the first execution.

    Durations are whole microseconds, cut off: half a microsecond is added to each.

    Args:
        runs: from `split`.
        between: seconds that the profiler itself takes between two events, which end up in the node around a body.
    """
    known: dict[tuple[Any, ...], Seen] = {}
    order: dict[int, tuple[int, int]] = {}
    for number, events in enumerate(runs):
        for event, chain in _nested(events):
            key: tuple[Any, ...] = ()
            node: Seen | None = None
            for link in (*chain, event):
                args = link["args"]
                key = (*key, link["name"], args.get("op_name"), args.get("node_index"))
                parent, node = node, known.get(key)
                if node is None:
                    node = known[key] = Seen(
                        event=str(link["name"]).removesuffix("_kernel_time"),
                        op=str(args.get("op_name", "")),
                        parent=parent,
                        inputs=_typed(args.get("input_type_shape")),
                        outputs=_typed(args.get("output_type_shape")),
                    )
                    order[id(node)] = (number, int(link["ts"]))
            assert node is not None  # the chain ends with the event itself
            spent = int(event["dur"]) * 1e-6 + _CUT_OFF
            node.seconds[number] = node.seconds.get(number, 0.0) + spent
            node.count[number] = node.count.get(number, 0) + 1
            if node.parent is not None:
                node.parent.seconds[number] = node.parent.seconds.get(number, 0.0) - spent - between
    for node in known.values():
        node.seconds = {r: max(s, 0.0) for r, s in node.seconds.items()}
    return sorted(known.values(), key=lambda n: order[id(n)])


def _nested(events: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], tuple[Mapping[str, Any], ...]]]:
    """Each event with the events of the control flow around it, outermost first.

    What a body does ends before its If, Loop or Scan does and begins after it.
    """
    inside: dict[int, Mapping[str, Any]] = {}
    open_: list[Mapping[str, Any]] = []
    for event in events:
        if event["args"].get("op_name") in _CONTROL:
            while open_ and open_[-1]["ts"] >= event["ts"]:
                inside[id(open_.pop())] = event
        open_.append(event)
    found = []
    for event in events:
        chain: list[Mapping[str, Any]] = []
        around = inside.get(id(event))
        while around is not None:
            chain.insert(0, around)
            around = inside.get(id(around))
        found.append((event, tuple(chain)))
    return found


def _typed(entries: Any) -> list[Typed]:
    """The profiler writes one {"float": [1, 3]} per tensor that is there."""
    return [(str(kind), tuple(int(d) for d in shape)) for entry in entries or () for kind, shape in entry.items()]
