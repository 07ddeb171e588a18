"""`vqtool plugins`: what a recipe can name, which package provides it, what was skipped and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vqtool.catalog import Catalog, Component, catalog
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.suggest import did_you_mean, listed


def run(*, role: str | None, name: str | None, timings: bool) -> int:
    """List everything, a role, or one kind's options."""
    found = catalog(warn=False)
    if role is not None and role not in found.roles:
        raise VqtoolError(
            f"there is no role called `{role}`", hint=did_you_mean(role, found.roles, otherwise=listed(found.roles))
        )
    if role is not None and name is not None:
        return one(found, found.find(role, name))
    shown = [c for c in found.components if role in (None, c.role)]
    rows = [[c.role, c.name, found.provider(c), c.summary] for c in shown]
    out.result_table("", ["role", "kind", "provided by", "what it is"], rows, gap=False)
    show_plugins(found, timings)
    for title, several in (("skipped", found.broken), ("slow", found.slow)):
        if several:
            rows = [[b.name, b.distribution, f"{b.reason}; {b.fix}"] for b in several]
            out.result_table(title, ["plugin", "from", "why"], rows)
    out.document(
        {
            "components": [described(found, c) for c in shown],
            "plugins": [
                {
                    "name": p.name,
                    "distribution": p.distribution,
                    "version": p.version,
                    "components": len(p.components),
                    "hooks": list(p.hooks),
                    **({"milliseconds": round(1000 * p.seconds, 2)} if timings else {}),
                }
                for p in found.plugins
            ],
            "broken": [asdict(b) for b in found.broken],
            "slow": [asdict(b) for b in found.slow],
        }
    )
    return 0


def show_plugins(found: Catalog, timings: bool) -> None:
    """The plugins, with the time of their imports if asked for."""
    head = ["plugin", "from", "components", "hooks", *(["import ms"] if timings else [])]
    rows = [
        [p.name, p.provider, len(p.components), ", ".join(p.hooks), *([f"{1000 * p.seconds:.1f}"] if timings else [])]
        for p in found.plugins
    ]
    out.result_table("", head, rows)


def described(found: Catalog, component: Component) -> dict[str, Any]:
    """A component as JSON."""
    return {
        "role": component.role,
        "name": component.name,
        "provider": found.provider(component),
        "target": component.target,
        "summary": component.summary,
    }


def one(found: Catalog, component: Component) -> int:
    """One component with its options; this imports its class."""
    import inspect

    from vqtool.recipe.options import options_of, toml_value

    cls = found.load(component.role, component.name)
    options = options_of(cls).documented()
    out.print(f'{component.role} "{component.name}", provided by {found.provider(component)}\n')
    out.print(inspect.getdoc(cls) or component.summary)
    rows = [[o.name, o.type, "required" if o.required else toml_value(o.default), o.doc] for o in options]
    if rows:
        out.result_table("", ["option", "type", "default", "meaning"], rows)
    for title in ("terms", "knobs", "uses", "provides"):
        names = getattr(cls, title, None)
        if isinstance(names, frozenset) and names:
            out.print(f"\n{title}: {', '.join(sorted(names))}")
    described_options = [
        {"name": o.name, "type": o.type, "required": o.required, "default": o.default, "doc": o.doc} for o in options
    ]
    out.document(described(found, component) | {"options": described_options})
    return 0
