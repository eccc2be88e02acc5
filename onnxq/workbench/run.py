"""`onnxq run`: any pipeline on a model, without validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxq.errors import UnknownNameError, UsageError, did_you_mean
from onnxq.ir.files import check_writable
from onnxq.ir.save import save
from onnxq.pipeline.crash import Crash
from onnxq.pipeline.hooks import Echo, PrintAfter, PrintChanged
from onnxq.pipeline.manager import Hook, Run, run_pipeline
from onnxq.pipeline.normalised import is_random
from onnxq.pipeline.verify import Verify
from onnxq.progress import Progress
from onnxq.quantization import write_decisions
from onnxq.workbench.setup import Request, Work, read_pipeline, set_up

PASSES, CHECKS = "passes", "prints and checks"
"""Stages: the passes themselves, and what hangs on them."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """What is printed and checked on the way.

    Attributes:
        after: names of passes behind which the graph is printed.
        changed: print what each pass changed.
        verify: check every pass.
    """

    after: Sequence[str] = ()
    changed: bool = False
    verify: bool = False


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What was done: the passes, seconds by stage (`load`, `convert`, `calibrate` ..., PASSES alone, CHECKS, `save`),
    sentences for the user.
    """

    run: Run
    seconds: dict[str, float]
    notes: tuple[str, ...]


def run(request: Request, output: Path, show: Show, echo: Echo, *, progress: Progress | None = None) -> Ran:
    """Run the pipeline and write the model.

    Raises:
        PassError: a pass failed; what it failed on lies in a folder beside the output.
        OnnxqError: one sentence for whatever else the user can mend.
    """
    if output.resolve() == request.model.resolve():
        raise UsageError(f"the output {output} is the model itself: give another path with -o")
    check_writable(output)
    pipeline, _ = read_pipeline(request)
    known = [step.name for step in pipeline.steps]
    for name in show.after:
        if name not in known:
            raise UnknownNameError(f'--print-after "{name}" is no pass of {pipeline.name}: {did_you_mean(name, known)}')
    work = set_up(request, progress=progress)
    crash = Crash(
        output.with_name(f"{output.name}.crash"), work.pipeline, work.context, work.reproduce, verify=show.verify
    )
    before = set(work.timing.seconds)
    with work.timing.stage(PASSES):
        done = run_pipeline(work.model.graph, work.pipeline, work.context, _hooks(work, show, echo), failed=crash)
    seconds = work.timing.seconds
    everything, seconds[PASSES] = seconds.pop(PASSES), sum(step.seconds for step in done.steps)
    if show != Show():
        seconds[CHECKS] = everything - sum(s for stage, s in seconds.items() if stage not in before)
    notes = [*work.model.notes, *done.notes, *(work.provider.notes if work.provider is not None else ())]
    if work.context.plan is not None:
        write_decisions(work.model, work.context.plan)
        notes += work.context.plan.notes
    with work.timing.stage("save"):
        save(work.model, output)
    return Ran(run=done, seconds=dict(seconds), notes=tuple(notes))


def _hooks(work: Work, show: Show, echo: Echo) -> list[Hook]:
    hooks: list[Hook] = []
    if show.after:
        hooks.append(PrintAfter(show.after, echo))
    if show.changed:
        hooks.append(PrintChanged(work.model.graph, echo))
    if show.verify:
        # two runs of a model that draws random numbers differ by themselves
        hooks.append(Verify(work.model, [] if is_random(work.model.graph) else work.samples))
    return hooks
