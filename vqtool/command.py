"""How a signature becomes a command: its body is imported when it runs, and whatever it raises becomes words."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vqtool.errors import VqtoolError

UsageError = typer.BadParameter.__bases__[0]  # typer exports this one child of it
REPEATED = ("overrides", "arguments", "kinds")  # options that may be given many times
SIGNATURES: dict[str, tuple[str, inspect.Signature]] = {}  # of each command: its body and what it takes

app = typer.Typer(
    name="vqtool",
    help="Vector quantization from one command line: train, evaluate and use what a recipe describes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMON = {  # options that every command has, handled here and not passed on
    "json_": Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results, warnings and errors.")],
    "plugin": Annotated[
        list[Path] | None, typer.Option("--plugin", metavar="FILE.py", help="A one-file plugin to use as well.")
    ],
}


def command(target: str, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a signature: its values go to `vqtool.commands.MODULE:FUNCTION` as keyword arguments.

    The function decorated is only read: its parameters are the command's, its docstring is the help.
    """

    def made(signature: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(signature)
        def body(json_: bool = False, quiet: bool = False, plugin: list[Path] | None = None, **values: Any) -> None:
            raise typer.Exit(guarded(target, json_, quiet, plugin or [], values))

        own = inspect.signature(signature, eval_str=True)
        known_as = name or signature.__name__.strip("_")
        common = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None if name == "plugin" else False,
                              annotation=annotation)
            for name, annotation in COMMON.items()
        ]  # fmt: skip
        whole = own.replace(parameters=[p.replace(kind=p.KEYWORD_ONLY) for p in own.parameters.values()] + common)
        SIGNATURES[known_as] = (target, whole)
        body.__signature__ = whole  # type: ignore[attr-defined]  # typer reads it
        body.__annotations__ = {p.name: p.annotation for p in [*own.parameters.values(), *common]}
        app.command(known_as)(body)
        return signature

    return made


def guarded(target: str, json_: bool, quiet: bool, plugins: list[Path], values: dict[str, Any]) -> int:
    """Run a command's body and turn whatever it raises into words and an exit code."""
    from vqtool.console import out, render_error
    from vqtool.errors import VqtoolError

    out.mode = "json" if json_ else "quiet" if quiet else "human"
    debug = os.environ.get("VQTOOL_DEBUG") == "1"
    try:
        if plugins:
            from vqtool.catalog import use_files

            use_files(plugins)
        module, _, function = target.partition(":")
        with out.alone_on_stdout():
            run = getattr(importlib.import_module(f"vqtool.commands.{module}"), function or "run")
            code = run(**{name: plain_value(name, value) for name, value in values.items()})
        sys.stdout.flush()
        return int(code or 0)
    except VqtoolError as error:
        if debug:
            out.relay(traceback.format_exc().rstrip())
        render_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        out.warn("stopped")
        return 130
    except BrokenPipeError:  # `vqtool plugins | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:  # a part may raise anything, or call sys.exit
        if debug:
            out.relay(traceback.format_exc().rstrip())
        render_error(internal(error))
        return 1


def internal(error: BaseException) -> VqtoolError:
    """A fault of ours or of a part as one line; a full disk or memory and the like are told as what they are."""
    from vqtool.catalog.faults import place_of
    from vqtool.errors import VqtoolError

    if isinstance(error, OSError) and error.strerror:
        what = f" `{error.filename}`" if error.filename else ""
        return VqtoolError(f"{error.strerror.lower()}{what}", hint="VQTOOL_DEBUG=1 shows where", exit_code=1)
    lines = str(error).strip().splitlines()
    if isinstance(error, MemoryError):
        said = f": {lines[0][:1].lower()}{lines[0][1:]}" if lines else ""
        return VqtoolError(f"there is not enough memory{said}", hint="VQTOOL_DEBUG=1 shows where", exit_code=1)
    what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    place = place_of(error)
    if place is not None:
        return VqtoolError(f"the plugin `{place[0]}` failed: {what}", where=place[1],
                           hint="VQTOOL_DEBUG=1 shows the traceback", exit_code=1)  # fmt: skip
    told = f"internal: {what}"
    return VqtoolError(
        told, hint="VQTOOL_DEBUG=1 shows the traceback; this is a fault of vqtool or a plugin", exit_code=1
    )


def plain_value(name: str, value: Any) -> Any:
    """A value as bodies take it: no enum, and an empty list where an option that may be repeated was not given."""
    if name in REPEATED:
        return list(value or [])
    return value.value if isinstance(value, Enum) else value


def main() -> None:
    """The entry point: bad usage is told like any other error, in words or as JSON."""
    try:
        code = called_plainly(sys.argv[1:])
        if code is not None:
            sys.exit(code)
        sys.exit(app(standalone_mode=False) or 0)
    except UsageError as error:
        if len(sys.argv) == 1:  # no command at all: this "error" is the help
            error.show()  # type: ignore[attr-defined]  # of every usage error
            sys.exit(2)
        sys.exit(bad_usage(error))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


def called_plainly(words: list[str]) -> int | None:
    """Run a command that needs nothing of typer; None, and nothing done, where it does (see `plain_call`)."""
    if not words or words[0] not in SIGNATURES or "_VQTOOL_COMPLETE" in os.environ or os.name == "nt":
        return None  # Windows: typer expands `*` there
    from vqtool.plain_call import plain_call

    target, signature = SIGNATURES[words[0]]
    values = plain_call(words[1:], signature)
    if values is None:
        return None
    json_, quiet, plugins = (values.pop(name) for name in COMMON)
    return guarded(target, json_, quiet, plugins or [], values)


def bad_usage(error: Any) -> int:
    """Tell of a wrong command, option or value."""
    from vqtool.console import out, render_error
    from vqtool.errors import VqtoolError

    out.mode = "json" if "--json" in sys.argv else "human"
    told = re.sub(r" \(Possible options: (.*)\)$", r". Did you mean \1?", error.format_message().rstrip("."))
    told = re.sub(r"'([^']*)'", r"`\1`", told.replace("Value error, ", ""))
    message, mark, suggestion = told.partition(". Did you mean ")
    named = message[:1].lower() + message[1:]
    hint = f"did you mean {suggestion}" if mark else None
    path = error.ctx.command_path if error.ctx is not None else "vqtool"
    render_error(VqtoolError(named, hint=hint or f"{path} --help"))
    return int(error.exit_code)
