"""What the forecasting tasks share: the wiring of their parts, rollout over blocks of steps, quantiles of paths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vqtool.api.data import Batch, DataSpec
from vqtool.api.parts import Encoder, Norm
from vqtool.api.quantizer import Quantizer
from vqtool.api.spec import expect_windows
from vqtool.api.task import Make
from vqtool.errors import VqtoolError

GOLDEN = 0x9E3779B97F4A7C15  # an odd number: the seeds of one row's blocks are all different


def build_forecaster(make: Make, spec: DataSpec) -> tuple[Norm, Encoder, Quantizer]:
    """The tokenizer's parts, over data that know a future."""
    if "future" not in spec.fields:
        raise VqtoolError("a forecaster is trained on a field `future`, which these data do not have", where="[data]")
    expect_windows(spec.extent, "a forecaster")
    norm = make("norm", spec, optional=True)
    encoder = make("encoder", spec.channels, spec.extent, 0)
    quantizer = make("quantizer", encoder.dim)
    make("decoder", encoder.dim, spec.channels, spec.extent, encoder.stride, 0)
    return norm, encoder, quantizer


def repeat_rows(batch: Batch, times: int) -> Batch:
    """Every row `times` times, one after the other."""
    return batch if times == 1 else {name: value.repeat_interleave(times, dim=0) for name, value in batch.items()}


def path_seeds(seeds: Sequence[int], samples: int, block: int) -> list[int]:
    """A seed for each path of each row, in one block: row after row. Fewer paths are the first of many."""
    drawn = []
    for seed in seeds:
        generator = torch.Generator().manual_seed((seed + block * GOLDEN) % 2**63)
        drawn += torch.randint(2**62, (samples,), generator=generator).tolist()
    return drawn


def rollout(norm: Norm, batch: Batch, steps: int, samples: int, block: Callable[[Batch, int], Tensor]) -> Tensor:
    """Paths [B, S, C, steps], block after block.

    `block(batch, number)` gives [B * S, C, n] after the histories of `batch`. From the second block on, the rows of
    `batch` are the paths themselves, so each path continues from itself. Every block is as long as the first.
    """
    rows, done = len(batch["x"]), 0
    blocks: list[Tensor] = []
    batch = {name: value for name, value in batch.items() if name != "future"}
    while done < steps:
        values = block(batch, len(blocks))
        blocks.append(values)
        done += values.shape[-1]
        batch = norm.append(repeat_rows(batch, len(values) // len(batch["x"])), values)
    paths: Tensor = torch.cat(blocks, dim=-1)[..., :steps].unflatten(0, (rows, samples))
    return paths


def fewest_paths(levels: Sequence[float]) -> int:
    """How many sample paths the quantiles at `levels` need: the k-th smallest of S is the quantile k / (S + 1)."""
    outermost = min(min(level, 1 - level) for level in levels)
    return math.ceil((1 - 1e-6) / outermost) - 1  # 1 - 0.9 and float32 are a little off


def check_paths(drawn: int, levels: Sequence[float]) -> None:
    """There must be enough sample paths for the quantiles at `levels`.

    Raises:
        VqtoolError: naming the outermost level, and how many paths it takes.
    """
    needed = fewest_paths(levels)
    if drawn >= needed:
        return
    outermost = min(levels, key=lambda level: round(min(level, 1 - level), 9))
    raise VqtoolError(
        f"{drawn} sample paths give quantiles from {1 / (drawn + 1):.3g} to {drawn / (drawn + 1):.3g}, "
        f"not {outermost:g}",
        hint=f"at least --samples {needed}, or other --quantiles",
    )


def path_quantiles(paths: Tensor, levels: Sequence[float] | Tensor) -> Tensor:
    """[Q, B, ...] quantiles of sample paths [B, S, ...] that hold the share of new draws they are named for.

    Between S draws of one distribution a further draw falls into each of the S + 1 gaps equally often, so the k-th
    smallest of them is the quantile k / (S + 1); straight between, and not beyond the outermost (type 6 of Hyndman and
    Fan 1996, The American Statistician 50(4)). The usual type 7 gives intervals too narrow for few draws: of 20, its
    80 % hold 72 %.

    Raises:
        VqtoolError: a level lies beyond the outermost draws.
    """
    drawn = paths.shape[1]
    check_paths(drawn, torch.as_tensor(levels).tolist())
    at = torch.as_tensor(levels, dtype=torch.float64, device=paths.device) * (drawn + 1) - 1
    at = at.clamp(0, drawn - 1)
    below = at.floor().long()
    ordered = paths.sort(dim=1).values.movedim(1, 0)
    low, high = ordered[below], ordered[(below + 1).clamp_max(drawn - 1)]
    weight = (at - below).to(paths.dtype).view(-1, *[1] * (paths.ndim - 1))
    return low.lerp(high, weight.expand_as(low))
