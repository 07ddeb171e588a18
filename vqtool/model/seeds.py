"""Random numbers that are a function of what they are for: of a seed, a stage, a step and a rank, say."""

from __future__ import annotations

import hashlib

import torch


def seed_of(*what: object) -> int:
    """A 63-bit seed that is a function of `what`, e.g. (seed, stage, step, rank). Stable over Python versions."""
    digest = hashlib.sha256(repr(what).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_of(*what: object) -> torch.Generator:
    """A CPU generator seeded by `seed_of(*what)`."""
    return torch.Generator().manual_seed(seed_of(*what))
