"""The case of `vqtool bench tokenise`: windows to codes, beside wav2vec2-style nets of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.bench.measure import evaluated, in_turns
from vqtool.bench.peers import installed
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError

BATCH, CHANNELS, SAMPLES = 8, 3, 3001
GROUPS, CODES = 2, 320


@dataclass(frozen=True, slots=True)
class Shape:
    """A peer: the width of its convolutions, all alike, and their kernels and strides."""

    name: str
    width: int
    kernels: tuple[int, ...]
    strides: tuple[int, ...]


PEERS = (  # as many samples a token and as wide as ours; and the shape of published nets for such windows
    Shape("wav2vec2, 128 wide, 32 samples a token", 128, (10, 3, 3, 3, 3), (2, 2, 2, 2, 2)),
    Shape("wav2vec2, 256 wide, 4 samples a token", 256, (3, 3), (2, 2)),
)


def rows(device: torch.device, seconds: float) -> Iterator[dict[str, Any]]:
    """One row: milliseconds a window, of `BATCH` at once, from the signal to its codes."""
    if installed("transformers", "Wav2Vec2Config", "Wav2Vec2ForPreTraining") is None:
        raise VqtoolError(
            "the peer `transformers` cannot be imported", hint="pip install --force-reinstall transformers"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(BATCH, CHANNELS, SAMPLES, device=device)
        calls = {"ours": evaluated(Ours().to(device), x)}
        calls |= {shape.name: evaluated(Wav2Vec2(shape).to(device), x) for shape in PEERS}
        figures = in_turns(calls, device, seconds=seconds)
    mine = figures.pop("ours")
    yield {
        "case": f"a window of {CHANNELS} x {SAMPLES} to codes of {GROUPS} x {CODES}",
        "mode": "encode",
        "ours_ms": mine.ms / BATCH,
        "ours_mib": mine.mib,
        "ours_windows_per_s": 1000 * BATCH / mine.ms,
        "peers": {
            name: f.beside(mine) | {"ms": f.ms / BATCH, "windows_per_s": 1000 * BATCH / f.ms}
            for name, f in figures.items()
        },
    }


class Ours(nn.Module):
    """Encoder and quantizer with their defaults, untrained. [B, C, L] -> codes [B, T, Q]."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = catalog().make("encoder", "filterbank", {}, CHANNELS, SAMPLES, 0)
        options = {"groups": GROUPS, "codebook_size": CODES}
        self.quantizer = catalog().make("quantizer", "product-gumbel", options, self.encoder.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Codes without noise."""
        return self.quantizer(self.encoder(x)).codes


class Wav2Vec2(nn.Module):
    """What tokenises in transformers' Wav2Vec2ForPreTraining: convolutions, layer norm, quantizer.

    Only its first convolution is replaced, by one that reads several channels. [B, C, L] -> code vectors [B, T, D].
    """

    def __init__(self, shape: Shape) -> None:
        from transformers import Wav2Vec2Config
        from transformers.models.wav2vec2 import modeling_wav2vec2 as wav2vec2

        super().__init__()
        layers = len(shape.strides)
        options: dict[str, Any] = {
            "conv_dim": (shape.width,) * layers,
            "conv_kernel": shape.kernels,
            "conv_stride": shape.strides,
            "num_feat_extract_layers": layers,
            "hidden_size": shape.width,
            "num_codevector_groups": GROUPS,
            "num_codevectors_per_group": CODES,
            "codevector_dim": shape.width,
        }
        config = Wav2Vec2Config(**options)
        self.layers = wav2vec2.Wav2Vec2FeatureEncoder(config).conv_layers
        self.layers[0].conv = nn.Conv1d(
            CHANNELS, shape.width, shape.kernels[0], shape.strides[0], bias=config.conv_bias
        )
        self.project = wav2vec2.Wav2Vec2FeatureProjection(config)
        self.quantizer = wav2vec2.Wav2Vec2GumbelVectorQuantizer(config)
        nn.init.uniform_(self.quantizer.codevectors)

    def forward(self, x: Tensor) -> Tensor:
        """The code vectors; transformers does not return the codes."""
        for layer in self.layers:
            x = layer(x)
        return self.quantizer(self.project(x.transpose(1, 2))[1])[0]
