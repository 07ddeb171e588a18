"""A component: what a recipe can name; and how a package's files are listed without importing them."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
from dataclasses import dataclass

BASES = {  # role -> the class of `vqtool.api` that its components are subclasses of
    "data": "Data",
    "norm": "Norm",
    "conditioner": "Conditioner",
    "encoder": "Encoder",
    "quantizer": "Quantizer",
    "estimator": "Estimator",
    "channel": "Channel",
    "decoder": "Decoder",
    "context": "Context",
    "classifier": "Classifier",
    "discriminator": "Discriminator",
    "regressor": "Regressor",
    "prior": "Prior",
    "task": "Task",
    "loss": "Loss",
    "metric": "Metric",
    "baseline": "Baseline",
    "schedule": "Schedule",
}
_ELSEWHERE = {"quantizer": "vqtool.quantizers", "estimator": "vqtool.quantizers.estimators"}
PACKAGES = {  # role -> where the built-in components are, one a file
    role: _ELSEWHERE.get(role) or f"vqtool.parts.{ {'loss': 'losses', 'data': 'data'}.get(role, role + 's') }"
    for role in BASES
}

_ROLE = re.compile(r"[a-z][a-z0-9_]*")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TARGET = re.compile(r"\w+(\.\w+)*(:\w+)?")
_SEVERAL = re.compile(r"^# kind: (\S+)\nclass (\w+)\(.*\):\n    \"{3}(.*?)(?:\"{3})?$", re.MULTILINE)
_DOCSTRING = re.compile(r"(?:\s|#[^\n]*\n)*[rRuU]?(\"{3}|'{3}|\"|')(.*?)\1", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Component:
    """What a recipe can name: `kind = "name"` for a role.

    Args:
        role: what it is for: "quantizer", "loss", ...
        name: the kind, in kebab-case.
        target: "package.module:Class", or "package.module" whose one class of the role it is; imported when needed.
        summary: one line for `vqtool plugins`.

    Raises:
        ValueError: a role, name or target is malformed.
    """

    role: str
    name: str
    target: str
    summary: str = ""

    def __post_init__(self) -> None:
        if not _ROLE.fullmatch(self.role):
            raise ValueError(f"`{self.role}` is not a role: lower-case letters, digits and _")
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"`{self.name}` is not a kind: kebab-case, as in `residual-ema`")
        if not _TARGET.fullmatch(self.target):
            raise ValueError(f"`{self.target}` is not a target: `package.module:Class`")


def scan(package: str, role: str) -> list[Component]:
    """The components of a package's files, one a file, without importing any of them.

    The kind is the file's name with `_` as `-`, the summary its docstring's first line. A file may hold several: then
    the line `# kind: NAME` precedes each class. Files whose name begins with `_` and packages are left out.

    Raises:
        ModuleNotFoundError: there is no such package.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError(f"there is no package `{package}` to scan", name=package)
    components = []
    for module in pkgutil.iter_modules(found.submodule_search_locations):
        if module.ispkg or module.name.startswith("_"):
            continue
        name = f"{package}.{module.name}"
        spec = module.module_finder.find_spec(name, None)
        get_source = getattr(spec.loader if spec else None, "get_source", None)
        source = get_source(name) if get_source else None  # none for compiled modules
        several = _SEVERAL.findall(source or "")
        components += [Component(role, kind, f"{name}:{cls}", summary) for kind, cls, summary in several]
        if not several:
            components.append(Component(role, module.name.replace("_", "-"), name, first_line(source or "")))
    return components


def first_line(source: str) -> str:
    """The first line of a module's docstring, read from its source."""
    found = _DOCSTRING.match(source)
    lines = found.group(2).strip().splitlines() if found else []
    return lines[0].strip() if lines else ""
