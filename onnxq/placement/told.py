"""What placement found out, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from onnxq.placement.result import NEVER_SLOWER, Form

OFF = 0.1
"""Share by which a prediction may miss before the report says so."""

_SAID = 0.005


def told(forms: Sequence[Form], at: int, counts: Sequence[int], *, unknown: float | None) -> list[str]:
    """Sentences for the user.

    Args:
        forms: all that was made, the float model first.
        at: the one that is taken.
        counts: numbers of threads.
        unknown: share of the time that is estimated where costs came from a file; None: all was measured here.
    """
    chosen = forms[at]
    if unknown is not None:
        said = ", ".join(f"{f.name} {f.timing.seconds * 1e3:.3f} ms" for f in forms)
        share = f" ({unknown * 100:.0f} % of the time is estimated)" if unknown >= _SAID else ""
        return [f"Placement by the cost file chose {chosen.name}: {said}{share}; nothing was timed here."]
    each = [
        f"{a.seconds * 1e3:.3f} ms with {counted(n)} (float {b.seconds * 1e3:.3f} ms)"
        for n, a, b in zip(counts, chosen.timings, forms[0].timings, strict=True)
    ]
    notes = [f"Placement by measured cost chose {chosen.name} of {len(forms)} forms: {', '.join(each)}."]
    fastest = max(forms[1:], key=lambda f: f.gain, default=chosen)
    if fastest.slowest < NEVER_SLOWER and fastest.gain > chosen.gain:
        worst = min(range(len(counts)), key=lambda i: fastest.timings[i].ratio)
        lost = (1 - fastest.timings[worst].ratio) * 100
        notes.append(
            f"The form {fastest.name} would be {fastest.gain / chosen.gain:.2f} times as fast over all, but is "
            f"{lost:.1f} % slower than the file with {counted(counts[worst])}: give --threads to place for the number "
            "that the model will run with."
        )
    if abs(chosen.predicted / chosen.timing.seconds - 1) > OFF:  # NaN: nothing was predicted
        notes.append(
            f"The costs predicted {chosen.predicted * 1e3:.3f} ms for it, over {OFF * 100:.0f} % from what was "
            "measured: read the costs of the units with care."
        )
    return notes


def counted(count: int) -> str:
    """Threads, in words."""
    return "1 thread" if count == 1 else f"{count} threads"
