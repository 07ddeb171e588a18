"""Reports made by hand, for tests of the page and the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vqtool.diagnosis.report import Codebook, Finding, Report
from vqtool.diagnosis.samples import Picker, Samples

NASTY = "</script><script>alert(1)</script>&\"'"


def codebook(name: str = "codebook", size: int = 16, width: int = 4, dead: int = 4, seed: int = 0) -> Codebook:
    """A codebook whose last `dead` codes were never chosen."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 100, size)
    counts[size - dead :] = 0
    figures = {
        "used": float(size - dead),
        "dead": float(dead),
        "perplexity": size / 2,
        "perplexity_share": 0.5,
        "entropy_bits": 3.0,
        "hottest": 0.1234,
        "gini": 0.5,
        "duplicates": 0.0,
        "effective_rank": 3.9,
    }
    return Codebook(name, size, counts, rng.normal(size=(size, width)).astype(np.float32), figures)


def report(*codebooks: Codebook, findings: tuple[Finding, ...] = (), history: Any = (), **more: Any) -> Report:
    """A report of these codebooks."""
    return Report(
        source=Path("run/tokenizer.safetensors"),
        counted="split valid",
        tokens=1234,
        codebooks=codebooks,
        measures={"range_ratio": 0.98},
        history=history,
        recipe={"title": "by hand"},
        metadata={"recipe": 'title = "by hand"\n', "version": "0.1.0", "stage": "tokenizer", "step": 60},
        findings=findings,
        **more,
    )


def rows(steps: int = 60, every: int = 5) -> list[dict[str, Any]]:
    """A stage's history, with validation at every fourth row."""
    results = []
    for step in range(every, steps + 1, every):
        row = {"stage": "tokenizer", "step": step, "loss": 1 / step, "codes.perplexity": 10 + step / 10}
        results.append({**row, "split": "train"})
        if step % (4 * every) == 0:
            results.append({**row, "split": "valid"})
    return results


def picked(sizes: tuple[int, ...], windows: int = 40, tokens: int = 20, channels: int = 1, seed: int = 0) -> Samples:
    """Samples of windows whose every value says which window and which place it is from."""
    x, codes = windows_with_codes(sizes, windows, tokens, channels, seed)
    picker = Picker(sizes)
    picker.add(x, codes)
    return picker.samples("valid", x[:3], reconstructions=x[:3] + 0.5, unit="V", codes=codes[:3])


def windows_with_codes(
    sizes: tuple[int, ...], windows: int, tokens: int, channels: int = 1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Windows [B, C, 4 T] that hold 1000 * window + place, and random codes [B, T, Q], some of them -1."""
    rng = np.random.default_rng(seed)
    x = 1000.0 * np.arange(windows)[:, None, None] + np.arange(4 * tokens) + np.zeros((1, channels, 1))
    codes = np.stack([rng.integers(-1, size, (windows, tokens)) for size in sizes], -1)
    return x.astype(np.float32), codes
