"""`vqtool verify`: which laws a quantizer or a prior keeps, ours, a plugin's, or any torch module from a file."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from vqtool.catalog import catalog
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.recipe.overrides import parse
from vqtool.suggest import did_you_mean, listed

UNHEALTHY = 3
DIM = 8  # latent width that a quantizer is tried at; `--arg dim=64` says otherwise
WITH_LAWS = ("quantizer", "prior")


def run(*, target: str, kind: str | None, arguments: list[str] | None, seed: int) -> int:
    """Check every law on the target, or on every kind of a role; 0 if all are kept, 3 if one is broken."""
    options = dict(map(argument, arguments or []))
    outside = ":" in target or target.endswith(".py")
    if outside and kind is not None:
        raise VqtoolError(f"`{kind}`: a kind goes with a role only", hint=f"vqtool verify {target}")
    with guarded(f"`{target}` cannot be loaded"):
        found = [from_outside(target, options, seed)] if outside else of_role(target, kind, options, seed)
    reports: list[dict[str, Any]] = []
    failed: dict[str, VqtoolError] = {}
    for name, check in found:
        out.say(f"checking {name}")
        try:
            with guarded(f"{name} cannot be checked"):
                outcomes = check()
        except VqtoolError as error:
            if len(found) == 1:
                raise
            failed[name] = error
            out.warn(f"{name}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
            reports.append({"target": name, "error": {"message": error.message, "hint": error.hint}})
            continue
        reports.append(report(name, outcomes))
        show(reports[-1])
    if len(failed) == len(found) and failed:
        raise next(iter(failed.values()))
    if failed:
        out.print(f"not checked: {listed(failed)}")
    out.document(reports[0] if outside or kind is not None else {"targets": reports})
    if any(r.get("broken") for r in reports):
        return UNHEALTHY
    return max((error.exit_code for error in failed.values()), default=0)


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


def argument(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` of --arg, with the value read as TOML."""
    parts, value = parse(text)
    if len(parts) != 1:
        raise VqtoolError(f"`{text}` names no argument", hint="KEY=VALUE, as in --arg dim=64", where=f"--arg {text}")
    return parts[0], value


def of_role(role: str, kind: str | None, options: dict[str, Any], seed: int) -> list[tuple[str, Callable[[], Any]]]:
    """(name, check) of one kind or of every kind of a role."""
    cat = catalog()
    if role not in WITH_LAWS:
        if role in cat.roles:
            raise VqtoolError(f"there are no laws for the role `{role}` yet", hint=f"those are of {listed(WITH_LAWS)}")
        raise VqtoolError(
            f"`{role}` is neither a role nor FILE.py:CLASS nor package.module:CLASS",
            hint=did_you_mean(role, cat.roles, otherwise="vqtool verify quantizer residual-ema"),
        )
    if role == "quantizer":
        width(options)
    kinds = [kind] if kind is not None else cat.names(role)
    return [(f"{role} {name}", partial(judged_kind, role, name, options, seed)) for name in kinds]


def judged_kind(role: str, name: str, options: dict[str, Any], seed: int) -> list[Any]:
    """The outcomes of every law of a role on a kind of ours or of a plugin's."""
    from vqtool.recipe.options import options_of

    cls = catalog().load(role, name)
    given = {key: value for key, value in options.items() if key != "dim" or role != "quantizer"}
    checked, problems = options_of(cls).check(given, f"{role} `{name}`", page=f"vqtool plugins {role} {name}")
    if problems:
        raise VqtoolError(problems[0].message, hint=problems[0].hint, where="--arg")
    known = {key: checked[key] for key in given}
    return judged_prior(cls, known, seed) if role == "prior" else judged_quantizer(cls, options | known, seed)


def judged_quantizer(cls: Any, options: Mapping[str, Any], seed: int) -> list[Any]:
    """Every law of quantizers on a class; `dim` is its width, not an option of its own."""
    from vqtool.conformance import QUANTIZER_LAWS, Subject, judge_all

    given = {key: value for key, value in options.items() if key != "dim"}
    subject = Subject(cls, dim=width(options), options=given, seed=seed)
    subject.new()  # a width or an option that the class refuses is the user's to fix, not a broken law
    return judge_all(QUANTIZER_LAWS, subject)


def width(options: Mapping[str, Any]) -> int:
    """The latent width to try a quantizer at."""
    dim = options.get("dim", DIM)
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise VqtoolError(f"`dim` is a whole number from 1, not {dim!r}", where="--arg")
    return dim


def judged_prior(cls: Any, options: Mapping[str, Any], seed: int) -> list[Any]:
    """Every law of priors on a class."""
    from vqtool.conformance import PRIOR_LAWS, PriorSubject, judge_all

    subject = PriorSubject(cls, options=options, seed=seed)
    subject.new()
    return judge_all(PRIOR_LAWS, subject)


def from_outside(target: str, options: dict[str, Any], seed: int) -> tuple[str, Callable[[], Any]]:
    """(name, check) of a class in a file or module: a vqtool quantizer or prior, or a foreign module."""
    from torch import nn

    from vqtool.api import Prior, Quantizer

    place, _, class_name = target.rpartition(":") if ":" in target else (target, "", "")
    module = imported(place)
    cls = member(module, class_name, place)
    if isinstance(cls, type) and issubclass(cls, Quantizer):
        return target, partial(judged_quantizer, cls, options, seed)
    if isinstance(cls, type) and issubclass(cls, Prior):
        return target, partial(judged_prior, cls, options, seed)
    if not callable(cls) or (isinstance(cls, type) and not issubclass(cls, nn.Module)):
        raise VqtoolError(f"`{class_name}` is not a torch module", hint="name a class derived from torch.nn.Module")
    return target, partial(judged_foreign_module, cls, target, options)


def judged_foreign_module(cls: Callable[..., Any], target: str, options: dict[str, Any]) -> list[Any]:
    """Every law that can be probed from outside on a foreign module."""
    from vqtool.conformance import FOREIGN_LAWS, infer_interface, judge_all
    from vqtool.conformance.foreign_module import signature_gaps
    from vqtool.conformance.law import in_a_line, tried

    gaps = signature_gaps(cls, options)
    if gaps:
        needed = " ".join(f"--arg {gap}=..." for gap in gaps)
        raise VqtoolError(f"`{target}` needs {listed(gaps)}", hint=f"vqtool verify {target} {needed}")
    built = tried(lambda: cls(**options))
    if isinstance(built, BaseException):
        raise VqtoolError(
            f"`{target}` cannot be built: {in_a_line(built)}", hint="give its arguments with --arg KEY=VALUE"
        ) from built
    foreign = infer_interface(lambda: cls(**options), target, options)
    out.say(f"it takes {foreign.layout} with D = {foreign.dim}")
    return judge_all(FOREIGN_LAWS, foreign)


def imported(place: str) -> ModuleType:
    """The module of a file or of a dotted name; what goes wrong in it is one error."""
    try:
        if place.endswith(".py"):
            path = Path(place)
            if not path.is_file():
                raise VqtoolError(f"there is no file `{place}`")
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


def report(name: str, outcomes: list[Any]) -> dict[str, Any]:
    """The outcomes as the document that --json prints."""
    rows = [outcome.row() for outcome in outcomes]
    count = {status: sum(row["status"] == status for row in rows) for status in ("kept", "broken", "n/a")}
    return {"target": name, "kept": count["kept"], "broken": count["broken"], "laws": rows}


def show(document: dict[str, Any]) -> None:
    """The report for people: a line a law, and for each broken one what it does and how to fix it."""
    rows = [[row["id"], row["status"], figure(row["figure"]), row["note"]] for row in document["laws"]]
    out.result_table(document["target"], ["law", "status", "figure", "what was measured"], rows, gap=False)
    for row in document["laws"]:
        if row["status"] == "broken":
            out.print(f"\nbroken: {row['id']}  {figure(row['figure'])} {row['note']}")
            out.print(f"  law:   {row['meaning']}\n  does:  {row['harm']}\n  fix:   {row['fix']}")
    out.print(f"\n{document['target']}: {document['kept']} laws kept, {document['broken']} broken\n")


def figure(value: float | None) -> str:
    """A figure in few characters."""
    return "" if value is None else f"{value:.4g}"
