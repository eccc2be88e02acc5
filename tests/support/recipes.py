"""hypothesis strategies for the recipes of random graphs, one per family of generators.

hypothesis likes to repeat a part of an example within it: good for finding faults, bad for counting how often each of
many passes meets what it rewrites. So a recipe of the families that are counted is one draw, of bytes that are read as
choices; hypothesis shrinks them to fewer and to zeros, the first choices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import random_float
import random_graphs
import random_integer
import random_qdq
from hypothesis import strategies as st

BACK = (0, 0, 0, 1, 2)
"""How far back an operand lies: mostly it is the last tensor."""
_WIDTH = 2
"""Bytes per choice."""


class Choices:
    """Bytes as choices, from front to back; behind the last one every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def below(self, count: int) -> int:
        """0 to count - 1, as likely each; 0 for bytes of 0."""
        value, self.data = int.from_bytes(self.data[:_WIDTH].ljust(_WIDTH, b"\0")), self.data[_WIDTH:]
        return value * count >> 8 * _WIDTH

    def one_of(self, values: tuple[int, ...]) -> int:
        """One of these."""
        return values[self.below(len(values))]


def _recipes(
    recipe: Callable[..., Any], head: Callable[[Choices], tuple[Any, ...]], step: Callable[[Choices], Any], steps: range
) -> st.SearchStrategy[Any]:
    """Recipes of that many steps.

    Args:
        recipe: of the steps and of what `head` chooses.
        head, step: make so many choices each time: as many as bytes of 0 are asked for.
    """
    first, each = (_WIDTH * _asked(one) for one in (head, step))

    def read(data: bytes) -> Any:
        choices = Choices(data)
        rest = head(choices)
        return recipe(tuple(step(choices) for _ in range((len(data) - first) // each)), *rest)

    return st.binary(min_size=first + each * steps[0], max_size=first + each * (steps[-1] + 1) - 1).map(read)


def _asked(make: Callable[[Choices], Any]) -> int:
    class Counting(Choices):
        count = 0

        def below(self, count: int) -> int:
            self.count += 1
            return super().below(count)

    choices = Counting(b"")
    make(choices)
    return choices.count


FLOAT = _recipes(
    random_float.Recipe,
    lambda c: (1 + c.below(2), bool(c.below(2))),
    lambda c: random_float.Step(
        c.below(len(random_float.FRAGMENTS)), c.one_of(BACK), c.below(3), c.below(random_float.PLACES)
    ),
    range(3, 9),
)
QDQ = _recipes(
    random_qdq.Recipe,
    lambda c: (1 + c.below(2), bool(c.below(2))),
    lambda c: random_qdq.Step(
        c.below(len(random_qdq.KINDS)),
        c.below(3),
        c.below(4),
        c.below(len(random_qdq.PARAMETERS)),
        c.below(random_qdq.PLACES),
    ),
    range(3, 11),
)
INTEGER = _recipes(
    random_integer.Recipe,
    lambda c: (c.below(5) < 3, c.below(3) == 0),
    lambda c: random_integer.Step(
        c.below(len(random_integer.BLOCKS)),
        c.one_of(BACK),
        c.below(3),
        c.below(random_integer.FORMS),
        max(0, c.below(2 * random_integer.ENDS) - random_integer.ENDS),
    ),
    range(3, 7),
)
NETWORKS = st.builds(
    random_graphs.Recipe,
    st.lists(
        st.builds(
            random_graphs.Step,
            st.one_of(st.integers(0, random_graphs.COMMON - 1), st.integers(0, len(random_graphs.OPS) - 1)),
            st.sampled_from((0, 0, 0, 0, 1, 2)),
            st.sampled_from((1, 0, 2, 3, 5)),
            st.integers(0, 31),
        ),
        min_size=2,
        max_size=12,
    ).map(tuple),
    st.sampled_from(sorted(random_graphs.IR)[::-1]),
    st.booleans(),
    st.booleans(),
    st.integers(-1, 5),
)
"""Choice by choice, since there is one pass to count."""
