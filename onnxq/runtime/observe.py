"""What ONNX Runtime makes of a model: its optimized graph as a file, and the shapes that really flow."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxq.runtime.session import Level, Session

Shape = tuple[int, ...]


@dataclass(frozen=True)
class NodeRun:
    """One execution of a node: shapes of the inputs that are there, in order, and of the outputs."""

    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


def write_optimized(
    model: Path | bytes, path: Path, *, level: Level = Level.ALL, disabled_optimizers: Sequence[str] = ()
) -> None:
    """ORT's optimized graph as `path`, weights of 1 kB and more beside it (so 2 GB are no limit). For inspection only.

    Raises:
        ModelError: ORT refuses the model.
    """
    Session(
        model,
        level=level,
        threads=1,
        prepacking=False,
        save_optimized=path,
        disabled_optimizers=disabled_optimizers,
        config={
            "session.optimized_model_external_initializers_file_name": f"{path.name}.data",
            "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        },
    )


def node_runs(model: Path | bytes, inputs: Mapping[str, NDArray[Any]]) -> dict[str, list[NodeRun]]:
    """Run the model once, optimizations off: node name -> the shapes of each execution, bodies included.

    Raises:
        ModelError: the model does not load or run.
    """
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        # a prepacked weight is gone from the inputs that the profiler lists
        prefix = Path(folder) / "profile"
        session = Session(model, level=Level.OFF, threads=1, prepacking=False, profile_prefix=prefix)
        try:
            session.run(inputs)
        finally:
            events = session.end_profiling()
    found: dict[str, list[NodeRun]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            args = event["args"]
            run = NodeRun(_shapes(args.get("input_type_shape")), _shapes(args.get("output_type_shape")))
            found.setdefault(name.removesuffix("_kernel_time"), []).append(run)
    return found


def _shapes(entries: Any) -> tuple[Shape, ...]:
    """The profiler writes one {"float": [1, 3]} per tensor."""
    return tuple(tuple(int(d) for d in shape) for entry in entries or () for shape in entry.values())
