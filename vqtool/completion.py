"""What a shell offers at <TAB> where a value is one of a known few. Lists are read when asked: plugins add to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import typer

Offers = Callable[[typer.Context, str], list[str]]


def offered(known: Callable[[typer.Context], Iterable[str]]) -> Offers:
    """A completion for typer: those of `known` that begin as the word does.

    A fault offers nothing: a shell has no place for an error between two keys.
    """

    def names(context: typer.Context, incomplete: str) -> list[str]:
        try:
            return sorted(name for name in known(context) if name.startswith(incomplete))
        except Exception:
            return []

    return names


@offered
def roles(context: typer.Context) -> Iterable[str]:
    """What a recipe can have parts for, as `quantizer`."""
    from vqtool.catalog import catalog

    return catalog(warn=False).roles


@offered
def judged(context: typer.Context) -> Iterable[str]:
    """The roles that have laws; files are the shell's own to offer."""
    from vqtool.commands.verify import WITH_LAWS

    return WITH_LAWS


@offered
def kinds(context: typer.Context) -> Iterable[str]:
    """The components of the role that the line names."""
    from vqtool.catalog import catalog

    role = context.params.get("role") or context.params.get("target")
    return {c.name for c in catalog(warn=False).components if c.role == role}


@offered
def recipes(context: typer.Context) -> Iterable[str]:
    """The shipped recipes."""
    from vqtool.recipe import shipped

    return shipped.names()


@offered
def racers(context: typer.Context) -> Iterable[str]:
    """The quantizers, where these are what is measured."""
    from vqtool.catalog import catalog

    return catalog(warn=False).names("quantizer") if context.params.get("case") == "quantizers" else ()


@offered
def cases(context: typer.Context) -> Iterable[str]:
    """What `vqtool bench` measures."""
    from vqtool.commands.bench import CASES

    return CASES
