"""Real models of transformers and vector-quantize-pytorch, made from their configurations, healthy and ill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vqtool
from tests.diagnosis.test_foreign_report import named

transformers = pytest.importorskip("transformers")
SMALL: dict[str, dict[str, Any]] = {
    "Encodec": {"target_bandwidths": [60.0, 120.0], "num_filters": 4, "hidden_size": 16, "codebook_size": 64,
                "codebook_dim": 16, "upsampling_ratios": [4, 2], "num_lstm_layers": 1},
    "Dac": {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "decoder_hidden_size": 32, "n_codebooks": 4,
            "codebook_size": 64, "codebook_dim": 8},
    "Mimi": {"num_filters": 4, "hidden_size": 32, "codebook_size": 64, "codebook_dim": 16, "num_quantizers": 4,
             "num_semantic_quantizers": 1, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
             "intermediate_size": 64, "head_dim": 16, "vector_quantization_hidden_dimension": 16,
             "upsampling_ratios": [4, 2], "upsample_groups": 32},
    "Wav2Vec2": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
                 "conv_dim": (16, 16), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 16,
                 "num_conv_pos_embedding_groups": 4, "num_codevectors_per_group": 32, "num_codevector_groups": 2,
                 "codevector_dim": 32, "proj_codevector_dim": 32},
}  # fmt: skip
MODELS = {"Wav2Vec2": "Wav2Vec2ForPreTraining"}
BOOKS = {"Encodec": 6, "Dac": 4, "Mimi": 4, "Wav2Vec2": 2}


def model(family: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SMALL[family])
    return getattr(transformers, MODELS.get(family, f"{family}Model"))(config)


@torch.no_grad()
def trained(family: str) -> Any:
    """A model whose codebooks hold codes, and whose counters have counted."""
    made, draw = model(family), torch.Generator().manual_seed(1)
    for name, value in {**dict(made.named_buffers()), **dict(made.named_parameters())}.items():
        if name.endswith(("cluster_size", "cluster_usage")):
            value.uniform_(10, 30, generator=draw)
        if name.endswith(("codebook.embed", "codebook.embed_sum", "codebook.weight", "codevectors")):
            value.normal_(generator=draw)
    return made


@pytest.mark.parametrize("family", SMALL)
def test_folders_of_fresh_and_of_trained_models_are_healthy(family: str, tmp_path: Path) -> None:
    for make in (model, trained):
        make(family).save_pretrained(tmp_path / make.__name__)
        report = vqtool.diagnose(tmp_path / make.__name__)
        assert report.healthy, report
        assert len(report.codebooks) == BOOKS[family]
    assert vqtool.diagnose(trained(family)).codebooks[0].size == report.codebooks[0].size


@pytest.mark.parametrize("family", SMALL)
def test_a_nan_in_a_real_model_is_found(family: str, tmp_path: Path) -> None:
    sick = trained(family)
    with torch.no_grad():
        for name, value in {**dict(sick.named_buffers()), **dict(sick.named_parameters())}.items():
            if name.endswith(("1.codebook.embed", "1.codebook.embed_sum", "1.codebook.weight", "codevectors")):
                value[..., 3, :] = torch.nan
    sick.save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert set(named(vqtool.diagnose(tmp_path))) == {"nan"}


@pytest.mark.parametrize("collapsed", [False, True])
def test_quantizers_of_vector_quantize_pytorch(collapsed: bool) -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(0)
    quantizers = {
        "one": library.VectorQuantize(16, 64, threshold_ema_dead_code=0),
        "residual": library.ResidualVQ(dim=16, num_quantizers=3, codebook_size=64),
        "heads": library.VectorQuantize(16, 64, heads=2, codebook_dim=8, separate_codebook_per_head=True),
    }
    for quantizer in quantizers.values():
        for _ in range(30):
            quantizer(torch.randn(2, 256, 16) * (0.01 if collapsed else 1.0) + (5.0 if collapsed else 0.0))
    found = {name: set(named(vqtool.diagnose(quantizer))) for name, quantizer in quantizers.items()}
    assert (found == {"one": set(), "residual": set(), "heads": set()}) != collapsed
    assert not collapsed or "collapse" in found["one"]
