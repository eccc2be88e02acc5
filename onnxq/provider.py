"""The plan, made when the first pass asks for it: what was normalised is checked, samples or a file give the ranges,
and the planner decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.budget import Met, within
from onnxq.compact import shrunk
from onnxq.config.placing import Placing
from onnxq.config.repair import FLOAT_REPAIRS, WEIGHTS
from onnxq.data.sample import Dataset, Sample
from onnxq.errors import CalibrationError, DataError, ModelError, UnknownNameError, did_you_mean
from onnxq.ir import walk
from onnxq.ir.hash import model_hash
from onnxq.ir.model import Model
from onnxq.options import Options, Timing
from onnxq.pipeline.base import Context
from onnxq.pipeline.normalised import check_normalised, coarseness, is_random
from onnxq.pipeline.prepare import annotate, made_up_inputs, run_literally
from onnxq.placement.result import Placed
from onnxq.placement.stage import placed_plan
from onnxq.plan.calibrated import CalibratedRanges
from onnxq.plan.kinds import possible
from onnxq.plan.plan import Placement, Plan
from onnxq.plan.planner import make_plan, wanted
from onnxq.plan.reasons import matches
from onnxq.progress import Progress, Silent
from onnxq.repair.stage import Repairs, note
from onnxq.stats.engine import Outcome, calibrate
from onnxq.stats.probe import observe
from onnxq.stats.ranges import GivenRanges, RangeTable
from onnxq.stats.statistics import Statistics
from onnxq.stats.surroundings import Surroundings, surroundings
from onnxq.stats.taps import mask_tensors
from onnxq.stats.weights import WeightMethod
from onnxq.trial import choose, inserted
from onnxq.validate.repaired import Repair

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
        self.coarse = coarseness(model.graph)
        self.shapes: Mapping[str, tuple[int | str, ...]] = {}
        self.statistics: Statistics | RangeTable | None = options.given
        self.around: Mapping[str, Surroundings] = {}
        self.outcome: Outcome | None = None
        self.placed: Placed | None = None
        self.met: Met | None = None
        self.repairs: Repairs | None = None
        self.repaired: tuple[Repair, ...] = ()
        self.weight_method: WeightMethod = options.weight_method
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
            plan = plans[self.method]
        if plan.uses:
            with timing.stage("repair"):
                plan = self._begin_repairs(graph, context, plan)
        if options.placing is not None and self.first:
            with timing.stage("place"):
                plan = self._place(graph, context, options.placing)
        with timing.stage("repair"):
            plan = self._repaired_weights(graph, plan)
        if self.placed is not None and options.budget is not None and self.data is not None:
            with timing.stage("meet the budget"):
                plan = self._meet(graph, context, plan, self.data)
        elif options.smallest and options.target.kinds and self.data is not None:
            with timing.stage("make it small"):
                plan, notes = shrunk(
                    self.model, plan, self.data, options,
                    replan=lambda placement: self.plan(graph, self.method, options.keep_float, placement),
                    insert=lambda some: self._inserted(context, some),
                )  # fmt: skip
                self.notes.extend(notes)
        with timing.stage("repair"):
            context.plan = self._finish_repairs(plan)

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
                check_normalised(self.exact, got, self.first[0].name, coarse=self.coarse)
        with timing.stage("calibrate"):
            unused = [p for p in unmatched(graph, options.keep_float) if p in self.unused]
            self.notes.extend(_check_patterns(unused, graph))
            if options.given is not None:
                options.given.check(model_hash(self.model))
                self.shapes = options.given.shapes
                self._compare(wanted(graph, options.target, self.shapes, options.keep_float), options.given)
            else:
                self.outcome = self._collect(self.model)
                self.statistics = self.outcome.statistics
                self.notes.extend(self.outcome.notes)
                if self.outcome.cached:
                    self.notes.append("The statistics came from the cache; --no-cache collects them again.")
                elif self.outcome.resumed:
                    count = self.outcome.resumed
                    self.notes.append(f"{count} samples had been run before: the run went on from a checkpoint.")
                self.shapes = self.statistics.shapes
            # last: the hash of the graph must not depend on the samples
            annotate(graph, self.shapes)

    def _collect(self, model: Model) -> Outcome:
        assert self.data is not None
        options, graph = self.options, model.graph
        return calibrate(
            model,
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

    def _place(self, graph: gs.Graph, context: Context, placing: Placing) -> Plan:
        plan, self.placed, notes = placed_plan(
            self.model,
            replan=lambda placement: self.plan(graph, self.method, self.options.keep_float, placement),
            insert=lambda plan: inserted(self.model, context, plan),
            samples=[s.inputs for s in self.first],
            placing=placing,
            cache=self.options.resources.cache,
            able=possible(graph, self.options.target, self.options.keep_float),
        )
        self.notes.extend(notes)
        return plan

    def _meet(self, graph: gs.Graph, context: Context, plan: Plan, data: Dataset) -> Plan:
        """The plan with as much int8 as the budget allows. Forms are judged with the repairs that pay for them."""
        assert self.placed is not None
        self.met = self._within(self.placed, graph, context, plan, data)
        later = self.options.repairing.later if self.options.repairing is not None else ()
        gave_up = bool(self.met.worst) or not self.met.holds
        if gave_up and self.repairs is not None and self._float_repairs(graph, plan, later):
            plan = self.plan(graph, self.method, self.options.keep_float, self.placed.placement)
            self.met = self._within(self.placed, graph, context, plan, data)
        self.notes.extend(self.met.notes)
        return self.met.plan

    def _inserted(self, context: Context, plan: Plan) -> Model:
        """A form as it is judged, with the repairs that pay for it."""
        return inserted(self.model, context, self.repairs.biases(plan) if self.repairs else plan)

    def _within(self, placed: Placed, graph: gs.Graph, context: Context, plan: Plan, data: Dataset) -> Met:
        return within(
            placed,
            plan,
            self.model,
            data,
            self.options,
            replan=lambda placement: self.plan(graph, self.method, self.options.keep_float, placement),
            insert=lambda some: self._inserted(context, some),
            progress=self.progress,
        )

    def _begin_repairs(self, graph: gs.Graph, context: Context, plan: Plan) -> Plan:
        """Repairs of the float model come before placement, since they change what is calibrated."""
        repairing = self.options.repairing
        if repairing is None or self.data is None or is_random(graph):
            return plan
        self.repairs = Repairs(
            self.model, self.data, context, repairing, first=self.first[0], threads=self.options.threads
        )
        if self._float_repairs(graph, plan, [n for n in FLOAT_REPAIRS if self.repairs.wants(n)]):
            return self.plan(graph, self.method, self.options.keep_float)
        return plan

    def _float_repairs(self, graph: gs.Graph, plan: Plan, names: Sequence[str]) -> bool:
        """Try them one after the other; is the float model another one now?"""
        assert self.repairs is not None
        any_kept = False
        for name in names if self.options.given is None else ():
            found: list[Statistics] = []

            def again(changed: Model, found: list[Statistics] = found) -> Plan:
                found.append(self._collect(changed).statistics)
                placement = self.placed.placement if self.placed is not None else None
                return self.plan(changed.graph, self.method, self.options.keep_float, placement, found[-1])

            changed = self.repairs.floats(name, plan, again)
            if changed is None:
                continue
            graph.nodes, graph.inputs, graph.outputs = (
                changed.graph.nodes, changed.graph.inputs, changed.graph.outputs,
            )  # fmt: skip
            self.model.meta = changed.meta
            self._take(graph, found[-1])
            self.repairs.moved(self.model)
            placement = self.placed.placement if self.placed is not None else None
            plan, any_kept = self.plan(graph, self.method, self.options.keep_float, placement), True
        return any_kept

    def _take(self, graph: gs.Graph, statistics: Statistics) -> None:
        self.statistics, self.shapes = statistics, statistics.shapes
        self.around = surroundings(graph, statistics.tensors)
        annotate(graph, self.shapes)

    def _repaired_weights(self, graph: gs.Graph, plan: Plan) -> Plan:
        if self.repairs is None or not self.repairs.wants(WEIGHTS) or not plan.uses or self.weight_method == "mse":
            return plan
        placement = self.placed.placement if self.placed is not None else None
        before, self.weight_method = self.weight_method, "mse"
        changed = self.plan(graph, self.method, self.options.keep_float, placement)
        if self.repairs.weights(plan, lambda: changed):
            return changed
        self.weight_method = before
        return plan

    def _finish_repairs(self, plan: Plan) -> Plan:
        if self.repairs is None:
            return plan
        corrected = self.repairs.biases(plan)
        self.repaired = self.repairs.rows(plan)
        self.notes.extend(note(self.repaired))
        return corrected

    def plan(
        self,
        graph: gs.Graph,
        method: str,
        keep_float: Sequence[str],
        placement: Placement | None = None,
        statistics: Statistics | None = None,
    ) -> Plan:
        """A plan from the statistics that were collected, or from others, of a changed graph."""
        given = statistics or self.statistics
        assert given is not None
        options = self.options
        ranges: CalibratedRanges | GivenRanges
        if isinstance(given, RangeTable):
            ranges = GivenRanges(given, self.weight_method)
        else:
            around = self.around if statistics is None else surroundings(graph, given.tensors)
            ranges = CalibratedRanges(given, options.calibrators[method], self.weight_method, around)
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


def made_up_samples(model: Model) -> list[Sample]:
    """One sample of inputs that fit by type and shape; none if that cannot be told."""
    try:
        return [Sample(index=0, name="made-up inputs", inputs=made_up_inputs(model))]
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
