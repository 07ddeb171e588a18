"""`vqtool transmit`: a user's own inputs over a trained link, and what was sent as files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vqtool.api import Batch, Classifies, DataSpec, Transmits
from vqtool.commands.classify import Columns, InputOptions, labels, write_table
from vqtool.errors import VqtoolError
from vqtool.files import require_parent_dir, save_npz, write_atomic
from vqtool_images.levels import pair
from vqtool_images.metrics.psnr import FLOOR
from vqtool_semcom.bit_channel import BitChannel
from vqtool_semcom.symbol_channel import SymbolChannel

BITS, SYMBOLS = (".txt", ".npy"), (".npy", ".npz", ".cf32")


def run(
    *,
    snr: float | None,
    channel: str | None,
    soft: bool,
    doubt: float | None,
    bits_file: Path | None,
    symbols_file: Path | None,
    overrides: Sequence[str],
    **given: Any,
) -> int:
    """Transmit each input, and write the table and the files asked for."""
    for path, known in ((bits_file, BITS), (symbols_file, SYMBOLS)):
        require_parent_dir(path)
        if path is not None and path.suffix.lower() not in known:
            raise VqtoolError(f"`{path}` is not one of {', '.join(known)}", hint=f"{path.stem}{known[0]}")
    if soft and doubt is not None:
        raise VqtoolError("--soft sends all levels at once", hint="leave --soft or --doubt out")
    kind = [] if channel is None else [f"channel.kind={channel}"]
    sent = Sent(bits_file is not None, symbols_file is not None, soft)

    def check(model: Any) -> None:
        part = model.parts.channel
        if not isinstance(part, BitChannel):
            raise VqtoolError(f"the channel of `{model.path}` carries no bits", hint="awgn, rayleigh, ofdm and bsc do")
        if (snr is not None or symbols_file is not None) and not isinstance(part, SymbolChannel):
            option = "--snr" if snr is not None else "--symbols"
            kind = model.recipe.parts["channel"].kind
            raise VqtoolError(
                f"{option} is for channels of symbols, and `{kind}` carries bits",
                hint="--channel awgn; its own options are set by -s channel.KEY=VALUE",
            )

    def answer(model: Any, batch: Batch) -> tuple[Columns, Tensor | None]:
        task = model.capable(Transmits, "transmit")
        got, received = task.transmit(model.parts, batch, snr, soft=soft, doubt=doubt)
        sent.add(received.trace)
        figures = {"symbols": received.figures["symbols"].double()}
        if not soft:
            figures = {"bits": received.figures["bits"].double(), **figures}
            figures["bit_errors"] = received.figures["ber"].double() * figures["bits"]
        counts = {name: value.round().long().tolist() for name, value in figures.items()}
        if isinstance(task, Classifies):
            return {**labels(model, got), **counts}, None
        return {**closeness(model.spec, batch["x"], got), **counts}, got

    done = write_table(
        InputOptions(**given, overrides=[*kind, *overrides]), answer, Transmits, "transmit",
        others=(bits_file, symbols_file), check=check,
    )  # fmt: skip
    if bits_file is not None:
        write_atomic(bits_file, sent.bits_as(bits_file.suffix.lower()))
    if symbols_file is not None:
        sent.save_symbols(symbols_file)
    return done


def closeness(spec: DataSpec, x: Tensor, x_hat: Tensor) -> Columns:
    """`psnr.db` of pictures [B, C, H, W], as the metric has it; `snr.db` of windows [B, C, L], in their own units."""
    if isinstance(spec.extent, int):
        x, x_hat = x.detach().cpu().double(), x_hat.detach().cpu().double()
        name, peak = "snr.db", x.square().flatten(1).mean(1)
    else:
        x, x_hat = pair(spec, x, x_hat)
        name, peak = "psnr.db", x.new_ones(len(x))
    error = (x - x_hat).square().flatten(1).mean(1)
    ratio = (peak / error.clamp_min(FLOOR * FLOOR)).clamp(FLOOR, 1 / FLOOR)
    return {name: [round(value, 3) for value in (10 * ratio.log10()).tolist()]}


class Sent:
    """What was sent, and what arrived, over all inputs; kept only as far as it will be written."""

    def __init__(self, bits: bool, symbols: bool, soft: bool) -> None:
        if soft and (bits or symbols):
            raise VqtoolError("--soft sends no bits and no constellation points", hint="leave --soft out")
        self.wanted = (["bits"] if bits else []) + (["symbols", "arrived", "gain"] if symbols else [])
        self.parts: dict[str, list[Tensor]] = {}

    def add(self, trace: Any) -> None:
        """Keep what is wanted of a batch."""
        for name in self.wanted:
            if name in trace:
                self.parts.setdefault(name, []).append(trace[name].detach().float().cpu())

    def whole(self, name: str) -> Tensor:
        """[inputs, n, ...]; a row that is shorter than others ends with NaN."""
        parts = self.parts[name]
        longest = max(part.shape[1] for part in parts)
        return torch.cat([
            torch.cat([part, part.new_full((len(part), longest - part.shape[1], *part.shape[2:]), torch.nan)], 1)
            for part in parts
        ])  # fmt: skip

    def bits_as(self, suffix: str) -> bytes:
        """A line of 0 and 1 for each input, or an array int8 [inputs, n] with -1 beyond the end of a shorter row."""
        bits = self.whole("bits").nan_to_num(-1).to(torch.int8).numpy()
        if suffix == ".npy":
            return npy(bits)
        return "".join("".join("01"[bit] for bit in row if bit >= 0) + "\n" for row in bits).encode()

    def save_symbols(self, path: Path) -> None:
        """`.npy`: complex64 [inputs, S]; `.cf32`: the same without a header; `.npz`: `received` and `gain` as well."""
        complex_ = {name: torch.view_as_complex(self.whole(name).contiguous()).numpy() for name in self.parts
                    if name != "bits"}  # fmt: skip
        symbols = cast(Any, complex_["symbols"])
        suffix = path.suffix.lower()
        if suffix == ".npz":
            names = {"symbols": "sent", "arrived": "received", "gain": "gain"}
            save_npz(path, {names[name]: value for name, value in complex_.items()})
        elif suffix == ".npy":
            write_atomic(path, npy(symbols))
        else:
            write_atomic(path, symbols[~np.isnan(symbols)].astype("<c8").tobytes())


def npy(array: Any) -> bytes:
    """An array as the bytes of an `.npy` file."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()
