"""`vqtool verify`: which laws a quantizer or a prior keeps, ours, a plugin's, or any torch module from a file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from vqtool.catalog import catalog
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.files import missing_file
from vqtool.recipe.overrides import parse
from vqtool.suggest import did_you_mean, listed

UNHEALTHY = 3
DIM = 8  # latent width that a quantizer is tried at; `--arg dim=64` says otherwise
WITH_LAWS = ("quantizer", "prior")


@dataclass(frozen=True)
class How:
    """How a target is checked: the options of `vqtool verify` beside its arguments."""

    laws: Sequence[str] = ()
    skip: Sequence[str] = ()
    layout: str | None = None
    forward: str | None = None
    update: str | None = None
    decode: str | None = None
    strict: bool = False
    seed: int = 0


def run(*, target: str, kind: str | None, arguments: list[str] | None, **checks: Any) -> int:
    """Check the laws on the target, or on every kind of a role; 0, or 3 if one is broken that a gate must not pass."""
    how = How(**checks)
    outside = ":" in target or target.endswith(".py")
    options = nested(arguments or [], outside=outside)
    if outside and kind is not None:
        raise VqtoolError(f"`{kind}`: a kind goes with a role only", hint=f"vqtool verify {target}")
    if not outside and (how.layout or how.forward or how.update or how.decode):
        raise VqtoolError("--layout, --forward, --update and --decode are for modules of a file or package")
    with guarded(f"`{target}` cannot be loaded"):
        found = [from_outside(target, options, how)] if outside else of_role(target, kind, options, how)
    reports: list[Any] = []
    documents: list[dict[str, Any]] = []
    failed: dict[str, VqtoolError] = {}
    for name, check in found:
        out.say(f"checking {name}")
        try:
            with guarded(f"{name} cannot be checked"):
                reports.append(check())
        except VqtoolError as error:
            if len(found) == 1:
                raise
            failed[name] = error
            out.warn(f"{name}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
            documents.append({"target": name, "error": {"message": error.message, "hint": error.hint}})
            continue
        documents.append(reports[-1].document())
        show(documents[-1])
    if len(failed) == len(found) and failed:
        raise next(iter(failed.values()))
    if failed:
        out.print(f"not checked: {listed(failed)}")
    out.document(documents[0] if outside or kind is not None else {"targets": documents})
    if not all(report.passes(strict=how.strict) for report in reports):
        return UNHEALTHY
    return max((error.exit_code for error in failed.values()), default=0)


def nested(arguments: list[str], *, outside: bool) -> dict[str, Any]:
    """The arguments of --arg by name; `config.hidden_size=16` gives a field of the argument `config`."""
    options: dict[str, Any] = {}
    for text in arguments:
        parts, value = parse(text)
        if len(parts) != 1 and not outside:
            raise VqtoolError(
                f"`{text}` names no argument", hint="KEY=VALUE, as in --arg dim=64", where=f"--arg {text}"
            )
        table = options
        for part in parts[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise VqtoolError(f"`{part}` is given as a value and with fields", where=f"--arg {text}")
        table[parts[-1]] = value
    return options


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """While code under test runs: its warnings are silent, and its exits are errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the verdicts are what counts
            yield
    except (VqtoolError, KeyboardInterrupt):
        raise
    except BaseException as error:  # sys.exit, or an exception of its own
        raise VqtoolError(f"{what}: {type(error).__name__}: {error}", hint="VQTOOL_DEBUG=1 shows where") from error


def dotted_hint(target: str) -> str | None:
    """Where a class was named with a dot, as imports name it: how to name it here."""
    place, _, name = target.rpartition(".")
    if not name.isidentifier() or not place:
        return None
    return f"vqtool verify {place}.py:{name}" if Path(f"{place}.py").is_file() else f"vqtool verify {place}:{name}"


def of_role(role: str, kind: str | None, options: dict[str, Any], how: How) -> list[tuple[str, Callable[[], Any]]]:
    """(name, check) of one kind or of every kind of a role."""
    cat = catalog()
    if role not in WITH_LAWS:
        if role in cat.roles:
            raise VqtoolError(f"there are no laws for the role `{role}` yet", hint=f"those are of {listed(WITH_LAWS)}")
        raise VqtoolError(
            f"`{role}` is neither a role nor FILE.py:CLASS nor package.module:CLASS",
            hint=dotted_hint(role) or did_you_mean(role, cat.roles, otherwise="vqtool verify quantizer residual-ema"),
        )
    if role == "quantizer":
        width(options)
    kinds = [kind] if kind is not None else cat.names(role)
    return [(f"{role} {name}", partial(judged_kind, role, name, options, how)) for name in kinds]


def judged_kind(role: str, name: str, options: dict[str, Any], how: How) -> Any:
    """The report on a kind of ours or of a plugin's."""
    from vqtool.recipe.options import options_of

    cls = catalog().load(role, name)
    given = {key: value for key, value in options.items() if key != "dim" or role != "quantizer"}
    checked, problems = options_of(cls).check(given, f"{role} `{name}`", page=f"vqtool plugins {role} {name}")
    if problems:
        raise VqtoolError(problems[0].message, hint=problems[0].hint, where="--arg")
    known = {key: checked[key] for key in given}
    target = f"{role} {name}"
    return (
        judged_prior(cls, target, known, how)
        if role == "prior"
        else judged_quantizer(cls, target, options | known, how)
    )


def judged_quantizer(cls: Any, target: str, options: Mapping[str, Any], how: How) -> Any:
    """Every law of quantizers on a class; `dim` is its width, not an option of its own."""
    from vqtool.conformance import QUANTIZER_LAWS, Subject, report_on

    given = {key: value for key, value in options.items() if key != "dim"}
    subject = Subject(cls, dim=width(options), options=given, seed=how.seed)
    subject.new()  # a width or an option that the class refuses is the user's to fix, not a broken law
    return report_on(target, QUANTIZER_LAWS, subject, how.laws, how.skip)


def width(options: Mapping[str, Any]) -> int:
    """The latent width to try a quantizer at."""
    dim = options.get("dim", DIM)
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise VqtoolError(f"`dim` is a whole number from 1, not {dim!r}", where="--arg")
    return dim


def judged_prior(cls: Any, target: str, options: Mapping[str, Any], how: How) -> Any:
    """Every law of priors on a class."""
    from vqtool.conformance import PRIOR_LAWS, PriorSubject, report_on

    subject = PriorSubject(cls, options=options, seed=how.seed)
    subject.new()
    return report_on(target, PRIOR_LAWS, subject, how.laws, how.skip)


def from_outside(target: str, options: dict[str, Any], how: How) -> tuple[str, Callable[[], Any]]:
    """(name, check) of a class, a function that builds one, or a module object, in a file or package."""
    from torch import nn

    from vqtool.api import Prior, Quantizer

    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    module = imported(place)
    found = member(module, name, place)
    if isinstance(found, type) and issubclass(found, Quantizer):
        return target, partial(judged_quantizer, found, target, options, how)
    if isinstance(found, type) and issubclass(found, Prior):
        return target, partial(judged_prior, found, target, options, how)
    if not callable(found) or (isinstance(found, type) and not issubclass(found, nn.Module)):
        raise VqtoolError(
            f"`{name}` is not a torch module",
            hint="name a class derived from torch.nn.Module, or a function that returns one",
        )
    return target, partial(judged_foreign_module, found, target, options, how)


def judged_foreign_module(found: Any, target: str, options: dict[str, Any], how: How) -> Any:
    """Every law that can be probed from outside on a foreign module."""
    from torch import nn

    from vqtool.conformance import FOREIGN_LAWS, report_on_module
    from vqtool.conformance.foreign_module import copied
    from vqtool.conformance.interface import signature_gaps, with_configs
    from vqtool.conformance.law import in_a_line, tried

    made = isinstance(found, nn.Module)
    full = {} if made else with_configs(found, {key: referred(value) for key, value in options.items()})
    gaps = [] if made else signature_gaps(found, full)
    if gaps:
        needed = " ".join(f"--arg {gap}=..." for gap in gaps)
        extra = tried(partial(inspect.signature(found).bind_partial, **full))  # `--arg dimm=64`
        wrong = f"; {in_a_line(extra)}" if isinstance(extra, TypeError) else ""
        raise VqtoolError(f"`{target}` needs {listed(gaps)}{wrong}", hint=f"vqtool verify {target} {needed}")

    def make() -> nn.Module:
        built: nn.Module = copied(found) if made else found(**full)
        return built

    built = tried(make)
    if isinstance(built, BaseException):
        raise VqtoolError(
            f"`{target}` cannot be built: {in_a_line(built)}", hint="give its arguments with --arg KEY=VALUE"
        ) from built
    if not isinstance(built, nn.Module):
        raise VqtoolError(f"`{target}` builds a {type(built).__name__}, not a torch module")
    return report_on_module(
        FOREIGN_LAWS, make, target, full, only=how.laws, skip=how.skip, layout=how.layout, forward=how.forward,
        update=how.update, decode=how.decode, rebuilt=not made, seed=how.seed, said=out.say,
    )  # fmt: skip


def referred(value: Any) -> Any:
    """A value of --arg; one of the form `FILE.py:NAME` or `package.module:NAME` is the object of that name, or made."""
    if not isinstance(value, str) or not re.fullmatch(r"[\w./-]+:[A-Za-z_]\w*", value):
        return value
    place, _, name = value.rpartition(":")
    if not place.endswith(".py") and importlib.util.find_spec(place.split(".")[0]) is None:
        return value
    found = getattr(imported(place), name, None)
    if found is None:
        raise VqtoolError(f"`{place}` has no `{name}`", where="--arg")
    return found() if isinstance(found, type) else found


def imported(place: str) -> ModuleType:
    """The module of a file or of a dotted name; what goes wrong in it is one error."""
    try:
        if place.endswith(".py"):
            path = Path(place)
            if not path.is_file():
                raise missing_file(path)
            from vqtool.catalog.plugin_file import import_file

            sys.path.insert(0, str(path.resolve().parent))  # it may import its neighbours
            try:
                return import_file(path)
            finally:
                sys.path.pop(0)
        return importlib.import_module(place)
    except (VqtoolError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever the file raises
        raise VqtoolError(f"`{place}` cannot be imported: {type(error).__name__}: {error}") from error


def member(module: ModuleType, name: str, place: str) -> Any:
    """The class by name; without a name the one module class that the file defines."""
    from torch import nn

    own = [n for n, v in vars(module).items()
           if isinstance(v, type) and issubclass(v, nn.Module) and v.__module__ == module.__name__]  # fmt: skip
    if name:
        if not hasattr(module, name):
            otherwise = f"it defines {listed(own)}" if own else None
            raise VqtoolError(f"`{place}` has no `{name}`", hint=did_you_mean(name, own, otherwise=otherwise))
        return getattr(module, name)
    if len(own) != 1:
        raise VqtoolError(
            f"`{place}` defines {listed(own) if own else 'no torch module'}", hint=f"vqtool verify {place}:CLASS"
        )
    return getattr(module, own[0])


def show(document: dict[str, Any]) -> None:
    """The report for people: a line a law, and for each broken one what it does and how to fix it, the worst first."""
    rows = [
        [row["id"], row["grade"] if row["status"] == "broken" else row["status"], figure(row["figure"]), row["note"]]
        for row in document["laws"]
    ]
    out.result_table(document["target"], ["law", "status", "figure", "what was measured"], rows, gap=False)
    for warning in document["warnings"]:
        out.warn(warning)
    for grade in ("fatal", "harmful", "cosmetic"):
        for row in document["laws"]:
            if row["status"] == "broken" and row["grade"] == grade:
                out.print(f"\n{grade}, broken: {row['id']}  {figure(row['figure'])} {row['note']}")
                out.print(f"  law:   {row['meaning']}\n  does:  {row['harm']}\n  fix:   {row['fix']}")
    counts = ", ".join(f"{document[grade]} {grade}" for grade in ("fatal", "harmful", "cosmetic"))
    out.print(f"\n{document['target']}: {document['kept']} laws kept, {document['broken']} broken ({counts})\n")


def figure(value: float | None) -> str:
    """A figure in few characters."""
    return "" if value is None else f"{value:.4g}"
