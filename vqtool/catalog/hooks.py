"""Guarded broadcast: a plugin whose hook fails is reported once and muted; the command continues."""

from __future__ import annotations

import contextlib
import io
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import pluggy

from vqtool.catalog import hookspecs
from vqtool.console import out
from vqtool.suggest import did_you_mean


class Hooks:
    """`hooks.vqtool_metrics(run=..., row=...)` asks every plugin and returns what they answered, None left out."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("vqtool")
        self._manager.add_hookspecs(hookspecs)
        self._muted: set[str] = set()
        self._providers: dict[str, str] = {}

    def names(self) -> list[str]:
        """Every hook there is."""
        return sorted(name for name in vars(hookspecs) if name.startswith("vqtool_"))

    def register(self, module: ModuleType, name: str, provider: str = "") -> list[str]:
        """Add a plugin's module and return the hooks it implements; `provider` is its distribution, for messages.

        Raises:
            ValueError: it implements none, one that is not a hook, with a wrong argument, or with a wrapper.
        """
        try:
            self._manager.register(module, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            self.drop(name)
            raise ValueError(str(error).split("\n")[-1].strip() or str(error)) from error
        callers = self._manager.get_hookcallers(module) or []
        complaint = self._complaint(callers, module)
        if complaint:
            self.drop(name)
            raise ValueError(complaint)
        self._providers[name] = f" of {provider}" if provider else ""
        return sorted(caller.name for caller in callers)

    def drop(self, name: str) -> None:
        """Leave a plugin out."""
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)

    def of(self, name: str, hook: str) -> Callable[..., Any] | None:
        """One plugin's function for one hook."""
        return next((i.function for i in self._impls(hook) if i.plugin_name == name), None)

    def _complaint(self, callers: list[Any], module: ModuleType) -> str | None:
        if not callers:
            near = next((n for n in vars(module) if n.startswith("vqtool_")), None)
            missing = f"`{near}` is missing the decorator" if near else "none of its functions has the decorator"
            return f"it implements no hook: {missing} `@hookimpl`"
        for caller in callers:
            if not caller.has_spec():
                hint = did_you_mean(caller.name, self.names(), otherwise="")
                return f"`{caller.name}` is not a hook; {hint}" if hint else f"`{caller.name}` is not a hook"
            if any(i.plugin is module and (i.hookwrapper or i.wrapper) for i in caller.get_hookimpls()):
                return f"`{caller.name}` is a hook wrapper; wrappers are not supported"
        return None

    def _impls(self, hook: str) -> list[Any]:
        """The plugins' functions for a hook, in the order the plugins were taken in."""
        found = getattr(self._manager.hook, hook).get_hookimpls()
        return sorted(found, key=lambda impl: (not impl.tryfirst, impl.trylast))

    def __getattr__(self, hook: str) -> Callable[..., list[Any]]:
        if not hook.startswith("vqtool_") or not hasattr(self._manager.hook, hook):
            raise AttributeError(f"there is no hook `{hook}`")

        def broadcast(**arguments: Any) -> list[Any]:
            answers = (self._ask(impl, hook, arguments) for impl in self._impls(hook))
            return [answer for answer in answers if answer is not None]

        return broadcast

    def collect(self, hook: str, kind: type[Any], **arguments: Any) -> list[Any]:
        """Everything that plugins yield for a hook; one that yields anything but `kind` is reported and muted."""
        answers = (self._ask(impl, hook, arguments, kind) for impl in self._impls(hook))
        return [item for answer in answers if answer is not None for item in answer]

    def _ask(self, impl: Any, hook: str, arguments: dict[str, Any], kind: type[Any] | None = None) -> Any:
        if impl.plugin_name in self._muted:
            return None
        began = time.perf_counter()
        try:
            with prefixed_output(impl.plugin_name):
                answer = impl.function(**{name: arguments[name] for name in impl.argnames})
                answer = list(answer) if isinstance(answer, Iterator) else answer
            return answer if answer is None or kind is None else items(answer, kind)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin must not end a command
            debug()
            name = impl.plugin_name
            self._muted.add(name)
            out.warn(
                f"plugin `{name}`{self._providers[name]} failed in `{hook}` and is muted: {type(error).__name__}: "
                f"{error} (VQTOOL_DEBUG=1 shows where, VQTOOL_PLUGINS=-{name} leaves it out)"
            )
            return None
        finally:
            trace(f"{impl.plugin_name}: {hook}({', '.join(arguments)}) {1000 * (time.perf_counter() - began):.1f} ms")


def items(answer: Any, kind: type[Any]) -> list[Any]:
    """The items of an answer.

    Raises:
        TypeError: it holds something but `kind`, or is not iterable.
    """
    found = list(answer) if isinstance(answer, Iterable) and not isinstance(answer, str) else [answer]
    for item in found:
        if not isinstance(item, kind):
            raise TypeError(f"it gave {type(item).__name__}, not `{kind.__name__}`s")
    return found


@contextlib.contextmanager
def prefixed_output(name: str) -> Iterator[None]:
    """Send what a plugin prints to stderr under its name: stdout is for results, and progress bars must stay intact."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            yield
        finally:
            for line in printed.getvalue().splitlines():
                out.say(f"plugin `{name}`: {line}")


def debug() -> None:
    """With VQTOOL_DEBUG=1, show where the exception that is being handled came from."""
    if os.environ.get("VQTOOL_DEBUG") == "1":
        traceback.print_exc()


def trace(text: str) -> None:
    """With VQTOOL_TRACE=1, log what plugins are asked."""
    if os.environ.get("VQTOOL_TRACE") == "1":
        out.trace(text)
