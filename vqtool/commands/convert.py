"""`vqtool convert`: a quantizer of another library as a checkpoint of vqtool, and back into that library's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch

from vqtool.commands import outputs
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.files import require_parent_dir, write_atomic
from vqtool.foreign.convert import is_checkpoint, put_back, quantizer_in, save
from vqtool.foreign.origin import OWN, given_back, origin, origin_of


def run(*, source: Path, to: str, into: Path | None, part: str | None, out_file: Path, force: bool = False) -> int:
    """Convert and write; prints the file written."""
    if (to == OWN) is is_checkpoint(source):
        raise VqtoolError(
            f"`{source}` is a checkpoint of vqtool" if to == OWN else f"`{source}` is not a checkpoint of vqtool",
            hint="--to the library that it came from" if to == OWN else f"--to {OWN} first",
        )
    if into is not None and (to == OWN or not into.exists()):
        raise VqtoolError("--into goes with --to another library" if to == OWN else f"there is no `{into}`")
    folder = into is not None and into.is_dir()
    if folder:
        require_parent_dir(out_file)
    else:
        outputs.check(out_file, inputs=[source, into], force=force)
    document = to_own(source, part, out_file) if to == OWN else to_library(source, to, into, part, out_file)
    out.print(str(out_file))
    out.document({"source": str(source), "to": to, "out": str(out_file), **document})
    return 0


def to_own(source: Path, part: str | None, target: Path) -> dict[str, Any]:
    """Write a checkpoint of the quantizer in a model's file."""
    if target.suffix != ".safetensors":
        raise VqtoolError(f"`{target}` should be a .safetensors file")
    found = origin(source, part)
    quantizer = save(target, found)
    sizes = dict(zip(quantizer.codebook_names, quantizer.codebook_sizes, strict=True))
    out.say(f"{found.family.name}: {len(sizes)} codebooks of {found.plan.dim} features"
            + (f", `{found.root.rstrip('.')}`" if found.root else ""))  # fmt: skip
    out.say(f"dead codes: vqtool improve {target} --latents latents.npy")
    return {"library": found.family.key, "part": found.root.rstrip("."), "codebooks": sizes}


def to_library(source: Path, to: str, into: Path | None, part: str | None, target: Path) -> dict[str, Any]:
    """Write the tensors of a quantizer as another library names them: alone, or among those of a model."""
    quantizer = quantizer_in(source)
    there = origin_of(quantizer, to, into, part)
    tensors = given_back(quantizer.state_dict(), there)
    changed = [name for name, tensor in tensors.items() if tensor is not there.tensors[name]]
    if into is None:
        if target.suffix != ".safetensors":
            raise VqtoolError(f"`{target}` should be a .safetensors file", hint="--into MODEL for a file of its kind")
        write_atomic(target, safetensors.torch.save({n: t.contiguous().clone() for n, t in tensors.items()},
                                                    {"format": "pt"}))  # fmt: skip
    else:
        put_back(into, target, {there.root + name: tensors[name] for name in changed})
    out.say(f"{len(changed)} of the quantizer's {len(tensors)} tensors changed")
    return {"part": there.root.rstrip("."), "changed": sorted(there.root + name for name in changed)}
