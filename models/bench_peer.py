"""The other side of the bench: onnxruntime.quantization as its documentation says to use it on a CPU."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_process import describe
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from onnxq.data.sample import Dataset

# quant_pre_process imports this when it is called, and SymPy with it: here it counts as an import, not as work
importlib.import_module("onnxruntime.tools.symbolic_shape_infer")

METHODS = {"ort-minmax": CalibrationMethod.MinMax, "ort-percentile": CalibrationMethod.Percentile}


class Reader(CalibrationDataReader):  # type: ignore[misc]  # ORT has no types
    """The samples of our data wing, one at a time, in the form that ORT's calibrators ask for."""

    def __init__(self, data: Dataset) -> None:
        self.count = 0
        self._samples: Iterator[Any] = iter(data)

    def get_next(self) -> dict[str, Any] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The inputs of the next sample; None after the last."""
        sample = next(self._samples, None)
        if sample is None:
            return None
        self.count += 1
        return dict(sample.inputs)


def quantize(method: str, model: Path, data: Dataset, output: Path) -> dict[str, Any]:
    """Pre-process and quantize: Q/DQ format, u8 activations, s8 weights per channel, everything else as it comes.

    Where the pre-processing fails in its symbolic shape inference, it is done again without, as a user would: the
    calibration is what is compared, and a note says so.

    Raises:
        Exception: whatever onnxruntime.quantization raises.
    """
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="onnxq-peer-") as folder:
        ready = Path(folder) / "ready.onnx"
        try:
            quant_pre_process(str(model), str(ready))
        except Exception as error:  # it raises plain Exception
            notes.append(f"quant_pre_process fails ({describe(error)}), done with skip_symbolic_shape=True")
            quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
        reader = Reader(data)
        quantize_static(
            str(ready),
            str(output),
            reader,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=METHODS[method],
        )
    return {"samples": reader.count, "notes": notes}
