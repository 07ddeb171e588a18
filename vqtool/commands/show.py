"""`vqtool show`: what a checkpoint, a run or any file of tensors holds, read from headers and small files alone."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqtool.catalog import FileFormat, catalog
from vqtool.console import out, table_text
from vqtool.errors import VqtoolError
from vqtool.forms import RESOLVED, read_json
from vqtool.model.format import (
    ENVIRONMENT_FILE,
    METRICS_FILE,
    PARTS,
    RESOLVED_FILE,
    RESUME,
    SUMMARY_FILE,
    is_of_vqtool,
    read_header,
)
from vqtool.model.runs import ENVIRONMENT, SUMMARY, checkpoint_path, is_run, rows_of
from vqtool.tables import DETAIL, split_tables


def run(*, path: Path) -> int:
    """Show a checkpoint's file or a run's folder."""
    if not path.exists():
        path = checkpoint_path(path)  # the name of a model that comes with vqtool
    if path.is_dir() and is_run(path):
        return show_run(path)
    if path.is_file() and is_of_vqtool(path):
        return show_checkpoint(path)
    if path.is_file() and (target := format_of_plugin(path)):
        return show_file_of_plugin(path, target)
    return show_foreign(path)


def format_of_plugin(path: Path) -> str | None:
    """What describes a file in a plugin's own format; None of any other file."""
    with path.open("rb") as file:
        head = file.read(16)
    formats = catalog().hooks.collect("vqtool_file_formats", FileFormat)
    return next((one.target for one in formats if head.startswith(one.head)), None)


def show_file_of_plugin(path: Path, target: str) -> int:
    """Show what the plugin says of its file."""
    module, _, function = target.partition(":")
    said = getattr(importlib.import_module(module), function)(path)
    holds = {"file": str(path), "bytes": path.stat().st_size, **said}
    rows = [[name, f"{value:.3f}" if isinstance(value, float) else value] for name, value in holds.items()]
    out.print(table_text("", ["", ""], rows, out.result_stream).strip())
    out.document(holds)
    return 0


def show_foreign(path: Path) -> int:
    """Show the tensors of any other file or model's folder, and which of them are codebooks."""
    from vqtool.foreign.families import codebooks_in, natural
    from vqtool.foreign.tensors import tensors_of

    tensors = tensors_of(path)
    numbers = sum(math.prod(s.shape) for s in tensors.values())
    facts: list[list[Any]] = [["file", path], ["size", f"{len(tensors):,} tensors, {numbers:,} numbers"]]
    out.print(table_text("", ["", ""], facts, out.result_stream).strip())
    alike: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for name in sorted(tensors, key=natural):
        alike.setdefault((re.sub(r"\d+", "*", name), tensors[name].dtype, tensors[name].shape), []).append(name)
    rows = [[(names[0] or "(unnamed)") if len(names) == 1 else pattern, len(names), kind, list(shape)]
            for (pattern, kind, shape), names in alike.items()]  # fmt: skip
    out.result_table("tensors", ["name", "tensors", "dtype", "shape"], rows)
    books = codebooks_in(tensors)
    found = [[b.name, b.family, list(b.vectors.shape), b.counts_tensor or "none"] for b in books]
    if found:
        out.result_table("codebooks", ["name", "family", "shape", "counts"], found)
    sizes = {name: {"dtype": s.dtype, "shape": list(s.shape)} for name, s in tensors.items()}
    known = [dict(zip(("name", "family", "shape", "counts"), row, strict=True)) for row in found]
    out.document({"file": str(path), "tensors": sizes, "codebooks": known})
    return 0


def show_checkpoint(path: Path) -> int:
    """Say what a checkpoint, or a file of codes, was made by and what it holds."""
    header = read_header(path)
    metadata = header.metadata
    facts = [["checkpoint", path], ["format", metadata.get("format", "")], ["vqtool", metadata.get("version", "")]]
    if metadata.get("kind") == "codes":
        books = ", ".join(map(str, metadata.get("codebook_sizes", [])))
        facts[0][0] = "codes"
        facts += [["codebooks", books], ["of the model", metadata.get("model", "")]]
    else:
        facts += [
            ["stage", f"{metadata.get('stage', '')}, step {metadata.get('step', '?')}"],
            ["plugins", ", ".join(f"{k} {v}" for k, v in items(metadata.get("plugins")))],
        ]
    facts += [
        ["size", f"{path.stat().st_size:,} bytes, {header.numbers:,} numbers"],
    ]
    out.print(table_text("", ["", ""], facts, out.result_stream).strip())
    show_resolved(metadata.get("resolved"))
    show_tensors(header.tensors)
    show_figures("metrics", metadata.get("metrics"))
    show_figures("knobs", metadata.get("knobs"))
    sizes = {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in header.tensors.items()}
    out.document({"checkpoint": str(path), **metadata, "tensors": sizes})
    return 0


def show_run(folder: Path) -> int:
    """Say what a run was asked for, how far it came, and which files it holds."""
    resolved = optional(folder / RESOLVED_FILE, RESOLVED)
    if resolved is None:
        raise VqtoolError(f"`{folder}` is not a run: it holds no resolved.json", hint="a folder under runs/")
    environment = optional(folder / ENVIRONMENT_FILE, ENVIRONMENT) or {}
    summary = optional(folder / SUMMARY_FILE, SUMMARY)
    checkpoints = sorted(folder.glob("*.safetensors"), key=lambda p: (p.stat().st_mtime, p.name))
    state = "resumable" if (folder / RESUME).is_file() else "begun" if summary is None else "finished"
    facts: list[list[Any]] = [
        ["run", folder],
        ["state", state],
        ["made by", ", ".join(f"{k} {environment[k]}" for k in ("vqtool", "torch", "python") if k in environment)],
        ["device", environment.get("device", "")],
        ["plugins", ", ".join(f"{k} {v}" for k, v in items(environment.get("plugins")))],
    ]
    out.print(table_text("", ["", ""], facts, out.result_stream).strip())
    show_resolved(resolved)
    rows = [[p.name, f"{p.stat().st_size:,}"] for p in checkpoints]
    out.result_table("checkpoints", ["file", "bytes"], rows)
    last = last_rows(folder / METRICS_FILE)
    for row in last:
        show_figures(f"last {row.get('split', '')} row of stage {row.get('stage', '?')}".replace("  ", " "), row)
    for title, columns, figures in split_tables((summary or {}).get("splits", {})):
        out.result_table(title, columns, figures)
    out.document(
        {
            "run": str(folder),
            "state": state,
            "resolved": resolved,
            "environment": environment,
            "checkpoints": [p.name for p in checkpoints],
            "last": last,
            "summary": summary,
        }
    )
    return 0


def show_resolved(resolved: Mapping[str, Any] | None) -> None:
    """The parts and stages of a recipe, as it was resolved."""
    if resolved is None:
        return
    every = {"data": resolved["data"], **resolved["parts"]}
    parts = [
        [name, part["kind"], ", ".join(f"{k}={short(v)}" for k, v in items(part["options"]))]
        for name, part in every.items()
    ]
    out.result_table(resolved.get("title") or "parts", ["part", "kind", "options"], parts)
    stages = [
        [
            stage["name"],
            stage["task"]["kind"],
            stage["train"].get("steps") or f"{stage['train'].get('epochs')} epochs",
            ", ".join(f"{loss['name']} {loss['weight']:g}" for loss in stage["losses"]),
        ]
        for stage in resolved["stages"]
    ]
    out.result_table("stages", ["stage", "task", "steps", "losses"], stages)


def show_tensors(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """How many numbers each part holds."""
    sizes: dict[str, list[int]] = {}
    for name, (_, shape) in tensors.items():
        part = name.removeprefix(PARTS).split(".")[0]
        many, numbers = sizes.setdefault(part, [0, 0])
        sizes[part] = [many + 1, numbers + math.prod(shape)]
    rows = [[part, many, f"{numbers:,}"] for part, (many, numbers) in sizes.items()]
    out.result_table("tensors", ["part", "tensors", "numbers"], rows)


def show_figures(title: str, figures: Any) -> None:
    """Names and values."""
    rows = [[name, short(value)] for name, value in items(figures) if not DETAIL.search(name)]
    if rows:
        out.result_table(title, ["name", "value"], rows)


def last_rows(path: Path) -> list[dict[str, Any]]:
    """The last row of each stage and split of `metrics.jsonl`."""
    return list({(str(row.get("stage")), str(row.get("split"))): row for row in rows_of(path)}.values())


def optional(path: Path, form: Any) -> Any:
    """A JSON file's value; None where there is none."""
    try:
        return read_json(path, form)
    except FileNotFoundError:
        return None


def items(value: Any) -> list[tuple[str, Any]]:
    """A mapping's items; none of anything else."""
    return list(value.items()) if isinstance(value, dict) else []


def short(value: Any) -> str:
    """A value in few characters."""
    if isinstance(value, dict) and set(value) == {"$path"}:
        return str(value["$path"])
    return f"{value:.4g}" if isinstance(value, float) else str(value)
