"""The group of commands, and the one place where an exception becomes an exit code.

Exit codes: 0 done; 1 the answer is no (`--strict`, a gate); 2 bad usage or bad input, one sentence on stderr;
3 the gate cannot tell;
70 a bug in onnxq, with its traceback; 130 interrupted, 143 terminated (128 + the number of the signal).
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from onnxq.errors import OnnxqError, UnknownNameError, did_you_mean

EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

COMMANDS = (
    "quantize",
    "calibrate",
    "ranges",
    "statistics",
    "costs",
    "inspect",
    "validate",
    "gate",
    "report",
    "run",
    "show",
    "explain",
    "bisect",
    "sensitivity",
    "check",
    "passes",
    "doctor",
)
"""In the order of the help page. Each lives in the module of its name as `command`, imported when it is used."""


@dataclass
class State:
    """What the handler of exceptions and the reports must know: `debug` asks for tracebacks, `arguments` were typed."""

    debug: bool = False
    arguments: tuple[str, ...] = ()


class InterruptError(Exception):
    """Ctrl-C, renamed because click prints an empty line for a KeyboardInterrupt. `code` is the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class StopError(KeyboardInterrupt):
    """SIGTERM or SIGHUP: unwinds like Ctrl-C, so that temporary files are removed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _unwinding() -> Iterator[None]:
    """Signals that end the process raise `StopError` inside; those that the caller ignores or handles stay."""

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not stop the tidying up
        raise StopError(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    taken = [n for n in numbers if signal.getsignal(n) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        taken = []
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


class Commands(click.Group):
    """Imports a command's module only when the command is named (or all are listed)."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None for a shell that completes words behind one that is none.

        Raises:
            UnknownNameError: there is none; proposes the nearest.
        """
        if cmd_name not in COMMANDS:
            if ctx.resilient_parsing:
                return None
            raise UnknownNameError(f'there is no command "{cmd_name}": {did_you_mean(cmd_name, COMMANDS)}')
        command: click.Command = importlib.import_module(f"onnxq.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            with _unwinding():
                return super().invoke(ctx)
        except StopError as error:
            raise InterruptError(128 + error.number) from error
        except KeyboardInterrupt as error:
            raise InterruptError(EXIT_INTERRUPTED) from error


def _print_versions(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    for package in ("onnxq", "onnx", "onnxruntime"):
        click.echo(f"{package} {_version(package)}")
    ctx.exit()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # onnxruntime has other builds under other names
        return "(installed under another name)"


def _set_debug(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        ctx.ensure_object(State).debug = True


debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_set_debug,
    help="Show a traceback with an error.",
)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_versions,
    help="Print the versions of onnxq, onnx and onnxruntime.",
)
@debug_option
@click.pass_context
def commands(ctx: click.Context) -> None:
    """The compiler-grade quantizer for ONNX."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(EXIT_USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: that of the process) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    typed = tuple(arguments) if arguments is not None else tuple(sys.argv[1:])
    state = State(debug=os.environ.get("ONNXQ_DEBUG", "") not in ("", "0"), arguments=typed)
    formerly, warnings.formatwarning = warnings.formatwarning, _warning
    try:
        code = commands.main(
            list(arguments) if arguments is not None else None, prog_name="onnxq", obj=state, standalone_mode=False
        )
    except OnnxqError as error:
        return _fail(str(error), error.exit_code, error if state.debug else None)
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return _fail(_sentence(error.format_message()) + hint, EXIT_USAGE, error if state.debug else None)
    except click.ClickException as error:
        return _fail(_sentence(error.format_message()), EXIT_USAGE, error if state.debug else None)
    except InterruptError as error:
        click.echo("interrupted; no file was left half-written", err=True)
        return error.code
    except Exception as error:
        what = f"this is a bug in onnxq ({type(error).__name__}): please report it with the traceback above"
        return _fail(what, EXIT_BUG, error)
    finally:
        warnings.formatwarning = formerly
    return code if isinstance(code, int) else 0


def _warning(message: Warning | str, *_: object, **__: object) -> str:
    """A warning as people read it: where it was raised is our business."""
    return f"warning: {message}\n"


def _fail(sentence: str, code: int, shown: Exception | None) -> int:
    if shown is not None:
        traceback.print_exception(shown, file=sys.stderr)
    click.echo(f"error: {sentence}", err=True)
    return code


def _sentence(message: str) -> str:
    """Click's messages in the form of ours: one line, small first letter, no full stop."""
    line = " ".join(message.split()).removesuffix(".")
    return line[:1].lower() + line[1:]
