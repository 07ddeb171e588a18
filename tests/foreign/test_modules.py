"""Quantizers in live models: which codebooks are found, what they are called, and that their codes are all counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtool.diagnosis.monitor import CodebookMonitor
from vqtool.errors import VqtoolError
from vqtool.foreign.modules import candidates, quantizers_of, short_names
from vqtool.quantizers import VQ, Grouped, Residual

D, K, T = 16, 64, 128
LEVELS = tuple(f"level{q}" for q in range(4))


def nearest(z: Tensor, codes: Tensor) -> Tensor:
    return torch.cdist(z.reshape(-1, z.shape[-1]), codes).argmin(-1).view(z.shape[:-1])


class Tutorial(nn.Module):
    """Returns a table with one 1 in each row, and no codes."""

    def __init__(self) -> None:
        super().__init__()
        self._embedding = nn.Embedding(K, D)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = F.one_hot(nearest(z, self._embedding.weight).reshape(-1), K)
        return z.sum(), (rows.float() @ self._embedding.weight).view(z.shape), rows


class Taming(nn.Module):
    """Returns codes within a tuple in a tuple, and looks them up in an nn.Embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(K, D)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, tuple[None, None, Tensor]]:
        codes = nearest(z, self.embedding.weight).reshape(-1)
        return self.embedding(codes).view(z.shape), z.sum(), (None, None, codes)


@dataclass
class Result:
    z: Tensor
    lengths: Tensor
    codes: Tensor


class Stacked(nn.Module):
    """Residual levels in one parameter [Q, K, D]; returns an object with codes [B, Q, T]."""

    def __init__(self) -> None:
        super().__init__()
        self.codebooks = nn.Parameter(torch.randn(4, K, D))

    def forward(self, z: Tensor) -> Result:
        codes, rest = [], z
        for book in self.codebooks:
            codes.append(nearest(rest, book))
            rest = rest - book[codes[-1]]
        return Result(z - rest, torch.full((len(z),), T), torch.stack(codes, 1))


class Listed(nn.Module):
    """Levels in a list, and codes in a table of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.codebooks = nn.ParameterList(torch.randn(K, D) for _ in range(4))

    def forward(self, z: Tensor) -> dict[str, Any]:
        return {"z": z, "lengths": torch.full((len(z),), T), "codes": [nearest(z, book) for book in self.codebooks]}


class Methods(nn.Module):
    """Codes come out of `encode` alone, which `forward` calls."""

    def __init__(self) -> None:
        super().__init__()
        self.codebook = nn.Embedding(K, D)

    def encode(self, z: Tensor) -> Tensor:
        return nearest(z, self.codebook.weight)

    def forward(self, z: Tensor) -> Tensor:
        return self.codebook.weight[self.encode(z)]


class Attribute(Methods):
    """Codes are kept as an attribute."""

    def forward(self, z: Tensor) -> Tensor:
        self.indices = nearest(z, self.codebook.weight)
        return self.codebook.weight[self.indices]

    encode = None  # type: ignore[assignment]  # none of its own


class Embedded(nn.Module):
    """Codes are seen where they are looked up, and nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.codebook = nn.Embedding(K, D)

    def forward(self, z: Tensor) -> Tensor:
        return self.codebook(nearest(z, self.codebook.weight))


class Transposed(nn.Module):
    """Codes are columns [D, K], as in VQ-VAE-2."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("embed", torch.randn(D, K))
        self.register_buffer("cluster_size", torch.ones(K))
        self.register_buffer("embed_avg", self.embed.clone())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        codes = nearest(z, self.embed.T)
        return self.embed.T[codes], codes


class Around(nn.Module):
    """A model around a quantizer, with other embeddings that are none."""

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.tokens, self.encoder, self.vq = nn.Embedding(100, D), nn.Linear(D, D), quantizer

    def forward(self, z: Tensor) -> tuple[Any, Tensor]:
        return self.vq(self.encoder(z)), self.tokens(torch.zeros(3, dtype=torch.long))


def vqp(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(pytest.importorskip("vector_quantize_pytorch"), name)(**options)


MADE: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], int]] = {  # names of codebooks, tokens of each
    "tutorial": (Tutorial, ("codebook",), T),
    "taming": (Taming, ("codebook",), T),
    "stacked": (Stacked, tuple(f"group{q}" for q in range(4)), T),
    "listed": (Listed, LEVELS, T),
    "methods": (Methods, ("codebook",), T),
    "attribute": (Attribute, ("codebook",), T),
    "embedded": (Embedded, ("codebook",), T),
    "transposed": (Transposed, ("codebook",), T),
    "ours": (lambda: VQ(D, codebook_size=K), ("codebook",), T),
    "ours, residual": (lambda: Residual(D, levels=4, of=lambda d: VQ(d, codebook_size=K)), LEVELS, T),
    "ours, grouped": (lambda: Grouped(D, groups=2, of=lambda d: VQ(d, codebook_size=K)), ("group0", "group1"), T),
    "VectorQuantize": (vqp("VectorQuantize", dim=D, codebook_size=K), ("codebook",), T),
    "cosine": (vqp("VectorQuantize", dim=D, codebook_size=K, use_cosine_sim=True), ("codebook",), T),
    "projected": (vqp("VectorQuantize", dim=D, codebook_size=K, codebook_dim=4), ("codebook",), T),
    "heads": (
        vqp("VectorQuantize", dim=D, codebook_size=K, heads=2, separate_codebook_per_head=True),
        ("group0", "group1"),
        T,
    ),
    "ResidualVQ": (vqp("ResidualVQ", dim=D, num_quantizers=4, codebook_size=K), LEVELS, T),
    "shared": (
        vqp("ResidualVQ", dim=D, num_quantizers=4, codebook_size=K, shared_codebook=True),
        ("codebook",),
        4 * T,
    ),
    "GroupedResidualVQ": (
        vqp("GroupedResidualVQ", dim=D, groups=2, num_quantizers=2, codebook_size=K),
        ("group0.level0", "group0.level1", "group1.level0", "group1.level1"),
        T,
    ),
    "FSQ": (vqp("FSQ", levels=[8, 5, 5], dim=D), ("codebook",), T),
    "FSQ, two": (vqp("FSQ", levels=[8, 5], dim=D, num_codebooks=2), ("group0", "group1"), T),
    "ResidualFSQ": (vqp("ResidualFSQ", levels=[8, 5, 5], num_quantizers=4, dim=D), LEVELS, T),
    "LFQ": (vqp("LFQ", dim=D, codebook_size=K), ("codebook",), T),
    "ResidualLFQ": (vqp("ResidualLFQ", dim=D, codebook_size=K, num_quantizers=4), LEVELS, T),
    "SimVQ": (vqp("SimVQ", dim=D, codebook_size=K), ("codebook",), T),
    "ResidualSimVQ": (vqp("ResidualSimVQ", dim=D, num_quantizers=4, codebook_size=K), LEVELS, T),
}


@pytest.mark.parametrize("name", MADE)
def test_every_code_is_counted_once(name: str) -> None:
    make, names, tokens = MADE[name]
    torch.manual_seed(0)
    model = Around(make())
    with CodebookMonitor(model, every=1) as monitor:
        model(torch.randn(4, T // 4, D))
        monitor.look(1)
        assert tuple(monitor.counts) == names
        assert {int(n.sum()) for n in monitor.counts.values()} == {tokens}
        assert min((n > 0).sum() for n in monitor.counts.values()) > 2
        vectors = [book.vectors() for book in monitor.books]
    assert all(v is None or v.shape[0] == book.size for v, book in zip(vectors, monitor.books, strict=True))


def test_levels_that_were_dropped_are_not_counted() -> None:
    made = vqp("ResidualVQ", dim=D, num_quantizers=4, codebook_size=K, quantize_dropout=True)()
    with CodebookMonitor(made, every=40) as monitor:
        for step in range(1, 41):
            made(torch.randn(1, T, D))
            monitor.look(step)
    sums = [int(monitor.counts[name].sum()) for name in LEVELS]
    assert sums == sorted(sums, reverse=True)
    assert sums[0] > sums[3] > 0


def test_masked_tokens_are_not_counted() -> None:
    made = vqp("VectorQuantize", dim=D, codebook_size=K)()
    with CodebookMonitor(made, every=1) as monitor:
        made(torch.randn(2, T, D), mask=torch.arange(T).expand(2, T) < T // 4)
        monitor.look(1)
    assert int(monitor.counts["codebook"].sum()) == T // 2


def of_transformers(family: str) -> tuple[nn.Module, Tensor]:
    transformers = pytest.importorskip("transformers")
    wav = torch.randn(2, 1, 2048)
    if family == "EnCodec":
        return transformers.EncodecModel(transformers.EncodecConfig(
            target_bandwidths=[60.0], num_filters=4, hidden_size=16, codebook_size=64, codebook_dim=16,
            upsampling_ratios=[4, 2], num_lstm_layers=1)), wav  # fmt: skip
    if family == "DAC":
        return transformers.DacModel(transformers.DacConfig(
            encoder_hidden_size=8, downsampling_ratios=[2, 4], decoder_hidden_size=32, n_codebooks=4, codebook_size=64,
            codebook_dim=8)), wav  # fmt: skip
    return transformers.MimiModel(transformers.MimiConfig(
        num_filters=4, hidden_size=32, codebook_size=64, codebook_dim=16, num_quantizers=4, num_semantic_quantizers=1,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=64, head_dim=16,
        vector_quantization_hidden_dimension=16, upsampling_ratios=[4, 2], upsample_groups=32)), wav  # fmt: skip


@pytest.mark.parametrize("family", ["EnCodec", "DAC", "Mimi"])
def test_codecs_of_transformers(family: str) -> None:
    torch.manual_seed(0)
    model, wav = of_transformers(family)
    model.train()
    with CodebookMonitor(model, every=1) as monitor:
        codes = model(wav).audio_codes  # [..., Q, T]
        monitor.look(1)
    levels = codes.shape[-2]
    used = [int(n.sum()) for n in monitor.counts.values()]
    assert used[:levels] == [codes.numel() // levels] * levels
    assert not any(used[levels:])
    assert all(book.size == 64 and "level" in book.name for book in monitor.books)


def test_wav2vec2_chooses_by_scores() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Wav2Vec2Config(conv_dim=(D, D), conv_stride=(5, 2), conv_kernel=(10, 3), codevector_dim=D,
                                         num_codevectors_per_group=32, num_codevector_groups=2)  # fmt: skip
    made = transformers.models.wav2vec2.modeling_wav2vec2.Wav2Vec2GumbelVectorQuantizer(config)
    nn.init.normal_(made.codevectors)
    model = nn.ModuleDict({"quantizer": made})
    with CodebookMonitor(model, every=1) as monitor:
        made(torch.randn(2, T, D))
        monitor.look(1)
    assert [(book.name, book.size) for book in monitor.books] == [("group0", 32), ("group1", 32)]
    assert [int(n.sum()) for n in monitor.counts.values()] == [2 * T, 2 * T]


def test_an_embedding_is_found_by_the_name_that_is_given() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(K, D)

        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            codes = nearest(z, self.table.weight)
            return self.table.weight[codes], codes

    model = Around(Odd())
    for path in ("vq.table", "vq.table.weight"):
        with CodebookMonitor(model, every=1, codebooks={"mine": path}) as monitor:
            model(torch.randn(2, T, D))
            monitor.look(1)
        assert {name: int(n.sum()) for name, n in monitor.counts.items()} == {"mine": 2 * T}
    with pytest.raises(VqtoolError, match=r"vq\.tables"):
        quantizers_of(model, codebooks={"mine": "vq.tables"})


def test_a_module_is_found_that_is_given() -> None:
    class Plain(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return (z[..., :3] > 0).long() @ torch.tensor([1, 2, 4])

    model = Around(Plain())
    for given in ({"vq": 8},):
        with CodebookMonitor(model, every=1, modules=given) as monitor:
            model(torch.randn(2, T, D))
            monitor.look(1)
        assert int(monitor.counts["codebook"].sum()) == 2 * T
    with pytest.raises(VqtoolError, match="how many codes has `vq`"):
        quantizers_of(model, modules=[model.vq])
    with pytest.raises(VqtoolError, match="has no module `nowhere`"):
        quantizers_of(model, modules=["nowhere"])
    with pytest.raises(VqtoolError, match="not a part of the model"):
        quantizers_of(model, modules=[Plain()])
    own = Around(VQ(D, codebook_size=K))
    assert quantizers_of(own, modules=["vq"]).books[0].size == K


def test_two_quantizers_are_called_by_where_they_are() -> None:
    model = nn.ModuleDict({"top": VQ(D, codebook_size=K), "bottom": Residual(D, levels=2, of=VQ)})
    assert [b.name for b in quantizers_of(model).books] == ["top", "bottom.level0", "bottom.level1"]


def test_names_leave_out_what_is_common() -> None:
    assert short_names(["a.q.layers.0._codebook", "a.q.layers.1._codebook"]) == ["level0", "level1"]
    assert short_names(["q.rvqs.0.layers.1", "q.rvqs.1.layers.1"]) == ["group0", "group1"]
    assert short_names(["quantize_t", "quantize_b"]) == ["quantize_t", "quantize_b"]
    assert short_names(["anything.at.all"]) == ["codebook"]
    assert short_names(["a.x.0", "a.y.0"]) == ["a.x.0", "a.y.0"]


def test_candidates_are_quantizers_by_name_and_tables() -> None:
    hint = candidates(nn.ModuleDict({"vqx": nn.Linear(2, 2), "table": nn.Embedding(9, 4), "plain": nn.Linear(4, 4)}))
    assert "`vqx` (Linear)" in hint
    assert "`table` [9, 4]" in hint
    assert "plain" not in hint
