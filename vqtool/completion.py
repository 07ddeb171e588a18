"""What a shell offers at <TAB> where a value is one of a known few. Lists are read when asked: plugins add to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import typer

Offers = Callable[[typer.Context, str], list[str]]


def offered(known: Callable[[typer.Context], Iterable[str]]) -> Offers:
    """A completion for typer: those of `known` that begin as the word does.

    An error offers nothing: a shell has no place for a message between two keys.
    """

    def names(context: typer.Context, incomplete: str) -> list[str]:
        try:
            return sorted(name for name in known(context) if name.startswith(incomplete))
        except Exception:
            return []

    return names


@offered
def roles(context: typer.Context) -> Iterable[str]:
    """The roles of parts, such as `quantizer`."""
    from vqtool.catalog import catalog

    return catalog(warn=False).roles


@offered
def roles_with_laws(context: typer.Context) -> Iterable[str]:
    """The roles that `vqtool verify` has laws for; files are offered by the shell."""
    return ("quantizer", "prior")


@offered
def kinds(context: typer.Context) -> Iterable[str]:
    """The components of the role on the command line."""
    from vqtool.catalog import catalog

    return catalog(warn=False).names(str(context.params.get("role") or context.params.get("target")))


@offered
def recipes(context: typer.Context) -> Iterable[str]:
    """The shipped recipes."""
    from vqtool.recipe import shipped

    return shipped.names()


@offered
def quantizers(context: typer.Context) -> Iterable[str]:
    """The quantizers, where these are measured."""
    from vqtool.catalog import catalog

    return catalog(warn=False).names("quantizer") if context.params.get("case") == "quantizers" else ()


@offered
def cases(context: typer.Context) -> Iterable[str]:
    """What `vqtool bench` measures."""
    from vqtool.bench import CASES

    return CASES
