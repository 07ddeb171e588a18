"""State dicts as other libraries save them, by hand, so that none of these libraries needs to be installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

State = dict[str, np.ndarray]
K, D = 64, 16


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rows(seed: int = 0, size: int = K, width: int = D, scale: float = 1.0) -> np.ndarray:
    return (scale * rng(seed).normal(size=(size, width))).astype(np.float32)


def use(seed: int = 0, size: int = K) -> np.ndarray:
    return (10 + 20 * rng(100 + seed).random(size)).astype(np.float32)


def others() -> State:
    """What a model holds beside its quantizer, some of it with names or shapes like those of a codebook."""
    one = rng(9).normal
    return {
        "encoder.conv_in.weight": one(size=(8, 3, 3, 3)).astype(np.float32),
        "encoder.layers.0.weight": one(size=(32, 16)).astype(np.float32),
        "decoder.embed_tokens.weight": one(size=(100, 16)).astype(np.float32),
        "vq_lm.decoder.embedding.weight": one(size=(100, 16)).astype(np.float32),
        "quant_conv.weight": one(size=(16, 16, 1, 1)).astype(np.float32),
        "post_quant_conv.bias": one(size=16).astype(np.float32),
        "quantizer.speaker_embedding.weight": one(size=(40, 16)).astype(np.float32),
        "position_ids": np.arange(64)[None],
    }


def encodec(levels: int = 3, prefix: str = "quantizer.layers.", book: str = "codebook") -> State:
    state: State = {}
    for q in range(levels):
        at, vectors, counts = f"{prefix}{q}.{book}.", rows(q, scale=0.5**q), use(q)
        state |= {f"{at}inited": np.ones(1, np.float32), f"{at}cluster_size": counts, f"{at}embed": vectors,
                  f"{at}embed_avg": vectors * counts[:, None]}  # fmt: skip
    return state


def audiocraft() -> State:
    return encodec(prefix="quantizer.vq.layers.", book="_codebook")


def mimi() -> State:
    state: State = {}
    for part, levels in (("acoustic", 3), ("semantic", 1)):
        for q in range(levels):
            at, counts = f"quantizer.{part}_residual_vector_quantizer.layers.{q}.codebook.", use(q)
            state |= {f"{at}initialized": np.ones(1, np.float32), f"{at}cluster_usage": counts,
                      f"{at}embed_sum": rows(q) * counts[:, None]}  # fmt: skip
    return state


def dac() -> State:
    state: State = {}
    for q in range(3):
        at = f"quantizer.quantizers.{q}."
        state |= {f"{at}in_proj.weight": rows(7, 8, 32)[:, :, None], f"{at}out_proj.weight": rows(8, 32, 8)[:, :, None],
                  f"{at}codebook.weight": rows(q, K, 8)}  # fmt: skip
    return state


def wav2vec2() -> State:
    return {"quantizer.codevectors": rng(0).random((1, 2 * 32, 8)).astype(np.float32),
            "quantizer.weight_proj.weight": rows(1, 2 * 32, 24), "quantizer.weight_proj.bias": np.zeros(64, np.float32),
            "project_q.weight": rows(2, 16, 16)}  # fmt: skip


def vqgan() -> State:
    return {"first_stage_model.quantize.embedding.weight": rows()}


def vqgan_ema() -> State:
    vectors, counts = rows(), use()
    return {"quantize.embedding.weight": vectors, "quantize.embedding.cluster_size": counts,
            "quantize.embedding.embed_avg": vectors * counts[:, None]}  # fmt: skip


def vq_vae() -> State:
    return {"_vq_vae._embedding.weight": rows(), "_vq_vae._ema_w": rows(1), "_vq_vae._ema_cluster_size": use()}


def vq_vae_2(size: int = K, width: int = D) -> State:
    state: State = {}
    for level in "tb":
        vectors, counts = rows(ord(level), size, width), use(0, size)
        state |= {f"quantize_{level}.embed": vectors.T.copy(), f"quantize_{level}.cluster_size": counts,
                  f"quantize_{level}.embed_avg": (vectors * counts[:, None]).T.copy()}  # fmt: skip
    return state


def lucidrains(heads: int = 1) -> State:
    vectors, counts = np.stack([rows(h) for h in range(heads)]), np.stack([use(h) for h in range(heads)])
    return {"vq._codebook.initted": np.array(True), "vq._codebook.cluster_size": counts,
            "vq._codebook.embed_avg": vectors * counts[..., None], "vq._codebook.embed": vectors}  # fmt: skip


def grouped() -> State:
    return {f"rvqs.{g}.layers.{q}.{name}": value for g in range(2) for q in range(2)
            for name, value in lucidrains().items()}  # fmt: skip


def simvq() -> State:
    return {"quantizer.frozen_codebook": rows(), "quantizer.code_transform.weight": 2 * np.eye(D, dtype=np.float32)}


def own() -> State:
    return {
        "model.vq.codebook.codes": rows(),
        "model.vq.codebook.weights": use(),
        "model.vq.codebook.ready": np.ones(()),
    }


def jukebox() -> State:
    return {f"bottleneck.level_blocks.{q}.k": rows(q) for q in range(3)}


def nemo() -> State:
    return {f"vector_quantizer.rvqs.0.codebooks.{q}.{name}": value for q in range(2)
            for name, value in (("codes", rows(q)), ("codes_avg", rows(q)), ("cluster_size", use(q)),
                                ("initialized", np.ones(1)))}  # fmt: skip


def unnamed_family() -> State:
    return {
        "tokenizer.my_quantizer.stages.0.centroids": rows(0),
        "tokenizer.my_quantizer.stages.0.hit_counts": use(0),
        "tokenizer.my_quantizer.stages.1.centroids": rows(1),
        "tokenizer.my_quantizer.stages.1.hit_counts": use(1),
    }


FAMILIES: dict[str, tuple[Callable[[], State], int, bool]] = {  # made by, codebooks, with counts
    "EnCodec": (encodec, 3, True),
    "EnCodec, audiocraft": (audiocraft, 3, True),
    "Mimi": (mimi, 4, True),
    "DAC": (dac, 3, False),
    "wav2vec 2.0": (wav2vec2, 2, False),
    "VQGAN": (vqgan, 1, False),
    "VQGAN, averages": (vqgan_ema, 1, True),
    "VQ-VAE": (vq_vae, 1, True),
    "VQ-VAE-2": (vq_vae_2, 2, True),
    "vector-quantize-pytorch": (lucidrains, 1, True),
    "vector-quantize-pytorch, grouped": (grouped, 4, True),
    "SimVQ": (simvq, 1, False),
    "vqtool": (own, 1, True),
    "Jukebox": (jukebox, 3, False),
    "NeMo": (nemo, 2, True),
    "unknown": (unnamed_family, 2, True),
}


def changed(state: State, name: str, change: Callable[[np.ndarray], Any]) -> State:
    """A copy in which one tensor is another."""
    assert name in state
    return {**state, name: np.asarray(change(state[name].copy()), dtype=state[name].dtype)}


def with_rows(at: slice, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A change of some rows."""

    def change(array: np.ndarray) -> np.ndarray:
        array[at] = value
        return array

    return change
