"""`vqtool show`: what a checkpoint or a run holds, read without torch from headers and small files alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqtool.console import out, table_text
from vqtool.errors import VqtoolError
from vqtool.metadata import check_format
from vqtool.untrusted import json_value

LONGEST_HEADER = 100_000_000  # bytes; the limit of safetensors itself


def run(*, path: Path) -> int:
    """Show a checkpoint's file or a run's folder."""
    if path.is_dir():
        return show_run(path)
    if not path.exists():
        raise VqtoolError(
            f"there is no checkpoint or run `{path}`", hint="a .safetensors file, or a folder under runs/"
        )
    return show_checkpoint(path)


def show_checkpoint(path: Path) -> int:
    """Say what a checkpoint was made by and what it holds."""
    about, tensors = read_header(path)
    values = {key: parsed(value) for key, value in about.items()}
    resolved = values.get("resolved") if isinstance(values.get("resolved"), dict) else {}
    facts = [
        ["checkpoint", path],
        ["format", about.get("format", "")],
        ["vqtool", about.get("version", "")],
        ["stage", f"{about.get('stage', '')}, step {about.get('step', '?')}"],
        ["plugins", ", ".join(f"{k} {v}" for k, v in items(values.get("plugins")))],
        ["size", f"{path.stat().st_size:,} bytes, {sum(count(t) for t in tensors.values()):,} numbers"],
    ]
    out.print(table_text("", ["", ""], facts, out.result_stream).strip())
    show_resolved(resolved)
    show_tensors(tensors)
    show_figures("metrics", values.get("metrics"))
    show_figures("knobs", values.get("knobs"))
    sizes = {name: {"dtype": t["dtype"], "shape": t["shape"]} for name, t in tensors.items()}
    out.document({"checkpoint": str(path), **values, "tensors": sizes})
    return 0


def show_run(folder: Path) -> int:
    """Say what a run was asked for, how far it came, and which files it holds."""
    resolved = read_json(folder / "resolved.json")
    if resolved is None:
        raise VqtoolError(f"`{folder}` is no run: it holds no resolved.json", hint="a folder under runs/")
    environment = read_json(folder / "environment.json") or {}
    summary = read_json(folder / "summary.json")
    checkpoints = sorted(folder.glob("*.safetensors"), key=lambda p: (p.stat().st_mtime, p.name))
    state = "finished" if summary is not None else "resumable" if (folder / "resume.safetensors").is_file() else "begun"
    facts = [
        ["run", folder],
        ["state", state],
        ["made by", ", ".join(f"{k} {environment[k]}" for k in ("vqtool", "torch", "python") if k in environment)],
        ["device", environment.get("device", "")],
        ["plugins", ", ".join(f"{k} {v}" for k, v in items(environment.get("plugins")))],
    ]
    out.print(table_text("", ["", ""], facts, out.result_stream).strip())
    show_resolved(resolved)
    rows = [[p.name, f"{p.stat().st_size:,}"] for p in checkpoints]
    out.print("\n" + table_text("checkpoints", ["file", "bytes"], rows, out.result_stream))
    last = last_rows(folder / "metrics.jsonl")
    for row in last:
        show_figures(f"last {row.get('split', '')} row of stage {row.get('stage', '?')}".replace("  ", " "), row)
    show_splits(summary)
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


def read_header(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The metadata and the tensors' table of a checkpoint: an 8-byte length and JSON, no tensor is read.

    Raises:
        VqtoolError: the file is truncated, no safetensors file, or not one of vqtool's.
    """
    hint = "it may be truncated or of another kind"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length < 2 or length > LONGEST_HEADER:
                raise VqtoolError(f"`{path}` is no safetensors file", hint=hint)
            raw = file.read(length)
    except OSError as error:
        raise VqtoolError(f"cannot read `{path}`: {error.strerror or error}", exit_code=1) from error
    if not raw.startswith(b"{"):
        raise VqtoolError(f"`{path}` is no safetensors file", hint=hint)
    if len(raw) < length:
        raise VqtoolError(f"`{path}` is truncated: its header ends early", hint="it was cut off while copied or saved")
    try:
        tensors = json_value(raw)
        about = tensors.pop("__metadata__", None) or {}
        end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    except (ValueError, AttributeError, TypeError, KeyError, IndexError):
        raise VqtoolError(f"`{path}` is no safetensors file", hint=hint) from None
    if size < 8 + length + end:
        raise VqtoolError(
            f"`{path}` is truncated: {size:,} of {8 + length + end:,} bytes",
            hint="it was cut off while copied or saved",
        )
    if "format" not in about:
        raise VqtoolError(
            f"`{path}` is a safetensors file, but none of vqtool's", hint="vqtool train RECIPE makes them"
        )
    check_format(path, about)
    return about, tensors


def show_resolved(resolved: Any) -> None:
    """The parts and stages of a recipe, as it was resolved."""
    if not isinstance(resolved, dict) or not isinstance(resolved.get("parts"), dict):
        return
    every = {"data": resolved.get("data") or {}, **resolved["parts"]}
    parts = [
        [name, part.get("kind", ""), ", ".join(f"{k}={short(v)}" for k, v in items(part.get("options")))]
        for name, part in every.items()
    ]
    out.print(
        "\n" + table_text(resolved.get("title") or "parts", ["part", "kind", "options"], parts, out.result_stream)
    )
    stages = [
        [
            stage["name"],
            stage["task"]["kind"],
            stage["train"].get("steps") or f"{stage['train'].get('epochs')} epochs",
            ", ".join(f"{loss['name']} {loss['weight']:g}" for loss in stage["losses"]),
        ]
        for stage in resolved.get("stages", [])
    ]
    out.print("\n" + table_text("stages", ["stage", "task", "steps", "losses"], stages, out.result_stream))


def show_tensors(tensors: Mapping[str, Any]) -> None:
    """How many numbers each part holds."""
    sizes: dict[str, list[int]] = {}
    for name, tensor in tensors.items():
        part = name.removeprefix("parts.").split(".")[0]
        many, numbers = sizes.setdefault(part, [0, 0])
        sizes[part] = [many + 1, numbers + count(tensor)]
    rows = [[part, many, f"{numbers:,}"] for part, (many, numbers) in sizes.items()]
    out.print("\n" + table_text("tensors", ["part", "tensors", "numbers"], rows, out.result_stream))


def show_figures(title: str, figures: Any) -> None:
    """Names and values."""
    rows = [[name, short(value)] for name, value in items(figures)]
    if rows:
        out.print("\n" + table_text(title, ["name", "value"], rows, out.result_stream))


def show_splits(summary: Any) -> None:
    """The held-out figures of a finished run."""
    splits = summary.get("splits") if isinstance(summary, dict) else None
    for split, scores in items(splits):
        baselines = scores.get("baselines", {})
        rows = [
            [name, short(value), *(short(other.get(name, "")) for other in baselines.values())]
            for name, value in items(scores.get("model"))
        ]
        head = ["metric", "model", *baselines]
        out.print("\n" + table_text(f"held-out: {split}", head, rows, out.result_stream))


def last_rows(path: Path) -> list[dict[str, Any]]:
    """The last row of each stage and split of `metrics.jsonl`; a half-written line is left out."""
    last: dict[tuple[Any, Any], dict[str, Any]] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    for line in lines:
        row = parsed(line)
        if isinstance(row, dict):
            last[row.get("stage"), row.get("split")] = row
    return list(last.values())


def read_json(path: Path) -> Any:
    """A JSON file's value; None where there is none."""
    try:
        return json_value(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise VqtoolError(f"`{path}` is damaged: {error}", exit_code=1) from error


def parsed(text: str | bytes) -> Any:
    """Metadata are strings: JSON where it is, else the text itself."""
    try:
        return json_value(text)
    except ValueError:
        return text


def items(value: Any) -> list[tuple[str, Any]]:
    """A mapping's items; none of anything else."""
    return list(value.items()) if isinstance(value, dict) else []


def count(tensor: Mapping[str, Any]) -> int:
    """How many numbers a tensor holds."""
    return math.prod(tensor.get("shape", [0]))


def short(value: Any) -> str:
    """A value in few characters."""
    if isinstance(value, dict) and set(value) == {"$path"}:
        return str(value["$path"])
    return f"{value:.4g}" if isinstance(value, float) else str(value)
