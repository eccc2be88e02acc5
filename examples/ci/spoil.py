"""A model with one wrong scale, to see the gate turn red: python spoil.py int8.onnx wrong.onnx [tensor] [factor]"""

from __future__ import annotations

import sys

import onnx
from onnx import numpy_helper


def spoil(source: str, target: str, tensor: str = "/blocks/blocks.1/relu/Relu_output_0", factor: float = 0.1) -> None:
    """Multiply the scale of one tensor, and write the model anew."""
    model = onnx.load(source)
    (scale,) = [t for t in model.graph.initializer if t.name == f"{tensor}_scale"]
    scale.CopyFrom(
        numpy_helper.from_array(
            numpy_helper.to_array(scale) * numpy_helper.to_array(scale).dtype.type(factor), scale.name
        )
    )
    onnx.save(model, target)


if __name__ == "__main__":
    spoil(*sys.argv[1:4], *map(float, sys.argv[4:5]))
