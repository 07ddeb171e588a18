"""How a signature becomes a command: its body is imported when it runs, and every exception becomes a message."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqtool.examples import EXAMPLES, START, epilog
from vqtool.shared_options import repeated

if TYPE_CHECKING:
    from vqtool.errors import VqtoolError

PLUGIN_COMMANDS = "vqtool_commands"
UsageError: Any = typer.BadParameter.__bases__[0]  # typer exports this one subclass of it

app = typer.Typer(
    name="vqtool",
    help="Vector quantization from one command line: train, evaluate and use what a recipe describes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="\b\n" + START,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _common(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only results, warnings and errors.")] = False,
    *,
    plugin: Annotated[list[Path], repeated("--plugin", metavar="FILE.py", help="Load this one-file plugin as well.")],
) -> None:
    """Options that every command has; they are handled here and not passed on."""


def command(
    target: str, *shared: Callable[..., None], examples: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a signature: its values go to `vqtool.commands.MODULE:FUNCTION` as keyword arguments.

    The decorated function is only read: its parameters and those of `shared` are the command's, its docstring is the
    help. A `target` with a dot names a module of a plugin in full, which gives `examples`, some lines, itself.
    """

    def made(signature: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(signature)
        def body(json_: bool, quiet: bool, plugin: list[Path], **values: Any) -> None:
            raise typer.Exit(guarded(target, json_, quiet, plugin, values))

        every = [p for each in (signature, *shared, _common) for p in parameters(each)]
        body.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]  # typer reads it
        EXAMPLES.setdefault(signature.__name__, examples)
        app.command(signature.__name__, epilog=epilog(signature.__name__))(body)
        return signature

    return made


def add_plugin_commands() -> None:
    """Import the modules of the namespace package `vqtool_commands`, each of which makes commands by `command`.

    They are listed by every `vqtool --help`, so they hold signatures alone. A module that fails, exits or takes the
    name of another command is left out with a warning; all are left out where VQTOOL_PLUGINS is empty.
    """
    if os.environ.get("VQTOOL_PLUGINS") == "":
        return
    try:
        package = importlib.import_module(PLUGIN_COMMANDS)
    except ImportError:  # no plugin brings any
        return
    for name in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
        before = list(app.registered_commands)
        try:
            importlib.import_module(f"{PLUGIN_COMMANDS}.{name}")
            if taken := {one.name for one in app.registered_commands[len(before) :]} & {one.name for one in before}:
                raise ValueError(f"there is a command `{min(map(str, taken))}` already")
        except (Exception, SystemExit) as error:  # another's code; the other commands must work all the same
            app.registered_commands = before
            what = f"{type(error).__name__}: {error}"
            typer.echo(f"warning: the commands of `{PLUGIN_COMMANDS}.{name}` are left out: {what}", err=True)


def parameters(signature: Callable[..., None]) -> list[inspect.Parameter]:
    """The parameters of a function, by keyword: then those without a default may follow others."""
    found = inspect.signature(signature, eval_str=True).parameters.values()
    return [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in found]


def guarded(target: str, json_: bool, quiet: bool, plugins: list[Path], values: dict[str, Any]) -> int:
    """Run a command's body and turn whatever it raises into a message and an exit code."""
    from vqtool.console import out, render_error
    from vqtool.errors import VqtoolError

    out.mode = "json" if json_ else "quiet" if quiet else "human"
    try:
        if plugins:
            from vqtool.catalog import use_files

            use_files(plugins)
        module, _, function = target.partition(":")
        with out.alone_on_stdout():
            place = module if "." in module else f"vqtool.commands.{module}"
            code = getattr(importlib.import_module(place), function or "run")(**values)
        if sys.stdout is not None:  # closed by whoever started vqtool
            sys.stdout.flush()
        return int(code or 0)
    except KeyboardInterrupt:
        out.warn("stopped")
        return 130
    except BrokenPipeError:  # `vqtool plugins | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:  # a part may raise anything, or call sys.exit
        if os.environ.get("VQTOOL_DEBUG") == "1":
            out.relay(traceback.format_exc().rstrip())
        shown = error if isinstance(error, VqtoolError) else internal(error)
        render_error(shown)
        return shown.exit_code


def internal(error: BaseException) -> VqtoolError:
    """A fault of vqtool or of a part as one error; a full disk, too little memory and the like by their own names."""
    from vqtool.catalog.faults import place_of
    from vqtool.errors import VqtoolError

    hint = "VQTOOL_DEBUG=1 shows the traceback"
    if isinstance(error, OSError) and error.strerror:
        what = f" `{error.filename}`" if error.filename else ""
        return VqtoolError(f"{error.strerror.lower()}{what}", hint=hint, exit_code=1)
    lines = str(error).strip().splitlines()
    if isinstance(error, MemoryError):
        detail = f": {lines[0][:1].lower()}{lines[0][1:]}" if lines else ""
        return VqtoolError(f"there is not enough memory{detail}", hint=hint, exit_code=1)
    what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    place = place_of(error)
    if place is not None:
        return VqtoolError(f"the plugin `{place[0]}` failed: {what}", where=place[1], hint=hint, exit_code=1)
    return VqtoolError(f"internal: {what}", hint=f"{hint}; this is a bug in vqtool or a plugin", exit_code=1)


def main() -> None:
    """The entry point: bad usage is reported like any other error, as text or as JSON."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except UsageError as error:
        if len(sys.argv) == 1:  # no command at all: this "error" is the help
            error.show()
            sys.exit(2)
        sys.exit(bad_usage(error))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


def bad_usage(error: Any) -> int:
    """Report a wrong command, option or value."""
    from vqtool.console import out, render_error
    from vqtool.errors import VqtoolError

    out.mode = "json" if "--json" in sys.argv else "human"
    text = re.sub(r" \(Possible options: (.*)\)$", r". Did you mean \1?", error.format_message().rstrip("."))
    text = re.sub(r"'([^']*)'", r"`\1`", text.replace("Value error, ", ""))
    message, mark, suggestion = text.partition(". Did you mean ")
    path = error.ctx.command_path if error.ctx is not None else "vqtool"
    hint = f"did you mean {suggestion}" if mark else f"{path} --help"
    render_error(VqtoolError(message[:1].lower() + message[1:], hint=hint))
    return int(error.exit_code)
