from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxq.errors import ModelError, UsageError
from onnxq.ir import walk
from onnxq.runtime import turns
from onnxq.runtime.events import gather, split
from onnxq.runtime.profile import Distortion, Profile, _inside, _midmean, measure_distortion, profile
from onnxq.runtime.rows import run_seconds, times_of
from onnxq.runtime.session import Level, Session
from onnxq.runtime.turns import LONG_SECONDS

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
MLP = (
    f"{HEAD} g (float[n,16] x) => (float[n,16] y) "
    "{ [one] a = Gemm(x, w, b) [two] r = Relu(a) [three] y = Gemm(r, w, b) }"
)
LOOP = (
    f"{HEAD} g (float[2,4] x, int64 trips) => (float[2,4] y) {{ [turn] z = Loop(trips, , x) <body = b "
    "(int64 i, bool go, float[2,4] h) => (bool on, float[2,4] o) { on = Identity(go) [inner] o = Sin(h) }> "
    "[after] y = Cos(z) }"
)
ROW = np.ones((3, 16), np.float32)
NONE = Distortion(inside=0.0, between=0.0, call=0.0)


def model(text: str, **weights: Any) -> bytes:
    made = onnx.parser.parse_model(text)
    for name, value in weights.items():
        made.graph.initializer.append(numpy_helper.from_array(value, name))
    return bytes(made.SerializeToString())


def mlp() -> bytes:
    return model(MLP, w=np.eye(16, dtype=np.float32) * 2, b=np.zeros(16, np.float32))


def look(source: bytes, *samples: Any, runs: int = 3, **more: Any) -> Profile:
    return profile(source, samples, runs=runs, distortion=NONE, **more)


def test_kernels_of_the_optimized_graph_with_their_tensors() -> None:
    found = look(mlp(), {"x": ROW})
    typed = ("float", (3, 16))
    assert [(k.op, k.name) for k in found.kernels] == [
        (f"{n.domain}.{n.op}" if n.domain else n.op, n.name) for n in found.graph.graph.nodes
    ]
    assert [k.op for k in found.kernels] == ["com.microsoft.FusedGemm", "Gemm"]
    for kernel in found.kernels:  # the weights are prepacked: ORT does not list them
        assert kernel.inputs == (typed, ("float", (16, 16)), ("float", (16,)))
        assert kernel.outputs == (typed,)
        assert kernel.seconds > 0
        assert kernel.count == 1
        assert kernel.path == ()


def test_without_optimizations_each_node_is_a_kernel() -> None:
    assert [k.name for k in look(mlp(), {"x": ROW}, level=Level.OFF).kernels] == ["one", "two", "three"]


def test_a_body_is_summed_over_its_turns_and_not_counted_in_the_loop() -> None:
    found = look(model(LOOP), {"x": np.ones((2, 4), np.float32), "trips": np.array(7)})
    by_name = {k.name: k for k in found.kernels}
    assert by_name["inner"].count == 7
    assert by_name["inner"].path == ("turn/body",)
    assert by_name["turn"].count == 1
    assert list(by_name)[-1] == "after"


def test_nodes_without_names() -> None:
    text = f"{HEAD} g (float[4] x) => (float[4] y) {{ a = Sin(x) b = Cos(a) [third] c = Sin(b) y = Cos(c) }}"
    found = look(model(text), {"x": np.ones(4, np.float32)})
    assert [k.op for k in found.kernels] == ["Sin", "Cos", "Sin", "Cos"]
    nodes = {n.name: n for n in found.graph.graph.nodes}
    assert [nodes[k.name].outputs[0].name for k in found.kernels] == ["a", "b", "c", "y"]


@pytest.mark.parametrize("which", [True, False])
def test_one_name_in_two_bodies(which: bool) -> None:
    def branch(op: str) -> str:
        return f"b () => (float[4] o) {{ [same] t = {op}(x) [again] o = Exp(t) }}"

    text = (
        f"{HEAD} g (float[4] x, bool c) => (float[4] y) "
        f"{{ [same] y = If(c) <then_branch = {branch('Sin')}, else_branch = {branch('Cos')}> }}"
    )
    found = look(model(text), {"x": np.ones(4, np.float32), "c": np.array(which)})
    assert [k.op for k in found.kernels] == ["If", "Sin" if which else "Cos", "Exp"]
    assert len({n.name for _, g in walk.graphs(found.graph.graph) for n in g.nodes}) == 5
    paths = {n.name: path for path, g in walk.graphs(found.graph.graph) for n in g.nodes}
    assert [paths[k.name] for k in found.kernels] == [k.path for k in found.kernels]


def test_an_input_that_is_left_out_keeps_its_slot() -> None:
    text = f"{HEAD} g (float[4] x, float hi) => (float[4] y) {{ y = Clip(x, , hi) }}"
    found = look(model(text), {"x": np.ones(4, np.float32), "hi": np.array(0.5, np.float32)})
    assert found.kernels[0].inputs == (("float", (4,)), ("", ()), ("float", ()))


def test_time_of_the_whole_run_is_measured_without_the_profiler() -> None:
    ticks = itertools.accumulate(itertools.cycle([1.0, 0.25]))
    found = look(mlp(), {"x": ROW}, runs=5, clock=lambda: next(ticks))
    assert found.seconds == 0.25
    assert found.profiled_seconds == 0.25


def test_kernels_that_were_disturbed_are_brought_down_to_the_run() -> None:
    ticks = itertools.accumulate(itertools.repeat(1e-7))
    found = look(mlp(), {"x": ROW}, runs=5, clock=lambda: next(ticks))
    assert found.scale < 1
    assert found.kernel_seconds == pytest.approx(found.seconds) == pytest.approx(1e-7)
    slow = itertools.accumulate(itertools.repeat(1.0))
    assert look(mlp(), {"x": ROW}, runs=5, clock=lambda: next(slow)).scale == 1


def test_samples_take_turns() -> None:
    found = look(mlp(), {"x": ROW}, {"x": np.ones((5, 16), np.float32)}, runs=4, warmup=0)
    assert found.kernels[0].inputs[0] == ("float", (3, 16))


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"threads": 0}, {"warmup": -1}])
def test_nothing_to_run(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least one sample"):
        look(mlp(), {"x": ROW}, **wrong)
    with pytest.raises(UsageError, match="at least one sample"):
        look(mlp())


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match="cannot run the model"):
        look(mlp(), {"x": np.ones((3, 5), np.float32)})


def event(name: str, op: str, start: int, micros: int, index: int = 0) -> dict[str, Any]:
    args = {"op_name": op, "node_index": str(index), "input_type_shape": [{"float": [2]}], "output_type_shape": []}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": micros, "args": args}


RUN = {"cat": "Session", "name": "model_run", "ts": 0, "dur": 100, "args": {}}


def test_events_of_a_body_are_taken_from_what_is_around() -> None:
    events = [
        event("a", "Sin", 0, 10),
        event("b", "Cos", 12, 20),
        event("b", "Cos", 35, 20),
        event("l", "Loop", 11, 50),
        event("c", "Sin", 70, 5),
        RUN,
    ]
    found = gather(split(events), between=1e-6)
    assert [n.event for n in found] == ["a", "l", "b", "c"]
    micros = {n.event: round(n.seconds[0] * 1e6, 3) for n in found}
    assert micros == {"a": 10.5, "b": 41.0, "l": 50.5 - 41.0 - 2.0, "c": 5.5}
    assert [n.count[0] for n in found] == [1, 1, 2, 1]
    assert found[2].parent is found[1]
    assert found[0].parent is None


def test_a_run_that_was_not_finished_does_not_count() -> None:
    assert [len(run) for run in split([event("a", "Sin", 0, 1), RUN, event("a", "Sin", 9, 1)])] == [1]


def test_what_the_profiler_adds_is_taken_off_within_reason() -> None:
    raw, counts = [10e-6, 20e-6], [1, 2]
    assert _inside(raw, counts, 24e-6, 2e-6) == pytest.approx(2e-6)
    assert _inside(raw, counts, 30e-6, 2e-6) == pytest.approx(1e-6)  # would be 0
    assert _inside(raw, counts, 1e-6, 2e-6) == pytest.approx(4e-6)  # would be much more


def test_midmean_is_not_moved_by_outliers() -> None:
    assert _midmean([1.0, 2.0, 4.0, 90.0]) == 3.0
    assert _midmean([5.0]) == 5.0


def test_distortion_is_measured_once() -> None:
    found = measure_distortion()
    assert found is measure_distortion()
    assert 0 <= found.inside < 1e-3
    assert 0 <= found.call < 1e-2


def test_another_form_takes_part_in_the_turns() -> None:
    ticks = itertools.count()
    source = mlp()
    beside = Session(source, threads=1)
    samples = [{"x": ROW}, {"x": np.ones((50, 16), np.float32)}]
    found = profile(source, samples, runs=8, distortion=NONE, clock=lambda: float(next(ticks)), beside=beside)
    assert found.beside_seconds == found.fast == found.seconds == 1.0
    assert math.isnan(look(source, {"x": ROW}).beside_seconds)


class Watched(Session):
    """Remembers the number of rows of each run."""

    def run(self, inputs: Any, *others: Any) -> Any:
        self.seen = [*getattr(self, "seen", []), len(inputs["x"])]
        return super().run(inputs, *others)


@pytest.mark.parametrize(
    ("threads", "tick", "blocks"),
    [
        (1, 1e-3, [([], 5), ([], 2)]),
        (2, 1e-3, [([3] * 3, 6), ([3] * 3, 1)]),
        (2, 0.1, [([rows], 1) for rows in (3, 5, 3, 5, 3, 5, 3)]),
        (2, 1.0, [([], 1)] * 7),  # nothing has to go before a long run
    ],
)
def test_of_several_threads_the_first_runs_of_a_block_do_not_count(
    threads: int, tick: float, blocks: list[tuple[list[int], int]]
) -> None:
    """Then a profile is in the state of a race, where threads are awake."""
    ticks, samples = itertools.count(step=tick), [{"x": np.ones((n, 16), np.float32)} for n in (3, 5)]
    sessions = [Watched(mlp(), threads=1) for _ in range(2)]
    times, counted = times_of(sessions, samples, 7, threads, lambda: float(next(ticks)))
    assert [len(own) for own in times] == [7, 7]
    assert [sessions[1].seen[run] for run in counted] == [3, 5, 3, 5, 3, 5, 3]
    turns = itertools.cycle([3, 5])
    expected = [rows for warm, count in blocks for rows in (*warm, *itertools.islice(turns, count))]
    assert sessions[1].seen == expected
    assert sessions[0].seen == [*([3, 3] if tick < LONG_SECONDS else [3]), *expected]


@pytest.mark.parametrize(("threads", "once"), [(1, 1e-3), (1, 20e-3), (2, 0.5e-3), (2, 20e-3)])
def test_what_a_profile_takes_is_known_before(threads: int, once: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what goes before each row and what is waited behind it."""
    now = 0.0

    class Fake:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def run(self, _: Any) -> None:
            nonlocal now
            now += self.seconds

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(turns.time, "sleep", sleep)
    sessions: list[Any] = [Fake(once), Fake(once), Fake(3 * once)]
    times_of(sessions, [{}], 600, threads, lambda: now)
    assert now == pytest.approx(600 * run_seconds(once, 3 * once, threads) + 2 * once)


def test_samples_of_several_sizes_count_alike() -> None:
    """The short one is half of the samples, and a tenth of the time."""
    square = np.eye(512, dtype=np.float32)
    source = model(f"{HEAD} g (float[n,512] x) => (float[n,512] y) {{ y = MatMul(x, w) }}", w=square)
    short, long = ({"x": np.ones((n, 512), np.float32)} for n in (8, 512))
    each = [look(source, one, runs=20).seconds for one in (short, long)]
    both = look(source, short, long, runs=40)
    assert each[1] > 5 * each[0]
    assert both.seconds == pytest.approx(sum(each) / 2, rel=0.4)
    assert both.kernel_seconds == pytest.approx(both.seconds, rel=0.2)
