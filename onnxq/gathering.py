"""What the planner looks at: statistics or ranges of the normalised model, collected or given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.data.sample import Dataset, Sample
from onnxq.errors import CalibrationError, DataError, ModelError, UnknownNameError, did_you_mean
from onnxq.ir import walk
from onnxq.ir.hash import model_hash
from onnxq.ir.model import Model
from onnxq.options import Options, Timing
from onnxq.pipeline.normalised import check_normalised, coarseness, is_random
from onnxq.pipeline.prepare import annotate, made_up_inputs, run_literally
from onnxq.plan.planner import wanted
from onnxq.plan.reasons import matches
from onnxq.progress import Progress, Silent
from onnxq.stats.engine import Outcome, calibrate
from onnxq.stats.probe import observe
from onnxq.stats.ranges import RangeTable
from onnxq.stats.statistics import Statistics
from onnxq.stats.taps import mask_tensors

FIRST = 2
"""Samples on which shapes are observed; on the first of them, runs are compared."""


class Gathering:
    """Statistics for the graph as the passes left it, which is checked first.

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
        self.outcome: Outcome | None = None
        self.check = True  # bisect looks for the pass that does not pass this check
        self.notes: list[str] = []

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
                self.outcome = self.collect(self.model)
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

    def collect(self, model: Model) -> Outcome:
        """Statistics of the tensors of a model that a plan may ask for."""
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
