"""`vqtool new`: your own recipe, copied from a shipped one with its sample data; or your own plugin."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
from pathlib import Path

from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.files import make_dir, write_atomic
from vqtool.recipe import shipped
from vqtool.suggest import listed

EXAMPLE = "example"  # what the template plugin is called


def run(*, name: str, plugin_name: str | None = None, source: str | None = None) -> int:
    """Copy a recipe to NAME.toml, or the example plugin to a folder; never overwrites a file."""
    if name == "plugin" and source is None:
        if plugin_name is None:
            raise VqtoolError("the name of the plugin is missing", hint="vqtool new plugin my-vq")
        return plugin(plugin_name)
    if plugin_name is not None:
        raise VqtoolError(
            f"unexpected `{plugin_name}`: a recipe has one name", hint=f"vqtool new {name}, or vqtool new plugin {name}"
        )
    target = Path(name if name.endswith(".toml") else f"{name}.toml")
    if target.name in (".toml", "..toml"):
        raise VqtoolError(f"`{name}` is not a valid name for a recipe", hint="vqtool new mine")
    origin = shipped.find(source if source is not None else default(target.stem))
    written = shipped.copy(origin, target)
    for path in written[1:]:
        out.say(f"copied {path}")
    out.hint(f"vqtool train {target}")
    out.print(str(target))
    out.document({"recipe": str(target), "from": origin.stem, "files": [str(path) for path in written]})
    return 0


def default(name: str) -> str:
    """The recipe to copy if --from is not given: a shipped recipe of that name, or the only one."""
    there = shipped.names()
    if name in there:
        return name
    if len(there) == 1:
        return there[0]
    raise VqtoolError("the recipe to copy is missing", hint=f"--from one of {listed(there)}")


def plugin(name: str) -> int:
    """Copy the example plugin to the folder NAME, under the new name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise VqtoolError(
            f"`{name}` is not a valid name for a plugin", hint="lower-case letters, digits and -, as in my-vq"
        )
    target, module = Path(name), name.replace("-", "_")
    if os.path.lexists(target):
        raise VqtoolError(f"`{target}` exists already", hint="give the new plugin another name")
    if keyword.iskeyword(module):
        raise VqtoolError(f"`{name}` is a keyword of Python", hint="vqtool new plugin my-vq")
    if module == "plugin" or importlib.util.find_spec(module) is not None:
        raise VqtoolError(f"`{name}` is already the name of an installed package", hint="vqtool new plugin my-vq")
    origin = shipped.template()
    renamed = {f"vqtool_{EXAMPLE}": module, f"vqtool-{EXAMPLE}": name, f"{EXAMPLE}.toml": f"{name}.toml"}
    written = []
    for file in sorted(p for p in origin.rglob("*") if p.suffix in (".py", ".toml", ".md")):
        relative, text = file.relative_to(origin).as_posix(), file.read_text(encoding="utf-8")
        text = re.sub(rf"(?m)^{EXAMPLE} = ", f"{name} = ", text)
        for old, new in renamed.items():
            relative, text = relative.replace(old, new), text.replace(old, new)
        written.append(target / relative)
        make_dir(written[-1].parent)
        write_atomic(written[-1], text.encode())
    for path in written:
        out.say(f"wrote {path}")
    out.hint(f"pip install -e {target} && vqtool verify quantizer grid")
    out.print(str(target))
    out.document({"plugin": name, "files": [str(path) for path in written]})
    return 0
