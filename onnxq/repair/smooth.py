"""Scale migration with samples: how much of each tensor's range goes into the weights is searched per tensor.

    smoothed, sites = smooth(model, (sample.inputs for sample in samples), threads=1)

`smooth` takes a normalised float model and gives a changed copy, equal to it up to float rounding, and one record per
site. Run it before statistics are collected: they are void afterwards. The graph is edited by the pass
`smooth-activations`, which this module gives the scales through its setting of that name, and which tells the sites.
Without samples that pass may run alone, where norms tell what their channels reach; `equalize-layers` always does.

What is searched is the error of single products, with each tensor rounded by its least and greatest value. Whether the
model gains is for the caller to see on held-out samples: noise of weights, unlike that of data, is the same for every
token and does not average out behind the product.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxq import registry
from onnxq.data.stream import spread
from onnxq.encoding import PerChannel, Scheme
from onnxq.ir.model import Model
from onnxq.numerics import affine, dequantize, quantize
from onnxq.pipeline.base import Context
from onnxq.repair.channels import Channels, observe_channels
from onnxq.repair.scales import Site, Vector, migration, rows
from onnxq.targets.target import load_target

PASS = "smooth-activations"

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Exponents that are tried."""

GAIN = 0.7
"""Part of the error that must not be exceeded, else the tensor stays as it is: what gains less at its products was not
seen to gain at the outputs (docs/repair.md)."""

BRANCH = 0.5
"""The same where a Mul is needed, which costs time."""

COLUMNS = 512
"""Columns of each weight, evenly spread, whose products are computed: rounding is alike in all, and the search must not
take minutes where weights have thousands."""

_ACTIVATION = Scheme(type="uint8", symmetric=False)
_WEIGHT = Scheme(type="int8", symmetric=True, granularity=PerChannel(axis=1))


@dataclass(frozen=True, kw_only=True)
class Smoothed:
    """What became of one site.

    Attributes:
        tensor: that the products read.
        source: node that takes up the scales: norm, Mul or linear op; with `branch` what makes the tensor.
        products: nodes that read the tensor.
        alpha: that was taken; None: left as it was.
        before, after: error energy of the quantized products over that of their results, without and with the scales
            (mean over the products): int8 weights per column, uint8 data by least and greatest value.
        branch: a Mul was put in front of the products.
    """

    tensor: str
    source: str
    products: tuple[str, ...]
    alpha: float | None
    before: float
    after: float
    branch: bool = False


def smooth(
    model: Model,
    samples: Iterable[Mapping[str, NDArray[Any]]],
    *,
    threads: int | None = None,
    branches: Literal["refuse", "mul"] = "mul",
    alphas: Sequence[float] = ALPHAS,
) -> tuple[Model, tuple[Smoothed, ...]]:
    """Migrate scales where that lessens the error of quantized products.

    Args:
        model: normalised, float; not changed.
        samples: inputs, read once.
        threads: of ONNX Runtime; None is its default.
        branches: of the pass. `mul`: tensors that are read elsewhere, too, or that nothing can divide, get a Mul in
            front of their products where that halves their error; `refuse`: they stay.
        alphas: exponents to try, 0 to 1.

    Returns:
        a copy with the scales moved, and a record per site in the order of the graph; without any site the model
        itself, and no sample is read.

    Raises:
        CalibrationError: see `observe_channels`.
        ModelError: ONNX Runtime cannot load the model.
    """
    pass_class = registry.load(registry.PASSES, PASS)
    sites: tuple[Site, ...] = pass_class(branches=branches).sites(model.graph)
    if not sites:
        return model, ()
    seen = observe_channels(model, {s.tensor: s.weights[0].shape[0] for s in sites}, samples, threads=threads)
    scales: dict[str, Vector] = {}
    records = []
    for site in sites:
        record, s = _search(site, seen[site.tensor], alphas)
        records.append(record)
        if s is not None:
            scales[site.tensor] = s
    changed = model.copy()
    pass_class(branches=branches, scales=scales).run(changed.graph, Context(target=load_target("cpu")))
    return changed, tuple(records)


def _search(site: Site, seen: Channels, alphas: Sequence[float]) -> tuple[Smoothed, Vector | None]:
    some = [w[:, spread(w.shape[1], COLUMNS)] for w in site.weights]
    exact = [seen.rows @ w for w in some]
    reach = rows(site.weights)
    before = product_error(seen, some, exact, np.ones(len(reach)))
    best, alpha, chosen = before * (BRANCH if site.branch else GAIN), None, None
    for candidate in alphas:
        s = migration(seen.amax, reach, candidate)
        error = product_error(seen, some, exact, s)
        if error < best:
            best, alpha, chosen = error, candidate, s
    return Smoothed(
        tensor=site.tensor,
        source=site.source,
        products=site.products,
        alpha=alpha,
        before=before,
        after=before if alpha is None else best,
        branch=site.branch and alpha is not None,
    ), chosen


def product_error(seen: Channels, weights: Sequence[NDArray[Any]], exact: Sequence[NDArray[Any]], s: Vector) -> float:
    """Error energy of the quantized products over the energy of the results; the mean over the products.

    Args:
        seen: of the data, before scaling.
        weights: [K, N] each, before scaling.
        exact: rows @ weight of each.
        s: of the channels, [K].
    """
    encoding = affine((seen.low / s).min(), (seen.high / s).max(), _ACTIVATION)
    data = np.asarray(seen.rows / s, np.float32)
    rounded = dequantize(quantize(data, encoding), encoding)
    errors = []
    for weight, wanted in zip(weights, exact, strict=True):
        w = np.asarray(weight * s[:, None], np.float32)
        amax = np.abs(w).max(axis=0, initial=0)
        scale = affine(-amax, amax, _WEIGHT)
        noise = rounded @ dequantize(quantize(w, scale), scale) - wanted
        errors.append(float((noise**2).sum()) / max(float((wanted**2).sum()), 1e-30))
    return float(np.mean(errors))
