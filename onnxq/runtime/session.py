"""The one door to ONNX Runtime."""

from __future__ import annotations

import enum
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from onnxq.data.sample import InputSpec
from onnxq.errors import ModelError

VERSION: str = ort.__version__
BUILD: str = str(getattr(ort, "get_build_info", lambda: "")()).removeprefix("ORT Build Info: ")
PROVIDERS: tuple[str, ...] = tuple(str(p) for p in ort.get_available_providers())

_NUMPY = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int16)": np.int16,
    "tensor(uint16)": np.uint16,
    "tensor(int32)": np.int32,
    "tensor(uint32)": np.uint32,
    "tensor(int64)": np.int64,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


class Level(enum.Enum):
    """ORT's graph optimization levels. OFF is the reference semantics."""

    OFF = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    BASIC = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    EXTENDED = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ALL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL


SIDE_BY_SIDE = {"session.force_spinning_stop": "1"}
"""Configuration for several sessions in one process: threads that keep spinning after a run would take the cores from
the next session."""


DISABLED = "onnxq.disabled_optimizers"
"""Metadata property of a model: names of ORT optimizers that would break it, with blanks between."""


class Session:
    """A model loaded by ORT on the CPU.

    Args:
        model: a file, or the serialized model (below 2 GB).
        level: graph optimization level.
        threads: intra-op threads; None is ORT's default (all cores).
        memory_pattern: ORT's memory planning; off while calibrating (lower peak).
        prepacking: off for calibration of models near the memory limit.
        save_optimized: where ORT writes its optimized graph.
        profile_prefix: turn ORT's profiler on, files start with this.
        disabled_optimizers: names of ORT optimizers to leave out, besides those that the file names (`DISABLED`).
        config: further session configuration entries.

    Raises:
        ModelError: ORT refuses the model.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        level: Level = Level.ALL,
        threads: int | None = None,
        memory_pattern: bool = True,
        prepacking: bool = True,
        save_optimized: Path | None = None,
        profile_prefix: Path | None = None,
        disabled_optimizers: Sequence[str] = (),
        config: Mapping[str, str] | None = None,
    ) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = level.value
        options.log_severity_level = 4
        options.enable_mem_pattern = memory_pattern
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        if not prepacking:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if save_optimized is not None:
            options.optimized_model_filepath = str(save_optimized)
        if profile_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile_prefix)
        for key, value in (config or {}).items():
            options.add_session_config_entry(key, value)
        source = model if isinstance(model, bytes) else str(model)
        where = "the model" if isinstance(model, bytes) else str(model)

        def opened(disabled: Sequence[str]) -> ort.InferenceSession:
            return ort.InferenceSession(
                source, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
            )

        try:
            self._session = opened(disabled_optimizers)
            asked = self._session.get_modelmeta().custom_metadata_map.get(DISABLED, "").split()
            if level is not Level.OFF and profile_prefix is None and not set(asked).issubset(disabled_optimizers):
                self._session = opened([*disabled_optimizers, *asked])
        except Exception as error:  # ORT raises a dozen unrelated types
            raise ModelError(f"ONNX Runtime {VERSION} cannot load {where}: {_first_line(error)}") from error
        self.inputs: tuple[InputSpec, ...] = tuple(_spec(i) for i in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())
        self.output_specs: tuple[InputSpec, ...] = tuple(_spec(o) for o in self._session.get_outputs())
        self.overridable: tuple[str, ...] = tuple(i.name for i in self._session.get_overridable_initializers())

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """One forward pass.

        Raises:
            ModelError: ORT fails on these inputs.
        """
        wanted = list(outputs) if outputs is not None else list(self.outputs)
        if not wanted:  # ORT takes an empty list for all outputs
            return {}
        try:
            values: list[Any] = list(self._session.run(wanted, dict(inputs)))
        except Exception as error:
            raise ModelError(f"ONNX Runtime {VERSION} cannot run the model: {_first_line(error)}") from error
        return dict(zip(wanted, values, strict=True))

    def end_profiling(self) -> list[dict[str, Any]]:
        """The events of the profiler; the file it wrote is removed."""
        path = Path(self._session.end_profiling())
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        return events


def optimized(model: Path | bytes, *, level: Level = Level.ALL, disabled_optimizers: Sequence[str] = ()) -> bytes:
    """ORT's own optimized graph of a model, serialized. For inspection only: never a result of ours."""
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        out = Path(folder) / "optimized.onnx"
        Session(model, level=level, threads=1, save_optimized=out, disabled_optimizers=disabled_optimizers)
        return out.read_bytes()


def physical_threads() -> int:
    """Threads that ORT uses by default: the cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _spec(value: Any) -> InputSpec:
    return InputSpec(
        name=value.name, dtype=np.dtype(_NUMPY.get(value.type, np.object_)), shape=tuple(value.shape or ())
    )


def _first_line(error: Exception) -> str:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line.rstrip(".")
