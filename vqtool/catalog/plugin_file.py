"""One-file plugins: `--plugin FILE.py` holds parts, or a hook that names them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from vqtool.catalog.component import BASES, Component

PREFIX = "vqtool_file_"  # keeps a file called random.py from hiding the standard library's


def import_file(path: Path) -> ModuleType:
    """Import a file as a module of its own; at once, since the user asked for it by name."""
    name = PREFIX + re.sub(r"\W", "_", path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"`{path}` is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def components_of_file(module: ModuleType) -> list[Component]:
    """The parts that a one-file plugin defines, each by the role of its base class, all named as the file is.

    Raises:
        ValueError: two of the same role, for which one file name is not enough.
    """
    if not module.__name__.startswith(PREFIX):
        return []
    import vqtool.api

    kind = re.sub(r"[\W_]+", "-", Path(str(module.__file__)).stem.lower()).strip("-")
    found: dict[str, Component] = {}
    for name, value in vars(module).items():
        if not isinstance(value, type) or value.__module__ != module.__name__ or name.startswith("_"):
            continue
        role = next((r for r, base in BASES.items() if issubclass(value, getattr(vqtool.api, base))), None)
        if role is None:
            continue
        if role in found:
            raise ValueError(
                f"it defines two of the role {role}; give each its own file, or a `vqtool_components` that names them"
            )
        summary = (value.__doc__ or module.__doc__ or "").strip().splitlines()
        found[role] = Component(role, kind, f"{module.__name__}:{name}", summary[0] if summary else "")
    return list(found.values())
