from __future__ import annotations

import numpy as np
import pytest

from onnxq.costs.estimate import MEASURED, Costs
from onnxq.costs.observe import keys, observe, price
from onnxq.costs.table import Cost, CostTable
from onnxq.ir.save import to_bytes
from onnxq.ir.text import parse
from onnxq.runtime.profile import Distortion, Profile, profile
from onnxq.runtime.session import Level

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
LOOP = (
    f"{HEAD} g (float[2,4] x, int64 trips) => (float[2,4] y) {{ [turn] z = Loop(trips, , x) <body = b "
    "(int64 i, bool go, float[2,4] h) => (bool on, float[2,4] o) { on = Identity(go) [inner] o = Sin(h) }> "
    "[one] a = Sin(z) [after] y = Cos(a) }"
)


@pytest.fixture(scope="module")
def loop() -> Profile:
    sample = {"x": np.ones((2, 4), np.float32), "trips": np.array(5)}
    none = Distortion(inside=0.0, between=0.0, call=0.0)
    return profile(to_bytes(parse(LOOP)), [sample], runs=3, level=Level.OFF, distortion=none)


def test_one_execution_is_what_counts(loop: Profile) -> None:
    table = observe(loop)
    by_name = {kernel.name: (kernel, key) for kernel, key in keys(loop)}
    assert "turn" not in by_name  # control flow has no work of its own
    inner, key = by_name["inner"]
    assert by_name["one"][1] == key
    cost = table.lookup(key)
    assert cost is not None
    assert inner.count == 5
    assert set(cost.context) == {round(inner.seconds / 5, 10), round(by_name["one"][0].seconds, 10)}
    assert cost.alone == ()


def test_observations_of_a_model_made_for_measuring(loop: Profile) -> None:
    assert all(cost.alone and not cost.context for cost in observe(loop, alone=True, threads=3).costs.values())
    assert {key.threads for key in observe(loop, threads=3).costs} == {3}


def test_a_model_priced_by_what_was_measured_elsewhere(loop: Profile) -> None:
    per_key = {key: Cost(context=(1.0,)) for _, key in keys(loop)}
    table = CostTable(machine=observe(loop).machine, costs=per_key)
    priced = price(loop, Costs((table,)))
    seconds = {k.name: k.seconds for k in priced.profile.kernels}
    assert (seconds["inner"], seconds["after"]) == (5.0, 1.0)
    assert seconds["turn"] == next(k.seconds for k in loop.kernels if k.name == "turn")
    assert priced.estimated == {}
    assert priced.share == pytest.approx(1.0, abs=0.01)
    assert priced.profile.seconds == pytest.approx(loop.call + sum(seconds.values()))
    assert [k.name for k in priced.profile.kernels] == [k.name for k in loop.kernels]


def test_what_the_table_lacks_is_named(loop: Profile) -> None:
    of = {kernel.name: key for kernel, key in keys(loop)}
    table = CostTable(machine=observe(loop).machine, costs={of["after"]: Cost(context=(1.0,))})
    priced = price(loop, Costs((table,)))
    assert priced.measured == ("after",)
    assert set(priced.estimated) == {k.name for k in loop.kernels} - {"after", "turn"}
    assert MEASURED not in priced.estimated.values()
    unknown = price(loop, Costs(()))
    assert [k.seconds for k in unknown.profile.kernels] == [k.seconds for k in loop.kernels]
    assert unknown.share == 0
