"""What a failing pass leaves behind: the model before it, the rest of the pipeline, the message."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from onnxq.errors import OnnxqError
from onnxq.ir.model import Model
from onnxq.ir.save import save
from onnxq.pipeline.base import Context
from onnxq.pipeline.manager import Pipeline, run_pipeline
from onnxq.pipeline.write import to_yaml

MODEL, REST, MESSAGE = "model.onnx", "pipeline.yaml", "error.txt"


class Crash:
    """Called when a pass fails; writes the folder and gives the end of the error sentence.

    The graph is half edited by then, so the model before the pass is made again: passes are deterministic.

    Args:
        folder: where to write; a number is added if it exists.
        pipeline: what was run.
        context: with the plan, if there was one.
        reproduce: the model as the first pass saw it.
        verify: the passes were verified, which may be what one of them failed.
    """

    def __init__(
        self,
        folder: Path,
        pipeline: Pipeline,
        context: Context,
        reproduce: Callable[[], Model],
        *,
        verify: bool = False,
    ) -> None:
        self.folder, self.pipeline, self.context, self.reproduce = folder, pipeline, context, reproduce
        self.flags = ["--verify-each"] * verify + ["--keep-overridable"] * context.keep_overridable

    def __call__(self, position: int, message: str) -> str:
        folder = _unused(self.folder)
        try:
            model = self.reproduce()
            run_pipeline(model.graph, replace(self.pipeline, steps=self.pipeline.steps[:position]), self.context)
            folder.mkdir()
            rest = replace(self.pipeline, steps=self.pipeline.steps[position:])
            (folder / MESSAGE).write_text(message + "\n", encoding="utf-8")
            (folder / REST).write_text(to_yaml(rest, at=folder), encoding="utf-8")
            save(model, folder / MODEL)
        except (OnnxqError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)  # half a folder helps nobody
            return f"; nothing could be left in {folder} to run it again ({error})"
        command = shlex.join(["onnxq", "run", str(folder / REST), str(folder / MODEL), "-o", "again.onnx", *self.flags])
        return f"; to run it again: {command}"


def _unused(folder: Path) -> Path:
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free
