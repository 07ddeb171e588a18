"""The same as `block-rvq` with half the levels: 8 kbit/s at 4 levels of 1024 on 80 samples at 16 kHz."""

from __future__ import annotations

from vqtool.api import DataSpec
from vqtool_speech.baselines.block_rvq import BlockRvq


class BlockRvq8k(BlockRvq):
    """`block-rvq` with 4 levels."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec, levels=4)
