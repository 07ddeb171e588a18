"""Opus for speech at about 6 kbit/s."""

from __future__ import annotations

from vqtool.api import DataSpec
from vqtool_speech.baselines.opus_12k import Opus12k


class Opus6k(Opus12k):
    """`opus-12k` at another rate."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec, kbps=6)
