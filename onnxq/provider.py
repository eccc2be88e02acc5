"""The plan, made when the first pass asks for it: what was normalised is checked, samples or a file give the ranges,
and the planner decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import onnx_graphsurgeon as gs

from onnxq.budget import Known, Met, within
from onnxq.compact import shrunk
from onnxq.config.placing import Placing
from onnxq.config.repair import FLOAT_REPAIRS, WEIGHTS
from onnxq.data.sample import Dataset
from onnxq.gathering import Gathering
from onnxq.ir.model import Model
from onnxq.pipeline.base import Context
from onnxq.pipeline.normalised import is_random
from onnxq.pipeline.prepare import annotate
from onnxq.placement.result import Placed
from onnxq.placement.stage import Race, placed_plan
from onnxq.plan.calibrated import CalibratedRanges
from onnxq.plan.kinds import possible
from onnxq.plan.plan import Placement, Plan
from onnxq.plan.planner import make_plan
from onnxq.repair.stage import Repairs, note
from onnxq.settling import ROUNDS, settle
from onnxq.stats.ranges import GivenRanges, RangeTable
from onnxq.stats.statistics import Statistics
from onnxq.stats.surroundings import Surroundings, surroundings
from onnxq.stats.weights import WeightMethod
from onnxq.trial import choose, inserted
from onnxq.validate.repaired import Repair

WITHOUT_SAMPLES = "mixed"
"""What `auto` takes if there are statistics and no samples to try methods on."""


class PlanProvider(Gathering):
    """Makes the plan when the first pass asks for it: checks what the passes did so far, calibrates, plans, chooses."""

    around: Mapping[str, Surroundings] = MappingProxyType({})
    placed: Placed | None = None
    met: Met | None = None
    repairs: Repairs | None = None
    repaired: tuple[Repair, ...] = ()
    method: str = ""
    _race: Race | None = None
    _known: Known | None = None
    _searched = False  # weights' ranges by mse, since that pays

    @property
    def weight_method(self) -> WeightMethod:
        """How weights get their ranges."""
        return "mse" if self._searched else self.options.weight_method

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

    def _place(self, graph: gs.Graph, context: Context, placing: Placing) -> Plan:
        plan, self.placed, notes, self._race = placed_plan(
            self.model,
            replan=lambda placement: self.plan(graph, self.method, self.options.keep_float, placement),
            insert=lambda plan: inserted(self.model, context, plan),
            samples=[s.inputs for s in self.first],
            placing=placing,
            cache=self.options.resources.cache,
            able=possible(graph, self.options.target, self.options.keep_float),
            progress=self.progress,
        )
        self.notes.extend(notes)
        return plan

    def _meet(self, graph: gs.Graph, context: Context, plan: Plan, data: Dataset) -> Plan:
        """The plan with as much int8 as the budget allows. Forms are judged with the repairs that pay for them."""
        assert self.placed is not None
        self._known = Known()
        self.met = self._within(self.placed, graph, context, plan, data)
        later = self.options.repairing.later if self.options.repairing is not None else ()
        gave_up = bool(self.met.worst) or not self.met.holds
        if gave_up and self.repairs is not None and self._float_repairs(graph, plan, later):
            plan, self._known = self.plan(graph, self.method, self.options.keep_float, self.placed.placement), Known()
            self.met = self._within(self.placed, graph, context, plan, data)
        self._settle(graph, context, plan, data)
        self.notes.extend(self.met.notes)
        return self.met.plan

    def _settle(self, graph: gs.Graph, context: Context, plan: Plan, data: Dataset) -> None:
        """What the budget brought up is timed."""
        assert self.placed is not None and self.met is not None
        placing = self.options.placing
        self.met, self.placed = settle(
            self.met,
            self.placed,
            race=self._race,
            again=lambda placed: self._within(placed, graph, context, plan, data),
            replan=lambda placement: self.plan(graph, self.method, self.options.keep_float, placement),
            rounds=1 if placing is not None and placing.effort == "fast" else ROUNDS,
        )

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
            known=self._known,
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
                found.append(self.collect(changed).statistics)
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
        self._searched = True
        changed = self.plan(graph, self.method, self.options.keep_float, placement)
        if self.repairs.weights(plan, lambda: changed):
            return changed
        self._searched = False
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
