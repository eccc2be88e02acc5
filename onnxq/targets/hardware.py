"""What the CPU's integer instructions do to u8 x s8 products.

`vpmaddubsw` (AVX2, AVX512BW) adds two u8 x s8 products in a saturating int16: 255 * 127 * 2 does not fit. VNNI and
the ARM dot product accumulate
in int32. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, VPMADDUBSW and VPDPBUSD; MLAS
dispatches on the same features.
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass

EXACT = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "asimddp", "i8mm", "amx_int8"})
"""Features whose 8-bit dot product accumulates in int32."""


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """A CPU as archspec names it."""

    name: str
    family: str
    features: frozenset[str]

    @property
    def saturates(self) -> bool:
        """True where pairs of u8 x s8 products saturate in int16."""
        return self.family == "x86_64" and not (self.features & EXACT)

    @property
    def channel_block(self) -> int:
        """Channels to a block of ONNX Runtime's layout for float convolutions (NCHWc, MLAS); 0: not known."""
        return 0 if self.family != "x86_64" else 16 if "avx512f" in self.features else 8

    @property
    def reason(self) -> str:
        """One phrase: which feature decides."""
        found = sorted(self.features & EXACT)
        if found:
            return f"{self.name} has {found[0]}, its u8 x s8 products accumulate in int32"
        if self.saturates:
            return f"{self.name} has neither AVX512-VNNI nor AVX-VNNI, pairs of u8 x s8 products saturate in int16"
        return f"{self.name} multiplies 8-bit integers in wider registers"


@functools.cache
def detect() -> Cpu:
    """This machine's CPU."""
    import archspec.cpu

    host = archspec.cpu.host()
    # the flags that the kernel reports are what counts: a hypervisor may hide or add some
    info = archspec.cpu.detect.detected_info()
    features = frozenset(host.features) | frozenset(getattr(info, "features", frozenset()))
    return Cpu(name=host.name, family=str(host.family) or platform.machine(), features=features)
