"""SiLU, HardSwish and GELU between integers: `python docs/measure_gates.py` prints the table of docs/placement.md.

What stands between two integer kernels, on tensors of some sizes: DQ, float op, Q; and the same behind `expand-gates`.
Times on the wall, the median over runs in turns; above 1, the integer form is faster.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np

from onnxq import registry
from onnxq.ir import save, text
from onnxq.runtime.session import Session
from onnxq.runtime.turns import IN_TURNS, medians
from onnxq.testing import default_context

SIZES = ((24, 208, 208), (48, 104, 104), (96, 52, 52), (192, 26, 26), (384, 13, 13), (16, 24, 96))
OPS = {"SiLU": "com.microsoft.QuickGelu <alpha = 1.0> (d)", "HardSwish": "HardSwish(d)", "GELU": "Gelu(d)"}


def main() -> None:
    parser = argparse.ArgumentParser(description="SiLU, HardSwish and GELU between integers.")
    parser.add_argument("--turns", type=int, default=30, help="of each form")
    turns = parser.parse_args().turns
    heads = [f"{op} in float, us | times as fast in int8" for op in OPS]
    print(f"| tensor | elements | {' | '.join(heads)} |")
    print(f"|{'---|' * (2 + 2 * len(OPS))}")
    for size in SIZES:
        cells = [cell for op in OPS.values() for cell in measured(op, size, turns)]
        print(f"| {' x '.join(map(str, size))} | {np.prod(size)} | {' | '.join(cells)} |", flush=True)


def measured(op: str, size: tuple[int, ...], turns: int) -> tuple[str, str]:
    """Microseconds of the float form, and how many times as fast the integer one is."""
    shape = ",".join(map(str, (1, *size)))
    source = (
        '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]> '
        f"g (uint8[{shape}] x) => (uint8[{shape}] y) "
        "<float s = {0.05}, uint8 z = {120}, float t = {0.03}, uint8 u = {9}> "
        f"{{ [d] d = DequantizeLinear(x, s, z) [m] m = {op} [q] y = QuantizeLinear(m, t, u) }}"
    )
    forms = [text.parse(source), text.parse(source)]
    registry.load(registry.PASSES, "expand-gates")().run(forms[1].graph, default_context())
    sessions = [Session(save.to_bytes(form), threads=1, config=IN_TURNS) for form in forms]
    feeds = {"x": np.random.default_rng(0).integers(0, 256, (1, *size), dtype=np.uint8)}
    float_, integer = medians([partial(session.run, feeds) for session in sessions], turns)
    return f"{1e6 * float_:.0f}", f"{float_ / integer:.2f}"


if __name__ == "__main__":
    main()
