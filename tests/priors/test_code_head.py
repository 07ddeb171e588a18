"""The head's geometry: which code is likeliest, what is summed, what is copied, what a wrong code asks for."""

from __future__ import annotations

import math

import pytest
import torch

from tests.priors import made
from vqtool.parts.priors.gpt import Gpt
from vqtool.sequence.code_head import CodeHead


def test_the_likeliest_code_is_the_nearest_to_what_is_missing():
    prior, condition = made.small("gpt", (4, 3), 3), made.random_condition(2)
    codes = made.random_codes(prior, 2)
    with torch.no_grad():
        prior.head.table.zero_()
        logits, z_hat = prior.outputs(codes, condition)
    for b, t in [(0, 0), (1, 2)]:
        first = prior.head.vectors[0, :4]
        far = (z_hat[b, t, 0] - first).square().sum(-1)
        assert logits[b, t, 0, :4].argmax() == far.argmin()
        missing = z_hat[b, t, 1] - first[codes[b, t, 0]]
        far = (missing - prior.head.vectors[1, :3]).square().sum(-1)
        gaps = logits[b, t, 1, :3] - logits[b, t, 1, 0]
        sharp = gaps[1] / (-0.5 * (far[1] - far[0]))
        assert sharp > 0
        torch.testing.assert_close(gaps, -0.5 * sharp * (far - far[0]))


def test_codes_beyond_a_codebook_are_impossible():
    logits = made.small("gru", (4, 2))(torch.zeros(1, 3, 2, dtype=torch.long), made.random_condition(1))
    assert bool((logits[:, :, 1, 2:] == -math.inf).all())
    assert bool(logits[:, :, 0].isfinite().all())


def test_partial_sums_and_masked_codes():
    head = made.small("gpt", (4, 3, 3), 2).head
    codes = torch.tensor([[[1, 2, 0], [3, -1, 1]]])
    partial = head.partial(codes)[0]
    vectors = head.vectors
    assert bool((partial[:, 0] == 0).all())
    torch.testing.assert_close(partial[0, 2], vectors[0, 1] + vectors[1, 2])
    torch.testing.assert_close(partial[1, 2], vectors[0, 3])


def test_inputs_in_pieces_are_the_inputs_at_once():
    head = made.small("gpt", (4, 3, 3), 4).head
    codes = torch.randint(3, (2, 4, 3))
    whole = head.inputs(codes)
    for start in range(12):
        for stop in range(start + 1, 13):
            torch.testing.assert_close(head.inputs(codes, start, stop), whole[:, start:stop])


def test_the_start_is_sensible_however_fine_the_codebook():
    torch.manual_seed(0)
    sizes = (32,) * 8
    vectors = tuple(50 * torch.randn(32, 24) * 0.5**book for book in range(8))
    prior = Gpt(sizes, 2, 0, vectors, layers=1, width=32).eval()
    truth = torch.randint(32, (16, 2, 8))
    loss = -prior(truth).log_softmax(-1).gather(-1, truth[..., None])[..., 0]
    assert bool((loss.mean((0, 1)) < 3 * math.log(32)).all())


def test_a_finer_code_is_asked_to_correct_a_wrong_coarser_one():
    head = made.small("gpt", (4, 3, 5), 6, seed=2).head
    torch.manual_seed(0)
    codes, fed = (torch.stack([torch.randint(k, (7, 6)) for k in (4, 3, 5)], -1) for _ in range(2))
    fed[:, ::2] = codes[:, ::2]
    targets = head.targets(codes, fed)
    assert torch.equal(targets[:, ::2], codes[:, ::2])
    latent = sum(head.vectors[q][codes[..., q]] for q in range(3))
    changed = 0
    for b in range(7):
        for t in range(1, 6, 2):
            assert targets[b, t, 0] == codes[b, t, 0]
            for q in (1, 2):
                so_far = sum(head.vectors[p, fed[b, t, p]] for p in range(q))
                far = (latent[b, t] - so_far - head.vectors[q, : (4, 3, 5)[q]]).norm(dim=-1)
                astray = bool((fed[b, t, :q] != codes[b, t, :q]).any())
                assert targets[b, t, q] == (far.argmin() if astray else codes[b, t, q])
                changed += int(targets[b, t, q] != codes[b, t, q])
    assert changed > 5


def test_without_geometry_the_true_codes_are_the_targets():
    prior = made.small("gru", geometry=False)
    codes = made.random_codes(prior, 2)
    assert torch.equal(prior.targets(codes, torch.zeros_like(codes)), codes)
    assert prior.outputs(codes, made.random_condition(2))[1] is None


def test_the_quantizer_is_copied_and_gets_no_gradient():
    vectors = tuple(torch.nn.Parameter(torch.randn(4, 6)) for _ in range(2))
    prior = Gpt((4, 4), 2, 0, vectors, layers=1, width=16).eval()
    codes = torch.randint(4, (2, 2, 2))
    before = prior(codes)
    before.logsumexp(-1).sum().backward()
    assert all(v.grad is None for v in vectors)
    with torch.no_grad():
        vectors[0].fill_(9.0)
    torch.testing.assert_close(prior(codes), before)


def test_a_prior_takes_the_vectors_of_a_quantizer_trained_meanwhile():
    trained = tuple(torch.randn(4, 6) * 3 for _ in range(2))
    blank = tuple(torch.zeros(4, 6) for _ in range(2))
    prior, other = (Gpt((4, 4), 2, 0, given, layers=1, width=16).eval() for given in (blank, trained))
    prior.copy_vectors(trained)
    for (name, mine), theirs in zip(prior.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(mine, theirs), name
    prior = Gpt((4, 4), 2, 0, None, layers=1, width=16)
    prior.copy_vectors(trained)
    assert prior.head.vectors is None


@pytest.mark.parametrize("blank", [torch.zeros(4, 6), torch.full((4, 6), math.nan)])
def test_a_checkpoint_holds_the_geometry(blank):
    prior = made.small("gpt", (4, 4), 2)
    other = Gpt((4, 4), 2, made.WIDTH, (blank, blank), layers=2, width=16, heads=2).double().eval()
    other.load_state_dict(prior.state_dict())
    codes, condition = made.random_codes(prior, 2), made.random_condition(2)
    assert torch.equal(other(codes, condition), prior(codes, condition))


def test_weights_are_tied():
    head = CodeHead((4,), 3, 16, None)
    assert [name for name, p in head.named_parameters() if p.shape[-2:] == (4, 16)] == ["table"]
    codes = torch.zeros(1, 3, 1, dtype=torch.long)
    before = head.inputs(codes)
    hidden = torch.randn(1, 3, 16)
    logits = head.outputs(hidden, codes)[0]
    with torch.no_grad():
        head.table += 1.0
    assert not torch.allclose(head.inputs(codes)[:, 1:], before[:, 1:])
    assert not torch.allclose(head.outputs(hidden, codes)[0], logits)
