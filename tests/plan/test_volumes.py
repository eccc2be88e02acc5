"""Convolutions over three axes: in int8 by rules only where runs of channels are long, by measured costs anywhere."""

from __future__ import annotations

import pytest
from quantized import quantize_text

from onnxq.plan.plan import Decision, Placement

REASON = (
    "over {} axes, the integer Conv is slower than the float one with fewer than 32 channels in a run, and it has {}"
)


def graph(weight: str, *, group: int = 1, channels: int) -> str:
    """A Conv with a weight of these sizes."""
    outputs, _, *kernel = weight.split(",")
    dims = ",".join("3" for _ in kernel)
    made = ",".join(str(4 - int(k)) for k in kernel)
    return (
        f'<ir_version: 10, opset_import: ["": 21]> g (float[1,{channels},{dims}] x) => (float[1,{outputs},{made}] y) '
        f"<float[{weight}] W = {{0}}> {{ y = Conv <group={group}> (x, W) }}"
    )


def decided(source: str, placement: Placement | None = None, target: str = "cpu") -> Decision:
    result = quantize_text(source, placement=placement, target=target)
    (decision,) = result.plan.decisions.values()
    assert target != "cpu" or (result.kernels()["QLinearConv"] == 1) == decision.integer
    return decision


@pytest.mark.parametrize(
    ("weight", "group", "channels", "run"),
    [
        ("4,31,2,2,2", 1, 31, 31),
        ("64,1,2,2,2", 1, 1, 1),
        ("4,1,2,2,2", 4, 4, 4),  # depthwise: one run for all groups
        ("64,16,2,2,2", 4, 64, 16),
        ("64,1,2,2,2", 32, 32, 1),  # two outputs a channel: one run a group
        ("4,4,1,1,1", 1, 4, 4),
    ],
)
def test_short_runs_stay_float(weight: str, group: int, channels: int, run: int) -> None:
    assert decided(graph(weight, group=group, channels=channels)).reason == REASON.format(3, run)


@pytest.mark.parametrize(
    ("weight", "group", "channels"),
    [
        ("4,32,2,2,2", 1, 32),
        ("32,1,2,2,2", 32, 32),
        ("64,32,2,2,2", 2, 64),
        ("4,4,2,2", 1, 4),  # over two axes
        ("4,1,2,2", 4, 4),
        ("4,4,2", 1, 4),
    ],
)
def test_long_runs_and_fewer_axes_are_integer(weight: str, group: int, channels: int) -> None:
    assert decided(graph(weight, group=group, channels=channels)).integer


SMALL = graph("4,4,2,2,2", channels=4)


def test_what_was_measured_counts_more() -> None:
    assert not decided(SMALL, Placement(integer=frozenset({"another"}))).integer
    assert decided(SMALL, Placement(integer=frozenset({"Conv_0"}))).integer
    assert decided(SMALL, Placement(eager=True)).integer  # as it is measured
    assert decided(SMALL, Placement(floats={"Conv_0": "measured"})).reason == "measured"


def test_it_is_said_of_one_target_only() -> None:
    assert decided(SMALL, target="tensorrt").integer
