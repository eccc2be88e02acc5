"""The plan, made when the first pass asks for it: what was normalised is checked, samples or a file give the ranges,
and the planner decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.budget import Met, within
from onnxq.config.placing import Placing
from onnxq.data.sample import Dataset, Sample
from onnxq.errors import CalibrationError, DataError, ModelError, PassError, UnknownNameError, did_you_mean
from onnxq.ir import walk
from onnxq.ir.hash import model_hash
from onnxq.ir.model import Model
from onnxq.ir.opset import made_up_sample
from onnxq.options import Options, Timing
from onnxq.pipeline.base import Context
from onnxq.pipeline.prepare import annotate, run_literally
from onnxq.placement.result import Placed
from onnxq.placement.stage import placed_plan
from onnxq.plan.calibrated import CalibratedRanges
from onnxq.plan.plan import Placement, Plan
from onnxq.plan.planner import make_plan, wanted
from onnxq.plan.reasons import matches
from onnxq.progress import Progress, Silent
from onnxq.stats.engine import Outcome, calibrate
from onnxq.stats.probe import observe
from onnxq.stats.ranges import GivenRanges, RangeTable
from onnxq.stats.statistics import Statistics
from onnxq.stats.surroundings import Surroundings, surroundings
from onnxq.stats.taps import mask_tensors
from onnxq.trial import choose, inserted

WITHOUT_SAMPLES = "mixed"
"""What `auto` takes if there are statistics and no samples to try methods on."""


FIRST = 2
"""Samples on which shapes are observed; on the first of them, runs are compared."""


class PlanProvider:
    """Makes the plan when the first pass asks for it: checks what the passes did so far, calibrates, plans, chooses.

    Args:
        model: prepared; its graph is what the passes edit.
        data: calibration samples; None only with statistics or ranges that were made before.
        unused: patterns of nodes to keep float that fitted nothing in the model as it was loaded.
        first: the first samples of `data`, if they were read before.
        exact: what the model gives on the first of them, if it was run before with optimizations off.
    """

    def __init__(
        self,
        model: Model,
        data: Dataset | None,
        options: Options,
        *,
        unused: Sequence[str] = (),
        first: Sequence[Sample] = (),
        exact: Mapping[str, NDArray[Any]] | None = None,
        timing: Timing | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.data, self.options, self.unused = model, data, options, unused
        self.timing, self.progress = timing or Timing(), progress or Silent()
        read = list(first)
        self.first = read or (first_samples(data, FIRST) if data is not None else made_up_samples(model))
        self.exact = exact if exact is not None or not self.first else self._literally()
        self.shapes: Mapping[str, tuple[int | str, ...]] = {}
        self.statistics: Statistics | RangeTable | None = options.given
        self.around: Mapping[str, Surroundings] = {}
        self.outcome: Outcome | None = None
        self.placed: Placed | None = None
        self.met: Met | None = None
        self.check = True  # bisect looks for the pass that does not pass this check
        self.method = ""
        self.notes: list[str] = []

    def __call__(self, graph: gs.Graph, context: Context) -> None:
        options, timing = self.options, self.timing
        self.gather(graph)
        with timing.stage("plan"):
            if isinstance(self.statistics, Statistics):
                self.around = surroundings(graph, self.statistics.tensors)
            plans = {name: self.plan(graph, name, options.keep_float) for name in self._methods()}
        with timing.stage("choose method"):
            if self.data is None:
                self.method = next(iter(plans))
            else:
                self.method, notes = choose(self.model, plans, context, self.data, options.threads)
                self.notes.extend(notes)
            context.plan = plans[self.method]
        if options.placing is not None and self.first:
            with timing.stage("place"):
                context.plan = self._place(graph, context, options.placing)

    def gather(self, graph: gs.Graph) -> None:
        """Check what the passes did so far; have statistics or ranges for the graph as it is now.

        Raises:
            PassError: the passes changed what the model computes.
            CalibrationError: see `onnxq.stats.engine.calibrate`; what was made before belongs to another model.
        """
        options, timing = self.options, self.timing
        with timing.stage("check passes"):
            checked = self.check and self.exact is not None and not is_random(graph)  # two runs differ by themselves
            got: Mapping[str, Any] = {}
            if options.given is None:  # one session, which gives shapes, too
                seen = observe(self.model, self.first, outputs=checked, threads=options.threads)
                self.shapes, got = seen.shapes, seen.outputs
            elif checked:
                got = run_literally(self.model, self.first[0].inputs)
            if checked and self.exact is not None:
                _check_normalised(self.exact, got, self.first[0].name)
        with timing.stage("calibrate"):
            unused = [p for p in unmatched(graph, options.keep_float) if p in self.unused]
            self.notes.extend(_check_patterns(unused, graph))
            if options.given is not None:
                options.given.check(model_hash(self.model))
                self.shapes = options.given.shapes
                self._compare(wanted(graph, options.target, self.shapes, options.keep_float), options.given)
            else:
                self.statistics = self._collect(graph)
                self.shapes = self.statistics.shapes
            # last: the hash of the graph must not depend on the samples
            annotate(graph, self.shapes)

    def _collect(self, graph: gs.Graph) -> Statistics:
        assert self.data is not None
        options = self.options
        self.outcome = calibrate(
            self.model,
            wanted(graph, options.target, self.shapes, options.keep_float),
            self.data,
            options.observers,
            limit=options.calib_limit,
            threads=options.threads,
            progress=self.progress,
            feedback=options.feedback,
            allow_infinite=mask_tensors(graph),
            shapes=self.shapes,
            cache=options.resources.cache,
            executor=options.resources.pool,
            seconds=options.resources.seconds,
        )
        self.notes.extend(self.outcome.notes)
        if self.outcome.cached:
            self.notes.append("The statistics came from the cache; --no-cache collects them again.")
        elif self.outcome.resumed:
            self.notes.append(f"{self.outcome.resumed} samples had been run before: the run went on from a checkpoint.")
        return self.outcome.statistics

    def _place(self, graph: gs.Graph, context: Context, placing: Placing) -> Plan:
        plan, self.placed, notes = placed_plan(
            self.model,
            replan=lambda placement: self.plan(graph, self.method, self.options.keep_float, placement),
            insert=lambda plan: inserted(self.model, context, plan),
            samples=[s.inputs for s in self.first],
            placing=placing,
            cache=self.options.resources.cache,
        )
        self.notes.extend(notes)
        if self.placed is None or self.options.budget is None or self.data is None:
            return plan
        return self._meet(graph, context, plan, self.data)

    def _meet(self, graph: gs.Graph, context: Context, plan: Plan, data: Dataset) -> Plan:
        """The plan with as much int8 as the budget allows."""
        assert self.placed is not None
        self.met = within(
            self.placed,
            plan,
            self.model,
            data,
            self.options,
            replan=lambda placement: self.plan(graph, self.method, self.options.keep_float, placement),
            insert=lambda some: inserted(self.model, context, some),
            progress=self.progress,
        )
        self.notes.extend(self.met.notes)
        return self.met.plan

    def plan(self, graph: gs.Graph, method: str, keep_float: Sequence[str], placement: Placement | None = None) -> Plan:
        """A plan from the statistics that were collected."""
        assert self.statistics is not None
        options = self.options
        ranges: CalibratedRanges | GivenRanges
        if isinstance(self.statistics, RangeTable):
            ranges = GivenRanges(self.statistics, options.weight_method)
        else:
            calibrator = options.calibrators[method]
            ranges = CalibratedRanges(self.statistics, calibrator, options.weight_method, self.around)
        return make_plan(graph, options.target, ranges, self.shapes, keep_float, placement)

    def _methods(self) -> list[str]:
        given = self.options.given
        if isinstance(given, RangeTable):
            return [given.method]
        names = list(self.options.calibrators)
        if given is None or len(names) == 1:
            return names
        # of several, those whose observers were collected; the statistics may be from another method
        held = {name for found in given.tensors.values() for name in found.observers}
        able = [name for name in names if held.issuperset(self.options.calibrators[name].observers)] or names[:1]
        if self.data is not None:
            return able
        taken = WITHOUT_SAMPLES if WITHOUT_SAMPLES in able else able[0]
        self.notes.append(f"Method {taken} was taken: trying several methods needs samples, and none were given.")
        return [taken]

    def _literally(self) -> dict[str, NDArray[Any]] | None:
        try:
            return run_literally(self.model, self.first[0].inputs)
        except ModelError:
            if self.data is not None:
                raise
            return None  # made-up inputs need not fit

    def _compare(self, asked: Sequence[str], given: Statistics | RangeTable) -> None:
        """Which tensors that a plan may ask for have no range, and not because no sample reached them?

        Raises:
            CalibrationError: all of them.
        """
        known = given.ranges if isinstance(given, RangeTable) else given.tensors
        missing = [name for name in asked if name not in known and name not in given.unreached]
        if missing and len(missing) == len(asked):
            raise CalibrationError(
                f"what was calibrated holds none of the {len(asked)} tensors that the target "
                f"{self.options.target.name} needs, such as {missing[0]}: calibrate again with the same target "
                f"and options"
            )
        if missing:
            self.notes.append(
                f"What was calibrated holds no range for {len(missing)} tensors that could be quantized, their ops "
                f"stay float: {', '.join(missing[:5])}"
            )


def unmatched(graph: gs.Graph, patterns: Sequence[str]) -> list[str]:
    """The keep-float patterns that fit no node of the graph or of the bodies in it."""
    nodes = [node for _, inner in walk.graphs(graph) for node in inner.nodes]
    return [p for p in patterns if not any(matches(node, [p]) for node in nodes)]


def _check_patterns(unused: Sequence[str], graph: gs.Graph) -> list[str]:
    """Notes on wildcards that fit nothing in this model.

    Raises:
        UnknownNameError: a plain name fits nothing, which is a slip of the pen.
    """
    for name in unused:
        if not any(c in name for c in "*?["):
            nodes = [node for _, inner in walk.graphs(graph) for node in inner.nodes]
            known = {n for node in nodes for n in (node.name, node.op, *(t.name for t in node.outputs)) if n}
            guess = did_you_mean(name, known)
            hint = guess if guess.startswith("did you mean") else "onnxq inspect shows the names"
            raise UnknownNameError(f'--keep-float "{name}" is no node, op type or output of the model: {hint}')
    return [f'The keep-float pattern "{p}" fits no node, op type or output of this model.' for p in unused]


RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Ops whose results change from run to run (Dropout does so in training only)."""


def is_random(graph: gs.Graph) -> bool:
    """Does any op of the graph or of the bodies in it draw random numbers?"""
    return any(
        node.op in RANDOM or (node.op == "Dropout" and len(node.inputs) > 2)
        for _, inner in walk.graphs(graph)
        for node in inner.nodes
    )


NORMALISED = 1e-3
"""Greatest difference that normalising passes may make on an output, relative to its largest magnitude: folding
reorders float sums."""


def _check_normalised(exact: Mapping[str, Any], got: Mapping[str, Any], sample: str) -> None:
    """The passes before the plan keep what the model computes.

    Raises:
        PassError: they do not, on this sample.
    """
    for name, a in exact.items():
        b = got.get(name)
        if not isinstance(a, np.ndarray) or a.dtype.kind != "f" or not a.size:
            continue
        loose = 30 if a.dtype == np.float16 else 1  # float16 graphs are computed in float32 from here on
        with np.errstate(invalid="ignore"):
            same = isinstance(b, np.ndarray) and b.shape == a.shape
            gaps = np.abs(a.astype(np.float64) - np.asarray(b, dtype=np.float64)) if same else np.array(np.inf)
            peak = float(np.max(np.abs(a[np.isfinite(a)]), initial=1e-6))
        if same:
            gaps = gaps[np.isfinite(a)]  # what is NaN or infinite stays out, but must not become so
        gap = np.inf if np.isnan(gaps).any() else float(np.max(gaps, initial=0.0))
        if gap > NORMALISED * loose * peak:
            raise PassError(
                f"the normalising passes changed output {name} of {sample} by {gap:.3g} "
                f"(largest value {peak:.3g}): "
                "this is a fault of a pass: find it with onnxq run --verify-each, leave it out and report it"
            )


def made_up_samples(model: Model) -> list[Sample]:
    """One sample of inputs that fit by type and shape; none if that cannot be told."""
    try:
        return [Sample(index=0, name="made-up inputs", inputs=made_up_sample(model))]
    except ValueError:
        return []


def first_samples(data: Dataset, count: int) -> list[Sample]:
    """The first samples, `count` at most.

    Raises:
        DataError: there is none.
    """
    out: list[Sample] = []
    for sample in data:
        out.append(sample)
        if len(out) == count:
            break
    if not out:
        raise DataError(f"there is no sample in {data.description}: give a folder or file with samples")
    return out
