"""`vqtool encode` and `vqtool decode`: a user's signals to codes, and codes back to signals."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vqtool.api import Decodes, Encodes, Task
from vqtool.catalog import catalog
from vqtool.commands.evaluate import checkpoint_path
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.training import checkpoint as files
from vqtool.training.build import Model, from_checkpoint
from vqtool.training.runtime import runtime


def run(*, checkpoint: Path, input_file: Path, out_file: Path, device: str) -> int:
    """Signals to codes, in a safetensors file with the conditions they need to be decoded."""
    fits_here(out_file)
    with runtime(device) as here, torch.no_grad():
        model, task = capable(checkpoint, Encodes, "encode")
        data = catalog().load("data", model.recipe.data.kind)
        batch, about = data.read(model.spec, input_file, condition=False)
        say_notes(about)
        model.parts.to(here.device).eval()
        coded = task.encode(model.parts, here.place(batch))
        tensors = {"codes": coded["codes"], "sent": coded["sent"]}
        tensors |= {f"condition.{name}": value for name, value in batch.items() if name != "x"}
        files.save(out_file, tensors, {"kind": "codes", "model": model_hash(model), "about": about})
    codes = coded["codes"]
    out.say(f"wrote codes {tuple(codes.shape)} (windows, tokens, codebooks) to {out_file}")
    out.print(str(out_file))
    out.document({"out": str(out_file), "codes": list(codes.shape)})
    return 0


def decode(*, checkpoint: Path, codes_file: Path, out_file: Path, device: str) -> int:
    """Codes back to signals in the units they came in."""
    fits_here(out_file)
    with runtime(device) as here, torch.no_grad():
        model, task = capable(checkpoint, Decodes, "decode")
        data = catalog().load("data", model.recipe.data.kind)
        read = files.load(codes_file)
        if read.about.get("kind") != "codes":
            raise VqtoolError(f"`{codes_file}` holds no codes", hint="vqtool encode CKPT INPUT --out FILE writes them")
        if read.about["model"] != model_hash(model):
            raise VqtoolError(
                f"`{codes_file}` was written with another model than `{checkpoint}`",
                hint="decode with the checkpoint that encoded it",
            )
        batch = {n.removeprefix("condition."): t for n, t in read.tensors.items() if n.startswith("condition.")}
        model.parts.to(here.device).eval()
        coded = here.place({"codes": read.tensors["codes"], "sent": read.tensors["sent"]})
        signal = task.decode(model.parts, coded, here.place(batch)).cpu()
        data.write(model.spec, out_file, signal, batch, read.about["about"])
    out.say(f"wrote {len(signal)} signals to {out_file}")
    out.print(str(out_file))
    out.document({"out": str(out_file), "signals": len(signal)})
    return 0


def capable(checkpoint: Path, protocol: type, verb: str) -> tuple[Model, Task]:
    """A model from a checkpoint or run, and its last task that can do what the verb needs."""
    path = checkpoint_path(checkpoint)
    model, _ = from_checkpoint(path)
    found = model.task(protocol)
    if found is None:
        tasks = ", ".join(f"`{stage.task.kind}`" for stage in model.recipe.stages if stage.name in model.tasks)
        raise VqtoolError(f"`{path}` cannot {verb}; it was trained with {tasks}")
    return model, found[1]


def model_hash(model: Model) -> str:
    """A digest of what codes mean: the quantizer's and decoder's weights, not those of later stages."""
    digest = hashlib.sha256()
    for name, value in sorted(model.parts.state_dict().items()):
        if name.split(".")[0] in ("norm", "conditioner", "encoder", "quantizer", "decoder"):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def say_notes(about: Mapping[str, Any]) -> None:
    """What the reader changed on the way (a resampling, say) is said aloud."""
    for note in about.get("notes", ()):
        out.say(note)


def fits_here(path: Path) -> None:
    """The folder of an output file must exist before anything is computed for it."""
    if not path.parent.is_dir():
        raise VqtoolError(
            f"there is no folder `{path.parent}` to write `{path.name}` to", hint=f"mkdir -p {path.parent}"
        )
