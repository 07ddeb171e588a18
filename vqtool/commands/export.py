"""`vqtool export`: the ways from signals to codes and from codes to signals, as ONNX files or torch.export programs."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.api import Batch, Classifies, Decodes, Encodes, Task, Transmits
from vqtool.api.task import Parts
from vqtool.commands import outputs
from vqtool.console import out
from vqtool.errors import VqtoolError, missing_extra
from vqtool.files import make_dir, write_atomic
from vqtool.model.checkpoint import load as load_checkpoint
from vqtool.model.checkpoint import save_half
from vqtool.model.data import open_data
from vqtool.model.load import capable
from vqtool.model.model import Model
from vqtool.model.runs import checkpoint_path
from vqtool.training.lock import writing_beside

ROWS = 3  # of the batch that a way is traced with: 0 and 1 would be taken for constants
AGREE = 1e-5  # the largest difference to PyTorch, as a share of the largest value


class Way(nn.Module):
    """A way through a task's parts, from tensors in a fixed order to tensors in a fixed order."""

    def __init__(
        self,
        name: str,
        parts: Parts,
        function: Callable[[Batch], Mapping[str, Tensor]],
        takes: Sequence[str],
        gives: Sequence[str],
    ) -> None:
        super().__init__()
        self.name, self.parts, self.function, self.takes, self.gives = name, parts, function, tuple(takes), tuple(gives)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What `function` gives for the inputs under their names."""
        given = self.function(dict(zip(self.takes, inputs, strict=True)))
        return tuple(given[name] for name in self.gives)


def run(*, checkpoint: Path, to: str, out_dir: Path | None, force: bool = False) -> int:
    """Write the checkpoint as float16; or each way of its task as ONNX or `.pt2`, compared with PyTorch."""
    if to == "fp16":
        path = checkpoint_path(checkpoint)
        return export_half(path, out_dir or (path.parent if checkpoint.exists() else Path()), force=force)
    if to == "onnx":
        need("onnx", "onnxscript", "onnxruntime")
    model, task = capable(checkpoint, Encodes, "encode")
    folder = out_dir or (checkpoint if checkpoint.is_dir() else checkpoint.parent)
    model.parts.eval().requires_grad_(False)
    paths: dict[str, Any] = {}
    targets = [folder / f"{name}.{to}" for name in names_of_ways(model, task)]
    outputs.check(*targets, inputs=[checkpoint_path(checkpoint)], force=force,
                  recipe=model.recipe, folder=folder)  # fmt: skip
    make_dir(folder)
    with writing_beside(folder), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own; the comparison is what counts
        for way, inputs in ways(model, task):
            path = folder / f"{way.name}.{to}"
            difference = written(way, inputs, path)
            paths[way.name] = {"file": str(path), "inputs": way.takes, "outputs": way.gives, "difference": difference}
            out.say(
                f"{path}: {', '.join(way.takes)} -> {', '.join(way.gives)}; differs from PyTorch by {difference:.1e}"
            )
            out.print(str(path))
    out.document({"to": to, "paths": paths})
    return 0


def export_half(path: Path, out_dir: Path, *, force: bool) -> int:
    """Write a checkpoint with its weights as float16, half as large."""
    target = out_dir / f"{path.name.removesuffix(path.suffix)}.fp16.safetensors"
    read = load_checkpoint(path)
    outputs.check(target, inputs=[path], force=force, folder=target.parent)
    make_dir(target.parent)
    save_half(target, read)
    out.say(f"{target}: {target.stat().st_size:,} bytes")
    out.print(str(target))
    out.document({"to": "fp16", "paths": {"checkpoint": {"file": str(target)}}})
    return 0


def need(*libraries: str) -> None:
    """Import what the format needs, or name the extra."""
    for library in libraries:
        try:
            __import__(library)
        except ImportError as error:
            raise missing_extra(library, "onnx", "`--to onnx`") from error


def names_of_ways(model: Model, task: Any) -> list[str]:
    """What the files of the ways are called; a further form of what arrives names its tensors."""
    ends: list[str] = []
    if "channel" in model.parts and isinstance(task, Transmits):
        others = model.parts.channel.arrivals[1:]
        ends = ["transmit", "receive", *("-".join(["receive", *form]) for form in others)]
    if isinstance(task, Decodes) or not isinstance(task, Classifies):
        return ["encode", *(["decode"] if isinstance(task, Decodes) else []), *ends]
    return ends or ["classify"]


def ways(model: Model, task: Any) -> list[tuple[Way, tuple[Tensor, ...]]]:
    """The ways a task has, with the inputs to trace them by."""
    batch = sample(model)
    names = names_of_ways(model, task)
    ends = ends_apart(model, task, batch) if "transmit" in names else []
    if "classify" in names:
        return [made("classify", model.parts, lambda x: {"logits": task.classify(model.parts, x)}, batch, ("logits",))]
    if "encode" not in names:
        return ends
    coded = task.encode(model.parts, batch)
    sent = ("sent",) if coded["sent"].shape[1] else ()
    found = [made("encode", model.parts, lambda given: task.encode(model.parts, given), batch, ("codes", *sent))]
    if isinstance(task, Decodes) and isinstance(task, Task):

        def decode(given: Batch) -> dict[str, Tensor]:
            codes = given["codes"]
            none = codes.new_zeros(codes.shape[0], 0, dtype=torch.float32)
            pair = {"codes": codes, "sent": given.get("sent", none)}
            rest = {name: value for name, value in given.items() if name not in pair}
            return {"x_hat": task.decode(model.parts, pair, rest)}

        conditions = {name: value for name, value in batch.items() if name != "x"}
        codes = {name: coded[name] for name in ("codes", *sent)}
        found.append(made("decode", model.parts, decode, conditions, ("x_hat",), always=codes))
    return found + ends


def ends_apart(model: Model, task: Any, batch: Batch) -> list[tuple[Way, tuple[Tensor, ...]]]:
    """Both ends of a channel: noise is no part of what is exported."""
    parts, reads = model.parts, "logits" if isinstance(task, Classifies) else "x_hat"
    conditions = {name: value for name, value in batch.items() if name != "x"}
    gives = tuple(task.send(parts, batch))
    found = [made("transmit", parts, lambda given: task.send(parts, given), batch, gives)]
    names = [name for name in names_of_ways(model, task) if name.startswith("receive")]
    for name, form in zip(names, task.observe(parts, batch), strict=True):
        found.append(made(name, parts, lambda given: {reads: task.receive(parts, given)}, conditions, (reads,),
                          always=form))  # fmt: skip
    return found


def made(
    name: str, parts: Parts, function: Callable[[Batch], Mapping[str, Tensor]], batch: Batch, gives: Sequence[str], *,
    always: Mapping[str, Tensor] | None = None,
) -> tuple[Way, tuple[Tensor, ...]]:  # fmt: skip
    """A way that takes all of `always` and the fields of `batch` that `function` reads, with these inputs."""
    first = dict(always or {})
    fields = needed(batch, lambda given: function({**first, **given}))
    inputs = {**first, **{name: batch[name] for name in fields}}
    return Way(name, parts, function, tuple(inputs), gives), tuple(inputs.values())


def sample(model: Model) -> Batch:
    """Rows to trace with: real ones where the recipe's data are here, else random ones of the same shapes.

    Whole windows without a mask: what is exported takes rows of one length.
    """
    try:
        if model.spec.named("mask"):
            raise IndexError  # its rows are padded
        return dict(open_data(model.recipe).rows("valid").__getitems__(list(range(ROWS))))
    except (VqtoolError, OSError, IndexError):
        generator = torch.Generator().manual_seed(0)
        return {
            name: torch.zeros(ROWS, *field.shape, dtype=torch.long)
            if field.role in ("category", "label")
            else 0.5 + torch.rand(ROWS, *field.shape, generator=generator)
            for name, field in model.spec.fields.items()
            if field.role != "mask"
        }


def needed(batch: Batch, function: Callable[[Batch], Any]) -> tuple[str, ...]:
    """The fields that `function` reads: those without which it fails."""
    kept = dict(batch)
    for name in batch:
        try:
            function({other: value for other, value in kept.items() if other != name})
        except Exception:  # parts of plugins may fail in any way without a field; other errors show when all are given
            continue
        del kept[name]
    return tuple(kept)


def written(way: Way, inputs: tuple[Tensor, ...], path: Path) -> float:
    """Write one way with a free batch size and run what was written; how far it is from PyTorch."""
    batch = torch.export.Dim("batch", min=1)
    try:
        program = torch.export.export(way, inputs, dynamic_shapes={"inputs": tuple({0: batch} for _ in inputs)})
        content, got = as_onnx(way, program, inputs) if path.suffix == ".onnx" else as_program(program, inputs)
    except Exception as error:  # whatever the exporters make of a part that they cannot capture
        raise VqtoolError(
            f"`{way.name}` cannot be exported to {path.suffix[1:]}: {reason(error)}",
            hint=f"a newer torch than {torch.__version__} captures more operators"
            if "unsupported operator" in str(error)
            else "law `exports` of `vqtool verify quantizer KIND` shows whether the quantizer is the cause"
            + ("; --to pt2 takes more" if path.suffix == ".onnx" else ""),
            exit_code=1,
        ) from error
    difference = max(difference_of(a, b) for a, b in zip(way(*inputs), got, strict=True))
    if not difference <= AGREE:
        raise VqtoolError(
            f"`{way.name}` as {path.suffix[1:]} differs from PyTorch by {difference:.1e} of the largest value",
            hint=f"the bound is {AGREE:g}; the other format may do: --to {'pt2' if path.suffix == '.onnx' else 'onnx'}",
            exit_code=1,
        )
    write_atomic(path, content)
    return difference


def as_program(program: Any, inputs: tuple[Tensor, ...]) -> tuple[bytes, tuple[Tensor, ...]]:
    """A torch.export program as the bytes of a file, and what it gives when it is loaded again and run."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if hasattr(module, "graph") else ():
            node.meta.pop("stack_trace", None)  # it names the folders of this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    return buffer.getvalue(), tuple(torch.export.load(buffer).module()(*inputs))


def as_onnx(way: Way, program: Any, inputs: tuple[Tensor, ...]) -> tuple[bytes, tuple[Tensor, ...]]:
    """An ONNX model as the bytes of a file, and what it gives under onnxruntime."""
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of libraries that are not needed here
    made = torch.onnx.export(
        program, (), dynamo=True, verbose=False, input_names=list(way.takes), output_names=list(way.gives)
    )
    assert made is not None
    model = made.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # they name the folders of this machine
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    fed = {given.name: value.numpy() for given, value in zip(session.get_inputs(), inputs, strict=True)}
    return content, tuple(torch.from_numpy(value) for value in session.run(None, fed))


def difference_of(wanted: Tensor, got: Tensor) -> float:
    """The largest difference as a share of the largest value; for codes the share of those that differ."""
    if not wanted.is_floating_point():
        return float((wanted != got).double().mean())
    return float((wanted - got).abs().max() / wanted.abs().max().clamp_min(1e-30)) if wanted.numel() else 0.0


def reason(error: BaseException) -> str:
    """What the first cause of an error says."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
