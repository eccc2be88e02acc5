"""A target as data: which ops have integer kernels there, in which form. Planner, passes and reports read it; none
knows a backend.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from onnxq import registry
from onnxq.encoding import Kind as FloatKind
from onnxq.encoding import Scheme
from onnxq.errors import ConfigError, UsageError, did_you_mean
from onnxq.targets.hardware import Cpu, detect

Kind = Literal["weighted", "compute", "movement"]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One op with an integer kernel.

    Attributes:
        kind: weighted (constant weight), compute (every operand quantized, own output encoding) or movement (one
            encoding through).
        output: `required` if the kernel exists only with a quantized output, else `optional`.
        after: kernels exist, but are slower than float unless an integer op of these types feeds them.
        max_range_ratio: greatest ratio of the widest to the narrowest operand range that may be joined in one encoding.
        small_operands: a float operand this many times smaller than the largest may be quantized for the op's sake.
        min_operand_sqnr: least SQNR (dB) that each operand keeps in the scale of the result.
        volume_channels: over three axes and more, with fewer input channels a group (of a depthwise one: in all), the
            integer convolution is slower than the float one; a rule of thumb, below measured costs.
        measured: which of the two is faster differs from machine to machine: float, unless measured costs speak.
    """

    kind: Kind
    output: Literal["required", "optional"] = "required"
    after: tuple[str, ...] = ()
    max_range_ratio: float | None = None
    small_operands: float | None = None
    min_operand_sqnr: float | None = None
    volume_channels: int | None = None
    measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What 8 bits must leave of tensors in known traps (`onnxq.plan.traps`); None: not looked at.

    Attributes:
        part_sqnr: dB of what Split, Slice or Gather take out of a tensor, in the scale of the whole.
        exponent_step: greatest step of what Exp and Softmax read.
        body_sqnr: dB of all but the largest hundredth of the values that a normalization or the caller reads.
        gain_sqnr: dB of the result of a weighted op, behind the rounding of its data alone.
    """

    part_sqnr: float | None = None
    exponent_step: float | None = None
    body_sqnr: float | None = None
    gain_sqnr: float | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """Everything that is decided by where the model will run.

    Attributes:
        name: registered name.
        opset, ir_version: what is written.
        activation, weight: schemes of activations and constant weights.
        bias: `int32` (DequantizeLinear of int32 with scale sx*sw) or `float`.
        outputs: quantize outputs, too (an integer kernel needs it); False places Q on the inputs of weighted ops only.
        residual: quantize the shortcut operand of a residual Add (only with outputs=False).
        absorb: activations that vanish into the output Q when its range makes them redundant.
        kernels: op -> kernel.
        no_kernel: op -> why there is none, where there is more to say than "no integer kernel".
        limits: of known traps.
        min_factor_sqnr: least SQNR (dB, relative per element) that the constant factors of a Mul must keep in 8 bits.
        looked_through: activations behind an op with optional 8-bit output through which the runtime looks for a Q;
            if their only reader is something else, it does not fuse the op.
        pushed_through: ops that the runtime pushes a DQ through by itself, and fails if a body of If reads behind them.
        protect_float_weights: keep the runtime from quantizing the float weights of an op between DQ and Q by itself.
        float_types: in which ops that stay float may compute there.
        float_type: in which they do.
        half_headroom: in float16, by how much values may exceed what calibration saw.
        reduce_range: weights use 7 bits.
        rules: names of the structural rules (`onnxq.plan.check`) that a file for this target keeps.
        bodies: it runs int8 inside the bodies of If, Loop and Scan; else what stands there stays float.
        kinds: how ops that are float at their borders can compute with integers (`onnxq.plan.kinds`).
        max_opset, max_ir_version: greatest versions that it reads; None: not checked.
        note: sentence about a choice made for this machine.
    """

    name: str
    opset: int
    ir_version: int
    activation: Scheme
    weight: Scheme
    bias: Literal["int32", "float"]
    outputs: bool
    residual: bool
    absorb: tuple[str, ...]
    kernels: Mapping[str, Kernel]
    no_kernel: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    min_factor_sqnr: float = 30.0
    looked_through: tuple[str, ...] = ()
    pushed_through: tuple[str, ...] = ()
    protect_float_weights: bool = False
    bodies: bool = True
    kinds: tuple[FloatKind, ...] = ()
    float_types: tuple[str, ...] = ("float32",)
    float_type: str = "float32"
    half_headroom: float = 4.0
    reduce_range: bool = False
    rules: tuple[str, ...] = ()
    max_opset: int | None = None
    max_ir_version: int | None = None
    note: str = ""


def load_target(
    name: str, *, reduce_range: bool | None = None, float_type: str | None = None, cpu: Cpu | None = None
) -> Target:
    """A registered target.

    Args:
        name: `cpu`, `tensorrt` or one of a plugin.
        reduce_range: force 7-bit (True) or 8-bit (False) weights; None decides by the CPU, for targets that say `auto`.
        float_type: in which ops that stay float compute; None: the file's default.
        cpu: the CPU to decide by; default this machine's.

    Raises:
        UnknownNameError: nobody registered it.
        ConfigError: its file does not follow the schema.
        UsageError: floats are no such type there.
    """
    path = registry.resource(registry.TARGETS, name)
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {f.name for f in dataclasses.fields(Target)}
    for key in raw:
        if key not in known:
            raise ConfigError(f'{path}: unknown key "{key}": {did_you_mean(key, known)}')
    wish = raw.pop("reduce_range", False)
    if reduce_range is None:
        note = ""
        if wish == "auto":
            machine = cpu or detect()
            reduced = machine.saturates
            if reduced:
                note = f"weights use 7 bits: {machine.reason}"
        else:
            reduced = bool(wish)
    else:
        reduced = reduce_range
        note = "weights use 7 bits, as asked" if reduce_range else ""
    types, usual = tuple(raw.pop("float_types", ("float32",))), raw.pop("float_type", "float32")
    if float_type is not None and float_type not in types:
        raise UsageError(
            f"float_type {float_type}: what stays float on the target {name} computes in {' or '.join(types)}"
        )
    try:
        weight = Scheme(**raw.pop("weight"), reduce_range=reduced)
        kernels = {op: _kernel(op, body, path) for op, body in raw.pop("kernels").items()}
        return Target(
            activation=Scheme(**raw.pop("activation")),
            weight=weight,
            kernels=kernels,
            limits=Limits(**raw.pop("limits", {})),
            absorb=tuple(raw.pop("absorb", ())),
            rules=tuple(raw.pop("rules", ())),
            looked_through=tuple(raw.pop("looked_through", ())),
            pushed_through=tuple(raw.pop("pushed_through", ())),
            kinds=tuple(raw.pop("kinds", ())),
            float_types=types,
            float_type=float_type or usual,
            reduce_range=reduced,
            note=note,
            **raw,
        )
    except (TypeError, KeyError) as error:
        raise ConfigError(f"{path}: the target {name} does not follow the schema: {error}") from error


def _kernel(op: str, body: Mapping[str, Any], path: Path) -> Kernel:
    known = {f.name for f in dataclasses.fields(Kernel)}
    for key in body:
        if key not in known:
            raise ConfigError(f'{path}: kernel {op}: unknown key "{key}": {did_you_mean(key, known)}')
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in body.items()}
    return Kernel(**values)
