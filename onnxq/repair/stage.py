"""Repairs as a stage of quantization: each is tried, judged on held-out calibration samples, and kept if it pays.

    repairs = Repairs(model, data, context, repairing, first=sample, threads=1)
    repairs.weights(plan, lambda: plan_with_mse_weights)     -> the plan that is nearer to the float model
    repairs.biases(plan)                                     -> the plan with corrected biases, if they pay

What corrected biases are depends on what is rounded, and so on the plan: they are fitted anew for each plan that is
looked at, which takes about two runs per sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from onnxq import registry
from onnxq.config.repair import BIAS, EQUALIZE, REPAIRS, WEIGHTS, Repairing
from onnxq.data.sample import Dataset, Sample
from onnxq.errors import ModelError
from onnxq.faintest import Levels, worst_part
from onnxq.ir.model import Model
from onnxq.ir.save import weight_bytes
from onnxq.plan.plan import Plan
from onnxq.repair.bias import Correction, Inputs
from onnxq.repair.held import LARGEST, LEAST, Held, split, verdict
from onnxq.repair.smooth import smooth
from onnxq.trial import inserted
from onnxq.validate.repaired import Repair

if TYPE_CHECKING:
    from onnxq.pipeline.base import Context

EQUALIZE_PASS = "equalize-layers"

NOTHING = "the chosen form has nothing that it would change"


class Repairs:
    """What is tried on one model.

    Args:
        model: normalised, float.
        data: calibration samples.
        context: of the passes.
        first: any sample.
        threads: of ORT.

    Attributes:
        why_not: why nothing can be tried; empty if it can.

    Raises:
        ModelError: ORT cannot load or run the model.
    """

    def __init__(
        self,
        model: Model,
        data: Dataset,
        context: Context,
        repairing: Repairing,
        *,
        first: Sample,
        threads: int | None,
    ) -> None:
        self.model, self.context, self.repairing, self.threads = model, context, repairing, threads
        self.why_not = ""
        self._fit: Sequence[Inputs] = ()
        self._rows: dict[str, Repair] = {}
        self._levels: dict[object, Levels] = {}
        self._biases: dict[object, tuple[Plan, Repair]] = {}
        if weight_bytes(model) > LARGEST:
            self.why_not = "the model is too large to hold several forms of it in memory"
            return
        self._fit, held = split(data, repairing.effort, first)
        if not held:
            self.why_not = f"{LEAST} calibration samples are the least that say whether a repair pays"
            return
        self.held = Held(model, held, threads)
        if not self.held.measurable:
            self.why_not = "the model has no float output to measure it by"
        self._correction = self._correct()

    def wants(self, name: str) -> bool:
        """Is this repair to be tried, and can it be?"""
        return name in self.repairing.names and not self.why_not

    def weights(self, plan: Plan, other: Callable[[], Plan]) -> bool:
        """Are the outputs nearer with another range of weights?

        Args:
            other: the same plan with that range.
        """
        start = time.perf_counter()
        changed = other()
        if changed.key == plan.key:
            told = "no weight would get another range"
            self._rows[WEIGHTS] = Repair(name=WEIGHTS, kept=False, told=told, seconds=time.perf_counter() - start)
            return False
        self._rows[WEIGHTS] = self._compared(WEIGHTS, plan, changed, "ranges with the least squared error", start)
        return self._rows[WEIGHTS].kept

    def biases(self, plan: Plan) -> Plan:
        """The plan with corrected biases, or the plan itself where they do not pay."""
        if not self.wants(BIAS) or not plan.uses:
            return plan
        if plan.key not in self._biases:
            start = time.perf_counter()
            try:
                changed, count = self._correction.fit(plan)
            except ModelError as error:
                row = Repair(name=BIAS, kept=False, told=str(error), seconds=time.perf_counter() - start)
                changed, count = plan, 0
            else:
                told = f"{count} ops, on {len(self._fit)} samples"
                none = Repair(name=BIAS, kept=False, told="no int8 op has a bias to correct")
                row = self._compared(BIAS, plan, changed, told, start) if count else none
            self._biases[plan.key] = (changed if row.kept else plan, row)
        return self._biases[plan.key][0]

    def floats(self, name: str, plan: Plan, again: Callable[[Model], Plan]) -> Model | None:
        """The float model after a repair of it, if its quantized form is nearer to the original.

        Args:
            name: `equalize` or `smooth`.
            plan: of the model as it is.
            again: calibrates a changed model and plans it.
        """
        start = time.perf_counter()
        try:
            changed, count, told = self._changed(name)
            if not count:
                self._rows[name] = Repair(name=name, kept=False, told=told, seconds=time.perf_counter() - start)
                return None
            before, after = self._of(plan), self.held.levels(inserted(changed, self.context, again(changed)))
        except ModelError as error:
            self._rows[name] = Repair(name=name, kept=False, told=str(error), seconds=time.perf_counter() - start)
            return None
        self._rows[name] = self._row(name, before, after, told, start)
        if not self._rows[name].kept:
            return None
        return changed

    def moved(self, model: Model) -> None:
        """The float model is another one from here on; what is near is still judged by the first."""
        self.model = model
        self._levels.clear()
        self._biases.clear()
        self._correction = self._correct()

    def rows(self, plan: Plan) -> tuple[Repair, ...]:
        """What became of the repairs, in the order they were made.

        Args:
            plan: that is written, without corrected biases.
        """
        if self.why_not:
            return tuple(Repair(name=n, kept=False, told=self.why_not) for n in self.repairing.names)
        found = dict(self._rows)
        if plan.key in self._biases:
            found[BIAS] = self._biases[plan.key][1]
        asked = [n for n in REPAIRS if n in self.repairing.names or n in found]
        return tuple(found.get(n, Repair(name=n, kept=False, told=NOTHING)) for n in asked)

    def _correct(self) -> Correction:
        return Correction(
            self.model, self._fit, lambda model, plan: inserted(model, self.context, plan),
            int32=self.context.target.bias == "int32", threads=self.threads,
        )  # fmt: skip

    def _changed(self, name: str) -> tuple[Model, int, str]:
        """The changed model, how many changes were made, and both in words."""
        if name == EQUALIZE:
            changed = self.model.copy()
            count = registry.load(registry.PASSES, EQUALIZE_PASS)().run(changed.graph, self.context).rewrites
            return changed, count, f"{count} tensors scaled" if count else "no two layers are out of balance"
        changed, records = smooth(self.model, self._fit, threads=self.threads)
        count = sum(record.alpha is not None for record in records)
        if not records:
            return changed, 0, "no tensor could hand its ranges to the weights at no cost"
        return changed, count, f"{count} of {len(records)} tensors smoothed"

    def _compared(self, name: str, plan: Plan, changed: Plan, told: str, start: float) -> Repair:
        try:
            return self._row(name, self._of(plan), self._of(changed), told, start)
        except ModelError as error:
            return Repair(name=name, kept=False, told=str(error), seconds=time.perf_counter() - start)

    def _row(self, name: str, before: Levels, after: Levels, told: str, start: float) -> Repair:
        why = verdict(before, after)
        return Repair(
            name=name, kept=not why, told=why or told, before_db=float(worst_part(before).mean()),
            after_db=float(worst_part(after).mean()), samples=len(before), seconds=time.perf_counter() - start,
        )  # fmt: skip

    def _of(self, plan: Plan) -> Levels:
        if plan.key not in self._levels:
            self._levels[plan.key] = self.held.levels(inserted(self.model, self.context, plan))
        return self._levels[plan.key]


def note(rows: Sequence[Repair]) -> list[str]:
    """A sentence for the user, if a repair was kept."""
    kept = [f"{r.name} {r.before_db:.1f} to {r.after_db:.1f} dB" for r in rows if r.kept]
    if not kept:
        return []
    return [f"Repairs that pay (mean SQNR on {rows[-1].samples} held-out calibration samples): {', '.join(kept)}."]
