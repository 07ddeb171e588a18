"""A model: built parts, the tasks wired over them, and what a trained one does for its users."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from vqtool.api.data import Batch, DataSpec
from vqtool.api.files import Files
from vqtool.api.quantizer import Quantizer
from vqtool.api.spec import MASK
from vqtool.api.task import (
    Classifies,
    Decodes,
    Embeds,
    Encodes,
    Forecasts,
    Generates,
    Parts,
    Task,
    Transmits,
)
from vqtool.errors import VqtoolError
from vqtool.model.checkpoint import layout
from vqtool.model.data import user_files
from vqtool.model.fields import batch_of, check_transmit, fields_of
from vqtool.model.forecasting import Forecaster, SamplingOptions, as_file, data_frame, quantile_levels
from vqtool.model.format import PARTS
from vqtool.model.precision import compute_in, require_precision
from vqtool.model.seen import Seen, quantizer_metadata, vector_tensors
from vqtool.model.stream import Stream, framewise
from vqtool.recipe import Recipe


@dataclass
class Model:
    """Built parts and the tasks wired over them, stage by stage.

    The methods that use a trained model (`encode`, `decode`, `generate`, `forecast`, `classify`, `transmit`, `embed`)
    compute in evaluation mode, without gradients, on the device the parts are on, and give tensors on that device.
    They take signals `x` [B, C, L] (images [B, C, H, W]) as tensors or NumPy arrays, or a dict of the fields of `spec`
    where the model also reads conditions. B may be any number of rows, each computed independently of the others. L may
    be longer or shorter than in training by whole tokens.

    Raises:
        VqtoolError: (each of them) the model was not trained for this, or the tensors do not fit its `spec`.
    """

    recipe: Recipe
    spec: DataSpec
    parts: Parts
    tasks: dict[str, Task]  # by stage name, in the recipe's order
    seen: Seen = field(default_factory=Seen)  # what the last validation saw of the quantizer
    path: Path | None = None  # the checkpoint it was loaded from
    precision: str = "fp32"  # set by `compute_in`

    @property
    def quantizer(self) -> Quantizer | None:
        """The quantizer, if the model has one."""
        return self.parts.quantizer if "quantizer" in self.parts else None

    @property
    def device(self) -> torch.device:
        """Where the parts are."""
        tensor = next(itertools.chain(self.parts.parameters(), self.parts.buffers()), None)
        return tensor.device if tensor is not None else torch.device("cpu")

    def to(self, device: torch.device | str) -> Model:
        """Move the parts to a device; returns the model."""
        self.parts.to(device)
        return self

    def compute_in(self, precision: str) -> Model:
        """Compute in "fp32", "bf16" or "fp16" from now on; returns the model.

        Weights and results stay in float32, and in any precision codes are searched for in float32.

        Raises:
            VqtoolError: the device of the parts cannot.
        """
        require_precision(self.device, precision)
        for task in self.tasks.values():
            compute_in(task, precision, lambda: self.device)
        self.precision = precision
        return self

    def task(self, protocol: type) -> tuple[str, Task] | None:
        """The last stage whose task can do `protocol`, and its task."""
        linked = protocol is not Transmits or "channel" in self.parts
        able = [(name, task) for name, task in self.tasks.items() if linked and isinstance(task, protocol)]
        return able[-1] if able else None

    def capable(self, protocol: type, verb: str) -> Any:
        """The last task that can do `protocol`; an error says that this model cannot `verb`."""
        found = self.task(protocol)
        if found is None:
            raise UnableError(verb, self.recipe, self.tasks, self.path)
        return found[1]

    def encode(self, x: Tensor | Batch, *, levels: int | None = None) -> dict[str, Tensor]:
        """Signals to codes.

        Args:
            x: [B, C, L], or a dict of fields.
            levels: encode with the first levels of a residual quantizer only.

        Returns:
            `codes` [B, T, Q] and the side information `sent` [B, S] (S is 0 for most models). Of rows of different
            lengths also their `mask` [B, L]; T is that of the longest, and padded tokens have the code -1.
        """
        task: Encodes = self.capable(Encodes, "encode")
        self.check_levels(levels)
        before = self.parts.quantizer.use_levels(levels) if levels is not None else None
        try:
            with self._computing(x) as batch:
                stream = framewise(self.parts, self.spec, batch, self.precision)
                if stream is not None:
                    coded = {"codes": stream.encode(batch["x"]), "sent": batch["x"].new_zeros(len(batch["x"]), 0)}
                else:
                    coded = task.encode(self.parts, batch)
        finally:
            if before is not None:
                self.parts.quantizer.use_levels(before)
        known = {MASK: batch[MASK]} if MASK in batch else {}
        return {"codes": coded["codes"][..., :levels], "sent": coded["sent"], **known}

    def decode(self, codes: Tensor | Mapping[str, Tensor], conditions: Batch | None = None) -> Tensor:
        """Codes [B, T, Q], or all that `encode` returned, back to signals [B, C, L] in their own units.

        Args:
            codes: of a residual quantizer, the first levels are enough.
            conditions: the fields of `spec` that the model reads beside the signal.
        """
        task: Decodes = self.capable(Decodes, "decode")
        coded = fields_of(codes, "codes")
        if "codes" not in coded:
            raise VqtoolError("there are no `codes` to decode", hint="give `decode` all that `encode` returned")
        values, sides = coded["codes"].to(self.device), len(self.parts.norm.sends)
        self.parts.quantizer.check_codes(values)
        sent = coded.get("sent", values.new_zeros(len(values), 0, dtype=torch.float32)).to(self.device)
        if sent.shape != (len(values), sides):
            raise VqtoolError(f"this model decodes codes with side information `sent` [B, {sides}]",
                              hint="give `decode` all that `encode` returned")  # fmt: skip
        masked = {MASK: coded[MASK]} if MASK in coded else {}
        with self._computing({**masked, **(conditions or {})}) as batch:
            stream = framewise(self.parts, self.spec, batch, self.precision)
            decoded: Tensor = (
                stream.decode(values) if stream is not None
                else task.decode(self.parts, {"codes": values, "sent": sent}, batch)
            )  # fmt: skip
            return decoded

    def stream(self, *, levels: int | None = None, rate: float | None = None) -> Stream:
        """Encode and decode a signal as it comes, in chunks of any size: `with model.stream() as stream`.

        Args:
            levels: encode with the first levels of a residual quantizer only.
            rate: samples a second of the chunks; it is compared with the model's.

        Raises:
            VqtoolError: the model looks ahead, or reads whole windows, as the message says; or it has another rate.
        """
        self.capable(Encodes, "stream")
        if levels is not None:
            self.check_levels(levels)
        return Stream(self.parts, self.spec, levels=levels, rate=rate, precision=self.precision)

    def generate(
        self,
        conditions: Batch | int = 1,
        *,
        beam: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """Signals [B, C, L] from conditions: greedy, or sampled, or by beam search.

        Args:
            conditions: a dict of fields, a row for each signal; of a model without conditions, how many signals.
            beam: search with this many beams.
            temperature: sample at this temperature (1.0 where only `top_k`, `top_p` or `seeds` is given).
            top_k: sample among the k most likely codes only.
            top_p: sample among the most likely codes that have this probability together.
            seeds: one for each row; its sample depends on nothing else.
        """
        task: Generates = self.capable(Generates, "generate")
        sampled = {"top_k": top_k, "top_p": top_p, "seeds": seeds}
        how: dict[str, Any] = {} if beam is None else {"beam": beam}
        if temperature is not None or any(value is not None for value in sampled.values()):
            if beam is not None:
                raise VqtoolError("beam search and sampling exclude each other", hint="leave `beam` or the others out")
            how = sampled | {"temperature": 1.0 if temperature is None else temperature}
        if isinstance(conditions, int):
            conditions = {"x": torch.zeros(conditions, *self.spec.signal.shape)}  # only its length is read
        with self._computing(conditions) as batch:
            return task.generate(self.parts, batch, **how)

    def forecast(
        self,
        series: Any,
        steps: int,
        *,
        quantiles: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        samples: int = 100,
        greedy: bool = False,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        cutoff: str | None = None,
        freq: str | None = None,
        fill: str | None = None,
    ) -> Any:
        """What comes after time series, as `vqtool forecast` predicts it: in their own units and time stamps.

        Args:
            series: a pandas DataFrame, or the path of a CSV or Parquet file.
            steps: how far ahead.
            quantiles: which to give beside the median.
            samples: how many sample paths they are taken from, where the model draws any.
            greedy: the most likely path alone; no quantiles.
            temperature: of the sampling, as `top_k` and `top_p`; the task's own where not given.
            seed: of the sampling.
            cutoff: forecast from this time stamp on, as if later rows did not exist.
            freq: step of the time stamps where it cannot be seen in them.
            fill: how to fill gaps.

        Returns:
            A DataFrame with the columns `unique_id`, `ds`, `median` and `q0.1`, ...: a row for each series and step.
        """
        how = SamplingOptions(samples, temperature, top_k, top_p, greedy, seed, quantile_levels(quantiles))
        forecaster = self.forecaster(how, freq=freq, fill=fill)
        with self._computing({}), as_file(series) as path:
            rows = forecaster.histories(path, steps=steps, cutoff=cutoff)
            return data_frame(forecaster.forecasts(rows, steps, self.device))

    def forecaster(self, how: SamplingOptions, overrides: Sequence[str] = (), **options: str | None) -> Forecaster:
        """What forecasts the series of files; `overrides` and `options` set options of the data."""
        task: Forecasts = self.capable(Forecasts, "forecast")
        return Forecaster(self.recipe, self.spec, self.parts, task, how, overrides, **options)

    def sample_paths(self, x: Tensor | Batch, steps: int, **how: Any) -> Tensor:
        """Sample paths [B, S, C, steps] of what comes after histories `x` [B, C, L], in the units of the training data.

        Args:
            x: histories of the length that the model was trained on.
            steps: how far ahead.
            how: `samples` (S), `seeds` (one for each row), `temperature`, `top_k`, `top_p`, or `greedy=True` (S is 1).
        """
        task: Forecasts = self.capable(Forecasts, "forecast")
        with self._computing(x) as batch:
            return task.forecast(self.parts, batch, steps, **how)

    def classify(self, x: Tensor | Batch) -> Tensor:
        """Class scores (logits) [B, classes] of signals or images, as deployed."""
        task: Classifies = self.capable(Classifies, "classify")
        with self._computing(x) as batch:
            return task.classify(self.parts, batch)

    @overload
    def transmit(self, x: Tensor | Batch, snr_db: None = None, *, soft: bool = False) -> dict[str, Tensor]: ...
    @overload
    def transmit(
        self, x: Tensor | Batch, snr_db: float, *, soft: bool = False, doubt: float | None = None
    ) -> Tensor: ...
    def transmit(
        self, x: Tensor | Batch, snr_db: float | None = None, *, soft: bool = False, doubt: float | None = None
    ) -> Tensor | dict[str, Tensor]:
        """What the model sends for `x`; or, at a signal-to-noise ratio in dB, what the other end reads.

        The noise comes from torch's generator: `torch.manual_seed` makes it repeatable.

        Args:
            x: [B, C, L] or [B, C, H, W], or a dict of fields.
            snr_db: of the model's own channel. Without it nothing is disturbed, and `receive` takes what arrives.
            soft: by expectations in place of the codes that are deployed.
            doubt: send the levels of the quantizer one after the other, the next only for the rows whose classes have
                an entropy above this many bits.

        Returns:
            Logits [B, classes], or signals [B, C, L] of a model that reconstructs; without `snr_db` what the sender
            puts out, by the channel's own names.
        """
        task = self.capable(Transmits, "transmit")
        check_transmit(snr_db, soft, doubt)
        with self._computing(x) as batch:
            if snr_db is None:
                return task.send(self.parts, batch)
            return task.transmit(self.parts, batch, snr_db, soft=soft, doubt=doubt)[0]

    def receive(self, **arrived: Any) -> Tensor:
        """Logits [B, classes] or signals [B, C, L] from what arrived through a channel of one's own.

        It goes by the names of the model's channel, which an error lists. What `transmit` sent has the same ones,
        beside what this end knows; so have conditions, where the model reads any.
        """
        task = self.capable(Transmits, "receive")
        given = {name: value.to(self.device) for name, value in fields_of(arrived, "arrived").items()}
        with self._computing({}):
            return task.receive(self.parts, given)

    def embed(self, x: Tensor | Batch) -> dict[str, Tensor]:
        """`features` [B, T, D] before the quantizer and `codes` [B, T, Q]; `context` [B, T, D'] where there is one."""
        task: Embeds = self.capable(Embeds, "embed")
        with self._computing(x) as batch:
            return task.embed(self.parts, batch)

    def files(self, asked: Mapping[str, Any] | None = None) -> Files:
        """What reads and writes users' files for this model, with the data options `asked` for in this call."""
        return user_files(self.recipe, self.spec, asked)

    def check_levels(self, levels: int | None) -> None:
        """Only a residual quantizer has levels of which the first ones will do."""
        quantizer = self.parts.quantizer
        have = len(quantizer.codebook_sizes)
        if levels is not None and (quantizer.topology != "residual" or not 1 <= levels <= have):
            has = f"{have} levels" if quantizer.topology == "residual" else "no levels to leave out"
            raise VqtoolError(f"`levels` {levels} is not possible: the model's quantizer has {has}")

    @contextlib.contextmanager
    def _computing(self, x: Tensor | Batch) -> Iterator[Batch]:
        """Evaluation mode without gradients, and the fields as a batch; a field that a part misses is one error."""
        encoder = self.parts.encoder if "encoder" in self.parts else None
        batch = batch_of(x, self.spec, encoder, self.device)
        fields = self.spec.fields
        other = [name for name, value in batch.items() if value.shape[1:] != fields[name].shape]
        with torch.no_grad(), eval_mode(self.parts):
            try:
                yield batch
            except KeyError as error:
                name = error.args[0]
                if name not in fields:
                    raise
                shape = ", ".join(["B", *map(str, fields[name].shape)])
                raise VqtoolError(f"the model also reads the field `{name}` [{shape}]",
                                  hint=f'give a dict: {{"{name}": ...}}') from error  # fmt: skip
            except (RuntimeError, IndexError) as error:
                if not other:
                    raise
                name, wanted = other[0], fields[other[0]].shape[-1]
                raise VqtoolError(f"this model cannot take {batch[name].shape[-1]} samples of `{name}`",
                                  hint=f"it was trained on {wanted}") from error  # fmt: skip

    def knobs(self) -> dict[str, Any]:
        """The values of every knob of every part: they are not tensors, and evaluation needs them as trained."""
        return {
            f"{role}.{knob}": getattr(part, knob)
            for role, part in self.parts.items()
            for knob in sorted(getattr(part, "knobs", ()))
        }

    def state(self) -> dict[str, Tensor]:
        """The tensors of all parts under the names they have in a checkpoint."""
        return {PARTS + name: value for name, value in self.parts.state_dict().items()}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of a checkpoint: the parts' state, and what a diagnosis reads: use and vectors of the codes."""
        vectors = vector_tensors(self.quantizer) if self.quantizer is not None else {}
        return self.state() | self.seen.tensors | vectors

    def metadata(self) -> dict[str, Any]:
        """What goes with these tensors: the knobs, what a diagnosis reads, and the tensors that must be there."""
        metadata: dict[str, Any] = {"knobs": self.knobs(), "validation": self.seen.row, "layout": layout(self.state())}
        return metadata | ({"quantizer": quantizer_metadata(self.quantizer)} if self.quantizer is not None else {})


@contextlib.contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in evaluation mode; afterwards every submodule is in the mode it was in."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, training in modes.items():
            each.training = training


class UnableError(VqtoolError):
    """A model was not trained for what is asked of it."""

    def __init__(self, verb: str, recipe: Recipe, trained: Collection[str], path: Path | None) -> None:
        tasks = ", ".join(f"`{stage.task.kind}`" for stage in recipe.stages if stage.name in trained)
        what = f"`{path}`" if path is not None else "this model"
        missing = "" if verb not in ("transmit", "receive") or "channel" in recipe.parts else ", without a [channel]"
        super().__init__(f"{what} cannot {verb}; it was trained with {tasks}{missing}")
