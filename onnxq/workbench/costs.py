"""`onnxq costs measure`: what the kernels of a model take on this machine, in float and in int8."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.costs.common import cases
from onnxq.costs.estimate import Costs
from onnxq.costs.files import open_costs, shipped
from onnxq.costs.measure import ROUNDS, measure_cases
from onnxq.costs.observe import observe, price
from onnxq.costs.table import CostTable, this_machine
from onnxq.encoding import Kind
from onnxq.errors import UsageError
from onnxq.ir.load import is_quantized, load
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.pipeline.calibration import CalibrationSection
from onnxq.pipeline.manager import run_pipeline
from onnxq.pipeline.prepare import made_up_inputs
from onnxq.plan.kinds import SAID, possible, with_kinds
from onnxq.plan.plan import Plan
from onnxq.progress import Progress, Silent
from onnxq.runtime.profile import profile
from onnxq.runtime.session import Session
from onnxq.trial import inserted
from onnxq.workbench.setup import Request, read_pipeline, set_up

Inputs = Mapping[str, NDArray[Any]]

PIPELINE = "cpu"
_CALIBRATION = 8
_BUDGET_SECONDS = 1.0
_RUNS = (10, 200)


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form of the model that was profiled; seconds are of one run.

    Attributes:
        name: "as it is", "normalised", "int8", or a kind of integers between float borders (`onnxq.plan.kinds`).
        seconds: measured without the profiler.
        kernels: sum over the kernels, by the profiler; less what the profiler adds.
        predicted: what the shipped tables or a given file say, had nothing been measured here.
        known: share of `predicted` that is measured for exactly these kernels.
        runs: timed runs.
    """

    name: str
    seconds: float
    kernels: float
    predicted: float
    known: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The costs, the forms they are from, and sentences for the user."""

    table: CostTable
    forms: tuple[Form, ...]
    notes: tuple[str, ...]


def measure_model(
    model: Path,
    calib: str | None,
    *,
    threads: int = 1,
    against: Path | None = None,
    preprocess: Mapping[str, Any] | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Measured:
    """Profile a model as it is, and, if it is float, normalised, with all the int8 that kernels allow, and with each
    kind of integers between float borders wherever an op can have it.

    Args:
        calib: samples, as for `onnxq quantize`; None: made up from types and shapes, which costs the same time unless
            the work depends on the values.
        threads: intra-op.
        against: a cost file whose prediction is compared with what is measured; None: the shipped tables.

    Raises:
        UsageError: inputs cannot be made up.
        OnnxqError: whatever else the user can mend.
    """
    progress = progress or Silent()
    costs, said = (Costs(shipped()), ()) if against is None else open_costs(against)
    loaded = load(model)
    given: Inputs | None = None
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        if calib is None:
            given = _made_up(loaded, model)
            calib = str(Path(folder) / "made-up.npz")
            np.savez(calib, **given)  # type: ignore[arg-type]
        request = Request(
            pipeline=PIPELINE,
            model=model,
            calib=calib,
            calibration=CalibrationSection(method="minmax", limit=_CALIBRATION, cache=False, threads=threads),
            preprocess=preprocess or {},
            skip_bad=skip_bad,
        )
        notes = list(said)
        if is_quantized(loaded.graph):
            notes.append(f"{model} is quantized already: only its own kernels were measured, not the float model's.")
            done = set_up(replace(request, pipeline="import"), steps=()) if given is None else None
            samples = done.samples if done is not None else [given or {}]
            forms = [("as it is", loaded)]
        else:
            samples, forms = _forms(request, loaded, progress)
        return _profiled(forms, samples, threads, costs, tuple(notes), progress)


def measure_common(*, threads: int = 1, progress: Progress | None = None) -> CostTable:
    """Micro-benchmarks of the common ops in typical shapes: what the shipped table is made of."""
    wanted = list(cases())
    with (progress or Silent()).task("measuring", total=len(wanted) * ROUNDS) as step:
        return measure_cases(wanted, threads=threads, told=lambda _: step(1))


def _made_up(model: Model, path: Path) -> Inputs:
    try:
        return made_up_inputs(model)
    except ValueError as error:
        raise UsageError(f"inputs for {path} cannot be made up ({error}): give --calib DATA") from error


def _forms(request: Request, loaded: Model, progress: Progress) -> tuple[list[Inputs], list[tuple[str, Model]]]:
    """The model as it is, after the passes in front of the plan, with each kind, and after all passes."""
    pipeline, _ = read_pipeline(request)
    before = tuple(itertools.takewhile(lambda step: "plan" not in step.body.needs, pipeline.steps))
    plain = set_up(request, steps=before)
    run_pipeline(plain.model.graph, plain.pipeline, plain.context)
    whole = set_up(request, progress=progress)
    run_pipeline(whole.model.graph, whole.pipeline, whole.context)
    forms = [("as it is", loaded), ("normalised", plain.model), ("int8", whole.model)]
    able = possible(plain.model.graph, plain.context.target)
    for kind in plain.context.target.kinds:
        some: dict[str, Kind] = {name: kind for name, reasons in able.items() if reasons.get(kind) == ""}
        if some:
            plan = with_kinds(Plan(values={}, uses={}, decisions={}), plain.model.graph, plain.context.target, some)
            forms.append((SAID[kind], inserted(plain.model, plain.context, plan)))
    return whole.samples, forms


def _profiled(
    forms: Sequence[tuple[str, Model]],
    samples: Sequence[Inputs],
    threads: int,
    costs: Costs,
    notes: tuple[str, ...],
    progress: Progress,
) -> Measured:
    table = CostTable(machine=this_machine())
    seen: list[Form] = []
    with progress.task("profiling", total=len(forms)) as step:
        for name, model in forms:
            with runnable(model) as source:
                fed = [_only(sample, Session(source, threads=threads)) for sample in samples]
                once = profile(source, fed, threads=threads, runs=2).seconds
                runs = int(np.clip(_BUDGET_SECONDS / (2 * max(once, 1e-6)), *_RUNS))
                found = profile(source, fed, threads=threads, runs=runs)
            table = table.merge(observe(found, threads=threads))
            priced = price(found, costs, threads=threads)
            seen.append(
                Form(
                    name=name,
                    seconds=found.seconds,
                    kernels=found.kernel_seconds,
                    predicted=priced.profile.seconds,
                    known=priced.share,
                    runs=runs,
                )
            )
            step(1)
    return Measured(table=table, forms=tuple(seen), notes=notes)


def _only(sample: Inputs, session: Session) -> Inputs:
    """The inputs that the session takes."""
    wanted = {i.name for i in session.inputs}
    return {name: array for name, array in sample.items() if name in wanted}
