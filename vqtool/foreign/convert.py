"""`vqtool.convert`: quantizers of other libraries as ours, in memory and in files, and back."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

import vqtool
from vqtool.api.quantizer import Quantizer
from vqtool.api.spec import DataSpec, Field
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.files import write_atomic
from vqtool.foreign.origin import OWN, Origin, Source, given_back, origin, origin_of, planned, quantizer_of, recipe_of
from vqtool.foreign.plans import FAMILIES, KEYS, Hints
from vqtool.foreign.tensors import tensors_of, weights_of
from vqtool.forms import damaged
from vqtool.model import checkpoint
from vqtool.model.build import build
from vqtool.model.format import FAMILY, PARTS, SOURCE, read_table, under
from vqtool.model.load import load
from vqtool.model.runs import checkpoint_path

QUANTIZER = f"{PARTS}quantizer."


def convert(
    source: Source | str, to: str = OWN, *, part: str | None = None, into: Source | str | None = None
) -> Quantizer | dict[str, Tensor]:
    """A quantizer of another library as one of ours, or one of ours as that library's state dict.

    The quantizers of EnCodec, DAC, Mimi, VQGAN and vector-quantize-pytorch give the same codes to the last index in
    float32, in the layout of the original, with their counts as moving averages:

        model.quantizer = vqtool.convert(model.quantizer)
        state = vqtool.convert(model.quantizer, to="encodec")   # what the original class loads, strictly

    Args:
        source: a module or its state dict, of a quantizer alone or of the model that holds one; a file or folder with
            such tensors (see `vqtool diagnose`). With another `to`: one of our quantizers. A checkpoint of vqtool or a
            run stands for its quantizer, which comes as it is where `to` is "vqtool".
        to: "vqtool", or the library: "encodec", "dac", "mimi", "vqgan" or "vector-quantize-pytorch".
        part: what the names of the quantizer's tensors begin with, where a model has several.
        into: with another `to`, what has the other tensors that the state dict needs, and their names: a module, its
            state dict or its file. By default what the quantizer was converted from.

    Returns:
        Our quantizer, on the CPU and in evaluation; or tensors by name. What was not changed in between comes back bit
        for bit.

    Raises:
        VqtoolError: there is no such quantizer, or one that has no equal; the error says why.
    """
    if to not in (OWN, *KEYS):
        raise VqtoolError(f'there is no library "{to}"', hint=f"one of {', '.join((OWN, *KEYS))}")
    source = Path(source) if isinstance(source, str) else source
    if isinstance(source, Path) and is_checkpoint(source):
        source = quantizer_in(source)
        if to == OWN:
            return source
    if to != OWN:
        if not isinstance(source, Quantizer):
            raise VqtoolError(f'only a quantizer of vqtool can be converted to "{to}"', hint="vqtool.convert(module)")
        into = Path(into) if isinstance(into, str) else into
        return given_back(source.state_dict(), origin_of(source, to, into, part))
    if isinstance(source, Quantizer):
        raise VqtoolError("this is a quantizer of vqtool", hint=f'to="{KEYS[0]}", ...: {", ".join(KEYS)}')
    return quantizer_of(origin(source, part))


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint of vqtool, or a run."""
    if path.is_dir():
        return (path / "resolved.json").is_file()
    try:
        return read_table(path)[0].get("format", "").startswith(FAMILY)
    except VqtoolError:
        return False


def save(path: Path, found: Origin) -> Quantizer:
    """Write a checkpoint of the converted quantizer; gives the quantizer."""
    recipe = recipe_of(found)
    model = build(recipe, DataSpec({"x": Field((found.plan.dim, 1), "signal")}))
    quantizer = quantizer_of(found)
    model.parts["quantizer"].load_state_dict(quantizer.state_dict())
    source = {f"{SOURCE}{name}": tensor for name, tensor in found.tensors.items()}
    checkpoint.save(path, model.tensors() | source, {
        "version": vqtool.__version__,
        "recipe": recipe.kept_text(),
        "resolved": recipe.resolved(path.parent),
        "stage": recipe.stages[0].name,
        "step": 0,
        "data": model.spec.to_json(),
        "plugins": {},
        "converted": {"from": found.family.key, "root": found.root, **asdict(found.hints)},
        **model.metadata(),
    })  # fmt: skip
    return quantizer


def quantizer_in(path: Path) -> Quantizer:
    """The quantizer of a checkpoint of vqtool; of a converted one with what it came from, and in its layout.

    Raises:
        VqtoolError: it holds none.
    """
    path = checkpoint_path(path)
    read = checkpoint.load(path)
    converted = read.metadata.get("converted")
    if converted is None:
        model = load(path)
        if model.quantizer is None:
            raise VqtoolError(f"`{path}` holds no quantizer")
        return model.quantizer.cpu().eval()
    family = next((family for family in FAMILIES if family.key == converted["from"]), None)
    if family is None:
        raise damaged(path, f"its `converted` names the library `{converted['from']}`")
    hints = Hints(**{name: converted[name] for name in asdict(Hints())})
    quantizer = quantizer_of(planned(family, converted["root"], under(SOURCE, read.tensors), hints))
    checkpoint.fill(quantizer, under(QUANTIZER, read.tensors), str(path))
    return quantizer


def put_back(into: Path, target: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a copy of a model's file, or of its folder, with some of its tensors replaced; all else as it was.

    Raises:
        VqtoolError: the files are of another kind, or the target is there already.
    """
    if not into.is_dir():
        write_atomic(target, replaced(into, tensors))
        return
    if target.exists() and any(target.iterdir()):
        raise VqtoolError(f"`{target}` exists already", hint="give the name of a new folder")
    files = {path: replaced(path, tensors) for path in weights_of(into) if tensors.keys() & tensors_of(path).keys()}
    shutil.copytree(into, target, dirs_exist_ok=True)
    for path, content in files.items():
        write_atomic(target / path.name, content)


def replaced(path: Path, tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a file of tensors with some of them replaced, in the types that it stores them in."""
    if path.suffix == ".safetensors":
        with safe_open(str(path), "pt") as file:
            metadata, held = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        fresh = {name: fitted(name, tensors[name], old) for name, old in held.items() if name in tensors}
        return safetensors.torch.save(held | fresh, metadata)
    if path.suffix in (".npz", ".npy"):
        raise VqtoolError(f"`{path}` is not written to", hint="--into a .safetensors or torch file")
    buffer = io.BytesIO()
    torch.save(exchanged(torch.load(path, "cpu", weights_only=True), "", tensors), buffer)
    return buffer.getvalue()


def exchanged(value: Any, name: str, tensors: Mapping[str, Tensor]) -> Any:
    """A table of tensors, nested or not, with those of `tensors` in their places, in place."""
    if isinstance(value, Tensor):
        return fitted(name, tensors[name], value) if name in tensors else value
    if isinstance(value, dict):
        for key, one in value.items():
            value[key] = exchanged(one, f"{name}.{key}" if name else str(key), tensors)
    return value


def fitted(name: str, tensor: Tensor, old: Tensor) -> Tensor:
    """A tensor in the type of the one that it replaces; a warning where that rounds it."""
    fresh = tensor.to(old.dtype)
    if not torch.equal(fresh.to(tensor.dtype).nan_to_num(), tensor.nan_to_num()):
        kind = str(old.dtype).removeprefix("torch.")
        out.warn(f"`{name}` is stored as {kind}, which rounds it: some codes may differ")
    return fresh.contiguous()
