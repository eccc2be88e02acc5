"""What a pass is: a frozen dataclass whose fields are its settings, and `run(graph, context) -> Report`.

    @dataclass(frozen=True, kw_only=True)
    class EliminateIdentity(Pass):
        '''One-line summary shown by `onnxq passes`. ...'''
        takes: ClassVar[Stage] = Stage.FLOAT
        gives: ClassVar[Stage] = Stage.FLOAT

        def run(self, graph: gs.Graph, context: Context) -> Report: ...

A pass edits the graph in place, walks If/Loop/Scan bodies itself (`onnxq.ir.walk.graphs`), never renames graph inputs
or outputs,
and reports each rewrite and each refusal.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxq.plan.plan import Plan
    from onnxq.targets.target import Target


class Stage(enum.Enum):
    """What a graph may contain. A pass takes one stage and gives one; the manager checks that the chain fits."""

    FLOAT = "float"
    """No Q/DQ that we inserted."""
    QDQ = "qdq"
    """Q/DQ, as the plan says or wherever propagation moved them: passes that move, merge, cancel or split Q/DQ take and
    give this stage, so that they go in any order and as often as a pipeline likes."""
    PLACED = "placed"
    """Q/DQ in the form that the integer operators of a target want: propagation is over, fusion follows."""
    FUSED = "fused"
    """Integer operators."""


QUANTIZED = (Stage.QDQ, Stage.PLACED, Stage.FUSED)
"""The stages of quantized graphs: what passes take, besides float graphs, that mind their own business in any."""


@dataclass(frozen=True)
class Refusal:
    """A rewrite that was not made: on which node, and why, in words for a user."""

    node: str
    reason: str


@dataclass
class Report:
    """What a pass did.

    Attributes:
        rewrites: number of rewrites made; 0 means that the graph is unchanged (the manager checks).
        refusals: sites that matched but were guarded off, with the reason.
        notes: sentences for the user (what was changed that he may notice).
        renamed: new name -> old name of nodes, so that later reports speak of the user's names.
    """

    rewrites: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)

    def refuse(self, node: gs.Node | str, reason: str) -> None:
        """Record one refusal."""
        self.refusals.append(Refusal(node if isinstance(node, str) else node.name, reason))

    def tell(self, node: gs.Node, reason: str | None) -> None:
        """Record one rewrite, or with a reason one refusal."""
        if reason:
            self.refuse(node, reason)
        else:
            self.rewrites += 1

    @property
    def reasons(self) -> Counter[str]:
        """Refusals counted by reason."""
        return Counter(r.reason for r in self.refusals)


@dataclass(kw_only=True)
class Context:
    """What a pass may ask for. Values that cost something are made on demand by the driver's providers.

    Attributes:
        target: the target as data.
        plan: present for passes with `needs = {"plan"}`.
        keep_float: the user's patterns of nodes to keep in float.
        keep_overridable: leave initializers that are also graph inputs overridable (and their consumers float).
        observed_shapes: tensor -> shape seen while calibrating (symbolic where samples differ), for models without
            shape inference.
        providers: need -> function(graph, context) that fills the attribute of that name.
    """

    target: Target
    plan: Plan | None = None
    keep_float: tuple[str, ...] = ()
    keep_overridable: bool = False
    observed_shapes: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    providers: Mapping[str, Callable[[gs.Graph, Context], None]] = field(default_factory=dict)


class Pass:
    """Base of all passes. Subclasses are frozen, keyword-only dataclasses."""

    takes: ClassVar[Stage] = Stage.FLOAT
    also_takes: ClassVar[tuple[Stage, ...]] = ()
    """Further stages that it takes. A pass that gives what it takes leaves a graph in one of these where it was."""
    gives: ClassVar[Stage] = Stage.FLOAT
    needs: ClassVar[frozenset[str]] = frozenset()
    exact: ClassVar[bool] = True
    """It keeps what the model computes: on float graphs up to the order of sums, from the stage QDQ on bit for bit.
    `--verify-each` holds it to that."""

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite `graph` in place.

        Raises:
            PassError: the pass cannot keep its promise.
        """
        raise NotImplementedError

    @classmethod
    def stages(cls) -> tuple[Stage, ...]:
        """All stages that it takes."""
        return (cls.takes, *cls.also_takes)

    @classmethod
    def behind(cls, stage: Stage) -> Stage:
        """The stage of a graph that came in `stage`."""
        return stage if cls.takes is cls.gives else cls.gives

    @classmethod
    def summary(cls) -> str:
        """The first paragraph of the class docstring, as one line."""
        return " ".join((cls.__doc__ or "").strip().partition("\n\n")[0].split())


PassFactory = Callable[..., Any]
