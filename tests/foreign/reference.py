"""Quantizers as other libraries name and compute them: the real classes where they are installed, and small twins."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, weight_norm

import vqtool
from vqtool.quantizers.core.composable import Composable

D = 24
Encode = Callable[[Any, Tensor], Tensor]  # (module, latents) -> codes [..., Q]


@dataclass(frozen=True)
class Case:
    """A quantizer of another library."""

    library: str
    make: Callable[[], nn.Module]
    encode: Encode
    layout: str = "BCL"
    hidden: tuple[str, ...] = ()  # buffers that an unused random start would leave empty


class EuclideanCodebook(nn.Module):
    """EnCodec's: `inited` is one number, counts and sums are moving averages."""

    def __init__(self, size: int = 32, dim: int = D) -> None:
        super().__init__()
        self.register_buffer("inited", torch.ones(1))
        self.register_buffer("cluster_size", torch.rand(size) * 9 + 1)
        self.register_buffer("embed", torch.randn(size, dim))
        self.register_buffer("embed_avg", torch.randn(size, dim))

    def search(self, x: Tensor) -> Tensor:
        embed = self.embed.t()
        dist = -(x.pow(2).sum(1, keepdim=True) - 2 * x @ embed + embed.pow(2).sum(0, keepdim=True))
        return dist.max(dim=-1).indices


class EncodecLayer(nn.Module):
    """One level of the original EnCodec, whose codes may be narrower than the latents."""

    def __init__(self, dim: int = D) -> None:
        super().__init__()
        self.project_in = nn.Linear(D, dim) if dim != D else nn.Identity()
        self.project_out = nn.Linear(dim, D) if dim != D else nn.Identity()
        self._codebook = EuclideanCodebook(dim=dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codes = self._codebook.search(self.project_in(x))
        return codes, self.project_out(F.embedding(codes, self._codebook.embed))


class Encodec(nn.Module):
    """`quantizer.vq.layers.N._codebook.*`."""

    def __init__(self, dim: int = D) -> None:
        super().__init__()
        self.vq = nn.Module()
        self.vq.layers = nn.ModuleList(EncodecLayer(dim) for _ in range(4))

    def encode(self, x: Tensor) -> Tensor:
        rest, codes = x.transpose(1, 2).reshape(-1, D), []
        for layer in self.vq.layers:
            chosen, value = layer(rest)
            codes.append(chosen)
            rest = rest - value
        return torch.stack(codes, -1).view(x.shape[0], x.shape[2], -1)


class DacLayer(nn.Module):
    """Descript's: weight-normed convolutions of width one, codes compared at length one."""

    def __init__(self, norm: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.in_proj, self.out_proj = norm(nn.Conv1d(D, 8, 1)), norm(nn.Conv1d(8, D, 1))
        self.codebook = nn.Embedding(32, 8)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z_e = self.in_proj(z)
        e, c = F.normalize(z_e.transpose(1, 2).reshape(-1, 8)), F.normalize(self.codebook.weight)
        dist = e.pow(2).sum(1, keepdim=True) - 2 * e @ c.t() + c.pow(2).sum(1, keepdim=True).t()
        codes = (-dist).max(1)[1].view(z.shape[0], -1)
        z_q = F.embedding(codes, self.codebook.weight).transpose(1, 2)
        return codes, self.out_proj(z_e + (z_q - z_e).detach())


class Dac(nn.Module):
    """`quantizer.quantizers.N.{in_proj, out_proj, codebook}.*`."""

    def __init__(self, norm: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList(DacLayer(norm) for _ in range(4))

    def encode(self, x: Tensor) -> Tensor:
        codes = []
        for layer in self.quantizers:
            chosen, value = layer(x)
            codes.append(chosen)
            x = x - value
        return torch.stack(codes, -1)


class MimiCodebook(nn.Module):
    """Mimi's: sums, divided by how often each code was used."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("_initialized", torch.ones(1))
        self.register_buffer("cluster_usage", torch.rand(32) * 9 + 0.1)
        self.register_buffer("embedding_sum", torch.randn(32, dim) * self.cluster_usage[:, None])

    @property
    def embed(self) -> Tensor:
        return self.embedding_sum / self.cluster_usage.clamp(min=1e-5)[:, None]

    def search(self, x: Tensor) -> Tensor:
        return torch.cdist(x[None], self.embed[None], p=2)[0].argmin(dim=-1)


class MimiHalf(nn.Module):
    """Levels behind maps without biases."""

    def __init__(self, levels: int, dim: int) -> None:
        super().__init__()
        if dim != D:
            self.input_proj, self.output_proj = nn.Conv1d(D, dim, 1, bias=False), nn.Conv1d(dim, D, 1, bias=False)
        self.vq = nn.Module()
        self.vq.layers = nn.ModuleList(nn.Module() for _ in range(levels))
        for layer in self.vq.layers:
            layer._codebook = MimiCodebook(dim)

    def encode(self, x: Tensor) -> list[Tensor]:
        x = self.input_proj(x) if hasattr(self, "input_proj") else x
        rest, codes = x.transpose(1, 2).reshape(-1, x.shape[1]), []
        for layer in self.vq.layers:
            codes.append(layer._codebook.search(rest))
            rest = rest - F.embedding(codes[-1], layer._codebook.embed)
        return codes


class Mimi(nn.Module):
    """`quantizer.rvq_first` and `rvq_rest`, both of the same latents, as the original names them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.rvq_first, self.rvq_rest = MimiHalf(1, dim), MimiHalf(3, dim)

    def encode(self, x: Tensor) -> Tensor:
        codes = self.rvq_first.encode(x) + self.rvq_rest.encode(x)
        return torch.stack(codes, -1).view(x.shape[0], x.shape[2], -1)


class Vqgan(nn.Module):
    """taming-transformers' VectorQuantizer2."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, D)

    def encode(self, x: Tensor) -> Tensor:
        z = x.movedim(1, -1).reshape(-1, D)
        w = self.embedding.weight
        d = (z**2).sum(1, keepdim=True) + (w**2).sum(1) - 2 * torch.einsum("bd,dn->bn", z, w.t())
        return d.argmin(1).view(x.shape[0], *x.shape[2:], 1)


class LucidrainsCodebook(nn.Module):
    """vector-quantize-pytorch's: a leading axis of heads, a flag that is a boolean."""

    def __init__(self, heads: int, dim: int, cosine: bool) -> None:
        super().__init__()
        self.register_buffer("initted", torch.tensor(True))
        self.register_buffer("cluster_size", torch.rand(heads, 32) * 9 + 1)
        embed = torch.randn(heads, 32, dim)
        self.register_buffer("embed", F.normalize(embed, dim=-1) if cosine else embed)
        self.register_buffer("embed_avg", torch.randn(heads, 32, dim))


class Lucidrains(nn.Module):
    """Heads with a codebook each, behind maps or not."""

    def __init__(self, heads: int = 1, dim: int = D, cosine: bool = False) -> None:
        super().__init__()
        self.heads, self.cosine = heads, cosine
        same = heads * dim == D
        self.project_in = nn.Identity() if same else nn.Linear(D, heads * dim)
        self.project_out = nn.Identity() if same else nn.Linear(heads * dim, D)
        self._codebook = LucidrainsCodebook(heads, dim, cosine)

    def encode(self, x: Tensor) -> Tensor:
        z = self.project_in(x).unflatten(-1, (self.heads, -1)).movedim(2, 0).flatten(1, 2).contiguous()
        e = self._codebook.embed
        if self.cosine:
            near = torch.einsum("hnd,hcd->hnc", F.normalize(z, dim=-1, eps=1e-6), e)
        else:
            near = (z**2).sum(-1)[..., None] + (e**2).sum(-1)[:, None] + torch.einsum("bid,bjd->bij", z, e) * -2
            near = -near.clamp(min=1e-8).sqrt()
        return near.argmax(-1).movedim(0, -1).view(*x.shape[:2], self.heads)


def encode(module: Any, x: Tensor) -> Tensor:
    """Of the small twins."""
    codes: Tensor = module.encode(x)
    return codes


CASES: dict[str, Case] = {
    "encodec": Case("encodec", Encodec, encode),
    "encodec-narrow": Case("encodec", lambda: Encodec(8), encode),
    "dac": Case("dac", lambda: Dac(weight_norm), encode),
    "dac-parametrized": Case("dac", lambda: Dac(parametrizations.weight_norm), encode),
    "mimi": Case("mimi", lambda: Mimi(12), encode),
    "mimi-without-maps": Case("mimi", lambda: Mimi(D), encode),
    "vqgan": Case("vqgan", Vqgan, encode, "BCHW"),
    "lucidrains": Case("vector-quantize-pytorch", Lucidrains, encode, "BTD"),
    "lucidrains-heads": Case("vector-quantize-pytorch", lambda: Lucidrains(3, 6), encode, "BTD"),
    "lucidrains-cosine": Case("vector-quantize-pytorch", lambda: Lucidrains(1, 8, True), encode, "BTD"),
}


def installed(name: str) -> bool:
    """Whether a library is there."""
    return importlib.util.find_spec(name) is not None


def real() -> Iterator[tuple[str, Case]]:
    """The libraries' own classes."""
    if installed("transformers"):
        yield from of_transformers()
    if installed("vector_quantize_pytorch"):
        yield from of_lucidrains()


def of_transformers() -> Iterator[tuple[str, Case]]:
    """EnCodec, DAC, Mimi, and the VQGAN of Chameleon."""

    def encodec() -> nn.Module:
        from transformers import EncodecConfig
        from transformers.models.encodec.modeling_encodec import EncodecResidualVectorQuantizer as Quantizer

        config = EncodecConfig(codebook_size=32, codebook_dim=D, hidden_size=D, target_bandwidths=[3.0])
        return filled(Quantizer(config))

    def dac() -> nn.Module:
        from transformers import DacConfig
        from transformers.models.dac.modeling_dac import DacResidualVectorQuantizer as Quantizer

        return filled(Quantizer(DacConfig(hidden_size=D, codebook_dim=8, codebook_size=32, n_codebooks=4)))

    def mimi(dim: int) -> nn.Module:
        from transformers import MimiConfig
        from transformers.models.mimi.modeling_mimi import MimiSplitResidualVectorQuantizer as Quantizer

        config = MimiConfig(hidden_size=D, codebook_dim=dim, vector_quantization_hidden_dimension=dim, codebook_size=32,
                            num_quantizers=4)  # fmt: skip
        return filled(Quantizer(config))

    def vqgan() -> nn.Module:
        from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
        from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAEVectorQuantizer as Quantizer

        return filled(Quantizer(ChameleonVQVAEConfig(num_embeddings=32, embed_dim=D)))

    def by_level(module: Any, x: Tensor) -> Tensor:
        for inner in module.modules():
            if hasattr(inner, "_embed"):
                inner._embed = None  # transformers keeps Mimi's codes from before they were loaded
        codes: Tensor = module.encode(x)
        return codes.permute(1, 2, 0)

    yield "transformers-encodec", Case("encodec", encodec, by_level)
    yield "transformers-dac", Case("dac", dac, lambda m, x: m(x)[1].transpose(1, 2))
    yield "transformers-mimi", Case("mimi", lambda: mimi(12), by_level)
    yield "transformers-mimi-without-maps", Case("mimi", lambda: mimi(D), by_level)
    yield "transformers-vqgan", Case("vqgan", vqgan, lambda m, x: m(x)[2].view(len(x), *x.shape[2:], 1), "BCHW")


def of_lucidrains() -> Iterator[tuple[str, Case]]:
    """vector-quantize-pytorch, trained for two batches."""
    library = "vector-quantize-pytorch"

    def one(**options: Any) -> nn.Module:
        from vector_quantize_pytorch import VectorQuantize

        return trained(VectorQuantize(D, 32, **options))

    def levels(kind: str = "ResidualVQ", **options: Any) -> nn.Module:
        import vector_quantize_pytorch

        return trained(getattr(vector_quantize_pytorch, kind)(dim=D, **options))

    def codes(module: Any, x: Tensor) -> Tensor:
        found = module(x)[1]
        found = torch.cat(list(found), -1) if found.dim() == 4 and len(found) != len(x) else found
        return found if found.dim() == x.dim() else found[..., None]

    separate = {"heads": 3, "codebook_dim": 6, "separate_codebook_per_head": True}
    for name, options in {
        "": {}, "-cosine": {"use_cosine_sim": True}, "-narrow": {"codebook_dim": 8}, "-heads": separate,
        "-heads-cosine": separate | {"use_cosine_sim": True}, "-not-rotated": {"rotation_trick": False},
        "-learned": {"learnable_codebook": True, "ema_update": False}, "-unstarted": {"kmeans_init": True},
    }.items():  # fmt: skip
        yield f"{library}{name}", Case(library, lambda options=options: one(**options), codes, "BTD")
    yield f"{library}-first", Case(library, lambda: one(channel_last=False), codes, "BCL")
    yield f"{library}-images", Case(library, lambda: one(accept_image_fmap=True), codes, "BCHW")
    for name, options in {
        "": {"num_quantizers": 3, "codebook_size": 32}, "-sizes": {"codebook_size": (32, 16), "codebook_dim": 8},
        "-shared": {"num_quantizers": 3, "codebook_size": 32, "shared_codebook": True},
        "-cosine": {"num_quantizers": 3, "codebook_size": 32, "use_cosine_sim": True},
        "-grouped": {"kind": "GroupedResidualVQ", "groups": 3, "num_quantizers": 2, "codebook_size": 32,
                     "codebook_dim": 4},
    }.items():  # fmt: skip
        yield f"{library}-residual{name}", Case(library, lambda options=options: levels(**options), codes, "BTD")


@torch.no_grad()
def filled(module: nn.Module) -> nn.Module:
    """With random codes and counts."""
    for name, tensor in module.state_dict().items():
        if name.endswith(("cluster_size", "cluster_usage")):
            tensor.uniform_(0.5, 9)
        elif name.endswith(("embed", "embed_avg", "embed_sum", "weight", "bias")):
            tensor.normal_()
    return module


def trained(module: Any) -> nn.Module:
    """After two batches, which leave counts."""
    module.train()
    wanted = {"accept_image_fmap": (4, D, 8, 8), "channel_first": (4, D, 64)}
    first = not getattr(module, "channel_last", True)
    shape = wanted["accept_image_fmap"] if getattr(module, "accept_image_fmap", False) else (4, 64, D)
    shape = wanted["channel_first"] if first else shape
    for _ in range(2):
        module(torch.randn(shape))
    return module


def latents(layout: str, rows: int = 4) -> Tensor:
    """Random latents of a layout."""
    return torch.randn({"BCL": (rows, D, 50), "BTD": (rows, 50, D), "BCHW": (rows, D, 5, 10)}[layout])


def ours(module: nn.Module) -> Composable:
    """The quantizer that it becomes."""
    quantizer = vqtool.convert(module)
    assert isinstance(quantizer, Composable)
    return quantizer


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)
