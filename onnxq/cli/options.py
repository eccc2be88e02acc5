"""Options that several commands share, and how commands read them. What is not given is None: the job decides."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxq.cli.values import read_by, read_number, read_numbers, read_resize, read_size
from onnxq.errors import UsageError

if TYPE_CHECKING:
    from onnxq.config.job import Job
    from onnxq.workbench.setup import Request

F = TypeVar("F", bound=Callable[..., Any])


def complete(group: str, *more: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Shell completion by the names that packages registered in a group of entry points, and `more`."""

    def names(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
        from onnxq import registry

        return [name for name in (*more, *registry.names(group)) if name.startswith(typed)]

    return names


class UserPath(click.Path):
    """A path, with `~` as the home folder (a shell expands it only at the start of a word)."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """See click."""
        return Path(os.fsdecode(super().convert(value, param, ctx))).expanduser()


def preprocess_options(function: F) -> F:
    """The fields of `onnxq.data.Preprocess` as options; a command takes them as `**preprocess`."""
    for option in reversed(
        (
            click.option("--color", metavar="rgb|bgr|gray", help="Order of the channels."),
            click.option(
                "--resize",
                metavar="SIZE",
                callback=read_by(read_resize),
                help="256: the shorter side; 224x320: height x width; 48x or x320: one side, the other follows.",
            ),
            click.option(
                "--crop", metavar="SIZE", callback=read_by(read_size), help="From the centre: 224 or 224x320."
            ),
            click.option("--interpolation", metavar="nearest|bilinear|bicubic", help="How to resize."),
            click.option(
                "--scale",
                metavar="X",
                callback=read_by(read_number),
                help="Factor on the values 0 to 255, like 1/255.",
            ),
            click.option(
                "--mean",
                metavar="X,...",
                callback=read_by(read_numbers),
                help="Taken off after scaling, one or one per channel.",
            ),
            click.option(
                "--std",
                metavar="X,...",
                callback=read_by(read_numbers),
                help="Divided by after that, one or one per channel.",
            ),
            click.option("--layout", metavar="nchw|nhwc", help="Where the channels are, if the model does not tell."),
            click.option("--max-length", type=int, metavar="N", help="Tokens of a text at most."),
        )
    ):
        function = option(function)
    return function


config_option = click.option("--config", type=UserPath(), metavar="FILE", help="A job file; options stand above it.")
metric_option = click.option(
    "--metric",
    metavar="NAME",
    shell_complete=complete("onnxq.metrics"),
    help="Labelled score: a registered name, module:Class or file.py:Class.",
)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Threads of ONNX Runtime.  [default: the cores]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
report_option = click.option(
    "--report", type=UserPath(), metavar="FILE", help="Also write the report: a page if FILE ends in .html, else JSON."
)
skip_bad_option = click.option(
    "--skip-bad", is_flag=True, default=None, help="Leave damaged files out, and say which, instead of stopping."
)


def comparison_options(function: F) -> F:
    """What `validate` and `gate` take besides the two models; `comparison_job` reads them."""
    for option in reversed(
        (
            click.option(
                "--data",
                metavar="DATA",
                help="Samples, labelled if you have labels: a folder, a file, or module:function.",
            ),
            metric_option,
            config_option,
            click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Use at most so many samples."),
            skip_bad_option,
            threads_option,
            preprocess_options,
            json_option,
            report_option,
        )
    ):
        function = option(function)
    return function


def comparison_job(model: Path, values: Mapping[str, Any], start: Job | None = None, **more: Any) -> Job:
    """The values of `comparison_options` as a job for `model`, put over `start` if the job file is read already; what
    is left over are preprocessing settings.

    Raises:
        ConfigError: the job file does not follow the schema.
    """
    rest = dict(values)
    job = start or start_job(rest.pop("config", None), model)
    return job.with_overrides(
        model=model,
        eval=rest.pop("data"),
        metric=rest.pop("metric"),
        eval_limit=rest.pop("samples"),
        skip_bad=rest.pop("skip_bad"),
        threads=rest.pop("threads"),
        preprocess=given(rest),
        **more,
    )


def engine_options(function: F) -> F:
    """How statistics are come by, whatever they say: a command takes `cache`, `workers` and `cluster`."""
    for option in reversed(
        (
            click.option(
                "--cache/--no-cache", default=None, help="Look into the cache, and store in it.  [default: do]"
            ),
            click.option(
                "--workers", type=click.IntRange(min=1), metavar="N", help="Processes to calibrate with.  [default: 1]"
            ),
            click.option("--cluster", metavar="ADDRESS", help="A Dask scheduler, tcp://host:8786, to calibrate on."),
        )
    ):
        function = option(function)
    return function


def plan_options(*, target: str = "cpu", method: str = "Calibration method.  [default: auto]") -> Callable[[F], F]:
    """What decides about a plan: a command takes `target`, `method`, `keep_float` and `calib_samples`.

    Args:
        target: default, in words.
        method: help of --method.
    """

    def add(function: F) -> F:
        for option in reversed(
            (
                click.option(
                    "--target",
                    metavar="NAME",
                    shell_complete=complete("onnxq.targets"),
                    help=f"What the model is to run on.  [default: {target}]",
                ),
                click.option(
                    "--method", metavar="NAME", shell_complete=complete("onnxq.calibrators", "auto"), help=method
                ),
                click.option(
                    "--keep-float",
                    multiple=True,
                    metavar="PATTERN",
                    help="Shell pattern of node names, op types or outputs; repeatable.",
                ),
                click.option(
                    "--calib-samples",
                    type=click.IntRange(min=1),
                    metavar="N",
                    help="Calibrate with at most so many samples.",
                ),
            )
        ):
            function = option(function)
        return function

    return add


def means_options(function: F) -> F:
    """What `quantize`, `calibrate` and `sensitivity` work with; `planning_job` reads it, and `plan_options`."""
    for option in (preprocess_options, threads_option, skip_bad_option, engine_options, config_option):
        function = option(function)
    return function


def planning_job(model: Path | None, values: Mapping[str, Any], **more: Any) -> Job:
    """The values of `plan_options` and `means_options` as a job for `model`, put over the job file; what is left over
    are preprocessing settings.

    Raises:
        UsageError: neither a model nor a job file is given.
        ConfigError: the job file does not follow the schema.
    """
    rest = dict(values)
    asked = {
        name: rest.pop(name) for name in ("target", "method", "keep_float", "threads", "cache", "workers", "cluster")
    }
    job = start_job(rest.pop("config"), model)
    return job.with_overrides(
        model=model,
        calib_limit=rest.pop("calib_samples"),
        skip_bad=rest.pop("skip_bad"),
        preprocess=given(rest),
        **asked,
        **more,
    )


def placement_options(function: F) -> F:
    """Where int8 is used: a command takes `placement`, `effort`, `costs`, `optimize`, `repair` and those
    of the budget."""
    for option in reversed(
        (
            click.option(
                "--placement",
                type=click.Choice(["cost", "rules"]),
                help="int8 where it is faster by measurement, or wherever a kernel exists.  [default: cost]",
            ),
            click.option(
                "--effort",
                type=click.Choice(["fast", "default", "max"]),
                help="How much to measure.  [default: default]",
            ),
            click.option(
                "--costs", type=UserPath(), metavar="FILE", help="Costs of the machine where the model will run."
            ),
            click.option(
                "--max-drop",
                metavar="X",
                help="Of the metric: 0.01, or 0.5% of the float score.  [default: half a point]",
            ),
            click.option(
                "--min-sqnr",
                "min_sqnr_db",
                type=float,
                metavar="DB",
                help="Of the outputs, where there are no labels.  [default: 10]",
            ),
            click.option(
                "--keep-best", is_flag=True, default=None, help="Write what came nearest to a limit that cannot be met."
            ),
            click.option("--optimize", type=click.Choice(["speed", "size"]), help="What counts.  [default: speed]"),
            click.option(
                "--repair",
                metavar="NAME,...",
                help="What wins accuracy back: weights, bias, equalize, smooth; auto or none.  [default: auto]",
            ),
        )
    ):
        function = option(function)
    return function


def pipeline_options(function: F) -> F:
    """What `run`, `explain` and `bisect` take besides their own options; `pipeline_request` reads them."""
    for option in reversed(
        (
            click.option(
                "--calib", metavar="DATA", help="Samples to calibrate with: a folder, a file, or module:function."
            ),
            plan_options(target="the pipeline's", method="Calibration method.  [default: the pipeline's]"),
            click.option(
                "--keep-overridable", is_flag=True, help="Keep initializers that are inputs, too, and what reads them."
            ),
            skip_bad_option,
            threads_option,
            preprocess_options,
        )
    ):
        function = option(function)
    return function


def pipeline_request(pipeline: str, model: Path, values: dict[str, Any]) -> Request:
    """The values of `pipeline_options` as a request; what is left over are preprocessing settings."""
    from onnxq.pipeline.calibration import CalibrationSection
    from onnxq.workbench.setup import Request

    values = dict(values)
    calibration = CalibrationSection(
        method=values.pop("method"), limit=values.pop("calib_samples"), threads=values.pop("threads")
    )
    return Request(
        pipeline=pipeline,
        model=model,
        calib=values.pop("calib"),
        target=values.pop("target"),
        calibration=calibration,
        keep_float=values.pop("keep_float"),
        keep_overridable=values.pop("keep_overridable"),
        skip_bad=bool(values.pop("skip_bad")),
        preprocess=given(values),
    )


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were used."""
    return {name: value for name, value in values.items() if value is not None}


def start_job(config: Path | None, model: Path | None) -> Job:
    """The job of a file, or an empty one for a model.

    Raises:
        UsageError: neither is given.
        ConfigError: the file does not follow the schema.
    """
    from onnxq.config.job import Job, load_job

    if config is not None:
        return load_job(config)
    if model is None:
        raise UsageError("no model is named: give MODEL, or a job file with --config")
    return Job(model=model)
