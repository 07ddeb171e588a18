"""What each law says, what breaking it does, and its mend: the words of `vqtool verify`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """One law in words."""

    meaning: str
    harm: str
    mend: str
    source: str  # the paper, or where it went wrong in public


WORDS: dict[str, Words] = {
    "codes-are-codes": Words(
        "codes are integers in [0, K), one per token and codebook; of experts, one per token",
        "what reads the codes (a prior, a decoder, a file) reads nonsense or crashes",
        "return the argmin indices as a long tensor [B, T, Q]",
        "van den Oord et al. 2017 (arXiv 1711.00937), eq. 1",
    ),
    "forward-exact": Words(
        "the value that flows on is codebook[code], bit for bit",
        "the decoder is trained on values that decoding from codes never gives it",
        "return the gathered vectors from a custom autograd function; x + (q - x).detach() rounds",
        "van den Oord et al. 2017 (arXiv 1711.00937), eq. 2",
    ),
    "decode-round-trip": Words(
        "decoding the codes gives the value that flowed on",
        "a decoder that gets only the codes reconstructs something else",
        "let forward and decode gather from the same table, in the same order of sums",
        "vector-quantize-pytorch issues 113, 82, 233",
    ),
    "partial-decode": Words(
        "the first codebooks alone decode, as their own share of the sum",
        "fewer levels (a lower bit rate) cannot be decoded",
        "sum over the given codes only; -1 contributes nothing",
        "Zeghidour et al. 2021 (SoundStream, arXiv 2107.03312), section III-C",
    ),
    "nearest-code": Words(
        "the code is the nearest one in exact arithmetic, at any offset and scale; of equals the lowest index",
        "tokens get wrong codes where latents have an offset or are small; codes die for no reason",
        "compare |e|^2 / 2 - x.e on codebook-centred values in float32, without a clamp or root of the distance",
        "van den Oord et al. 2017 (arXiv 1711.00937), eq. 1",
    ),
    "straight-through-gain": Words(
        "the gradient passes the quantizer unchanged, with gain exactly 1",
        "the encoder learns at another rate than the rest, Q times as fast for Q levels",
        "apply straight-through once to the sum: z + (sum of codes - z).detach(), with detached residuals",
        "Bengio et al. 2013 (arXiv 1308.3432); a sum over levels in a published codec had gain 8",
    ),
    "gradient-reaches-encoder": Words(
        "a gradient of what flows on reaches the input, finite and not zero",
        "the encoder is not trained by the decoder's loss",
        "pass the gradient through (straight-through), and do not detach the input",
        "van den Oord et al. 2017 (arXiv 1711.00937), section 3.2",
    ),
    "gradient-bounded": Words(
        "the gradient stays bounded where an input is zero, tiny, or equal to its code",
        "single tokens blow up the encoder's gradient",
        "bound factors like |code| / |z|, and fall back to the identity where they are undefined",
        "Fifty et al. 2024 (rotation trick, arXiv 2410.06424); vector-quantize-pytorch issue 223",
    ),
    "commitment-reaches-encoder": Words(
        "the commitment loss pulls the encoder to its codes, at every level",
        "latents drift away from the codebook and grow without bound",
        "detach the codes, not the latents, and add it with a plus: + beta * mse(z, codes.detach())",
        "van den Oord et al. 2017, eq. 3; encodec issue 25, vector-quantize-pytorch issue 33",
    ),
    "commitment-spares-codebook": Words(
        "the commitment loss moves no code",
        "the two betas of the objective cannot be told apart",
        "detach the codes in the commitment loss",
        "van den Oord et al. 2017 (arXiv 1711.00937), eq. 3",
    ),
    "codebook-loss-spares-encoder": Words(
        "the codebook loss moves codes and nothing else",
        "the encoder is committed twice, by an unknown weight",
        "detach the latents in the codebook loss: mse(codes, z.detach())",
        "van den Oord et al. 2017 (arXiv 1711.00937), eq. 3",
    ),
    "codebook-learns": Words(
        "the optimizer, if no moving average, brings the codes to the inputs that chose them",
        "the codebook stays where it started, or runs away from the encoder",
        "add mse(codes, z.detach()) to the loss, or update a moving average in training",
        "van den Oord et al. 2017 (arXiv 1711.00937), eq. 3, second term",
    ),
    "ema-follows-inputs": Words(
        "each code moves towards the mean of the encoder outputs that chose it",
        "the codebook never follows the encoder: it stays where it started",
        "feed the moving average with the inputs z, not with the quantized outputs",
        "van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1",
    ),
    "ema-start": Words(
        "the codes that the start chose survive the first steps",
        "the first update throws the codebook far away or to zero",
        "start the averages together: counts at 1 (or the start's counts) and sums at counts * codes",
        "vector-quantize-pytorch issue 66; rosinality/vq-vae-2-pytorch pull request 72",
    ),
    "one-owner": Words(
        "a codebook is moved by the moving average or by the optimizer, never by both",
        "two updates pull the codes to different places with every step",
        "make the codebook of a moving average a buffer, or detach it wherever a loss reads it",
        "vector-quantize-pytorch issues 9, 20, 40",
    ),
    "unused-code-rests": Words(
        "a code that nobody chose does not move",
        "rare codes drift to the origin and are lost",
        "update only the codes with a count above 0; no Laplace smoothing of unused counts",
        "van den Oord et al. 2017, appendix A.1, without the smoothing of Razavi et al. 2019 (arXiv 1906.00446)",
    ),
    "revival-holds": Words(
        "a revived code stays where it was put, and comes into use",
        "dead codes stay dead: revival is overwritten by the next average",
        "revive after the moving average, and set count and sum of a revived code along with it",
        "encodec issue 61: the replaced codes are overwritten by the next average",
    ),
    "revival-relative": Words(
        "which code counts as dead does not depend on batch size or codebook size",
        "with many codes or small batches healthy codes are replaced at every step",
        "compare a code's use with a share of uniform use, not with an absolute count",
        "WavTokenizer issue 82: an absolute threshold depends on batch and codebook size",
    ),
    "set-codebook-survives": Words(
        "a codebook that was set or loaded survives the next step",
        "loaded or hand-made codes are thrown away by stale averages",
        "keep sums as count * code, or reset sums and counts with the codes",
        "vector-quantize-pytorch issue 102",
    ),
    "nan-contained": Words(
        "a NaN or infinite token reaches no codebook row and no other token (or it is as if masked), and is reported",
        "one bad sample destroys the codebook for ever",
        "leave tokens that are not finite out of counts and sums (NaN * 0 is NaN in a one-hot product)",
        "a NaN times the zero of a one-hot product is a NaN",
    ),
    "padding-irrelevant": Words(
        "masked tokens reach nothing, whatever they hold",
        "results depend on the padding and so on the batch they are in",
        "give masked tokens code -1 and a zero vector, and leave them out of terms and statistics",
        "vector-quantize-pytorch issues 62, 149, 228, 188",
    ),
    "empty-batch": Words(
        "a batch without tokens passes and changes nothing",
        "the last, empty shard of a run brings it down or fills it with NaN",
        "divide by max(count, 1)",
        "the last shard of an uneven data set",
    ),
    "eval-changes-nothing": Words(
        "evaluation changes no parameter, buffer or random state, and still returns the terms",
        "the validation data leak into the codebook; validation curves of the terms are zero",
        "update only in training, and never start a codebook in evaluation",
        "vector-quantize-pytorch issues 42, 68, 93, 163",
    ),
    "never-silent-start": Words(
        "a quantizer that was never started says so instead of quantizing with an empty codebook",
        "a forgotten start goes unnoticed, or the validation set initialises the codebook",
        "raise an error in evaluation and in decode until the codebook was started or loaded",
        "the k-means start inside of forward takes whatever batch comes first",
    ),
    "refuses-foreign-codes": Words(
        "decode refuses a code outside of its codebook, other than -1",
        "codes of another model or of a damaged file are decoded to wrong vectors or to silence",
        "leave `Quantizer.check_codes` as it is: the base class calls it before `decode`",
        "clamping or wrapping indices to make a lookup safe",
    ),
    "forward-pure": Words(
        "forward changes no parameter, no buffer and no random state",
        "gradient accumulation, checkpointing and several machines apply updates twice or unevenly",
        "return the statistics, and apply them once per optimizer step in update",
        "vector-quantize-pytorch issue 221",
    ),
    "checkpointing": Words(
        "activation checkpointing gives the same gradient and the same state",
        "the second pass moves the codebook again and computes other gradients",
        "keep forward free of updates and of draws from a generator",
        "torch.utils.checkpoint runs forward twice",
    ),
    "accumulation": Words(
        "micro-batches together do what one full batch does",
        "the result depends on how a batch is cut",
        "add counts and sums over micro-batches, and update once",
        "vector-quantize-pytorch issue 221",
    ),
    "ranks-add-up": Words(
        "uneven, masked and empty shards together do what the whole batch does, in any order",
        "codebooks of different machines drift apart, or training hangs",
        "sum counts and sums over ranks in collectives of fixed shape that every rank enters",
        "vector-quantize-pytorch issues 105, 25, 142, 169, 222",
    ),
    "precision": Words(
        "under bfloat16 autocast the codes are those of float32; counts and sums stay in float32",
        "codes flip at random and counts stop growing at 256",
        "disable autocast in the quantizer and keep its buffers in float32",
        "vector-quantize-pytorch issue 229; counts in bfloat16 stop at 256",
    ),
    "state-round-trip": Words(
        "a state_dict loads strictly into a fresh quantizer, which then gives the same codes",
        "a checkpoint loads with errors, or silently with other codes",
        "register every tensor that matters as a buffer, and cache nothing derived from them",
        "vector-quantize-pytorch pull request 61, issues 28, 44, 71",
    ),
    "deterministic": Words(
        "the same input twice gives the same codes, values and terms",
        "runs cannot be repeated",
        "derive chance from a seed or from the input",
        "the same seed must give the same run",
    ),
    "own-random-state": Words(
        "neither forward nor the start draws from the global random state",
        "adding a quantizer changes every other draw of a run",
        "use a private generator",
        "adding a part must not change the draws of the others",
    ),
    "token-permutation": Words(
        "permuting or cutting a batch permutes or cuts the codes, nothing else; a window chooses its expert as one",
        "a token's code depends on its neighbours in the batch",
        "compute no statistic over the batch on the way to the codes",
        "the definition of a quantizer: a function of one token, or of one window where experts are routed",
    ),
    "row-permutation": Words(
        "permuting the codebook's rows relabels the codes, nothing else",
        "some code indices are treated apart",
        "address code vectors by index only",
        "the definition of a codebook: a set of vectors",
    ),
    "compiles": Words(
        "torch.compile(fullgraph=True) captures evaluation and gives the same codes",
        "the model cannot be compiled in one graph",
        "branch on Python flags, not on tensors",
        "vector-quantize-pytorch issue 41",
    ),
    "exports": Words(
        "torch.export captures evaluation for any batch and length and gives the same codes",
        "the model cannot be exported",
        "branch on Python flags, not on tensors; no in-place work on results",
        "torch.export's contract",
    ),
    "earlier-codes-only": Words(
        "a logit depends on the codes before it, in the order (t=0,q=0), (t=0,q=1), ..., and on no other",
        "training scores codes that the prior has already seen; what it writes is noise",
        "shift the inputs by one code, mask attention to the past, and sum only the coarser codes of a token",
        "van den Oord et al. 2016 (PixelRNN, arXiv 1601.06759), eq. 1: the chain rule",
    ),
    "reads-its-past": Words(
        "every code but the last changes some logit after it",
        "what is written does not hang together",
        "feed the codes back, of all codebooks",
        "the chain rule again: a product of conditional distributions",
    ),
    "reads-its-condition": Words(
        "another condition gives other logits, and where there is none the prior does without",
        "it writes the same whatever is asked for",
        "add the condition to the inputs, or attend to it",
        "the contract of `Prior`",
    ),
    "sizes-kept": Words(
        "each existing code has a finite logit, and one beyond its codebook's size is never written",
        "decoding meets a code that no codebook has",
        "mask logits beyond a codebook's size with -inf",
        "the contract of `Prior`: codebooks may differ in size",
    ),
    "rows-apart": Words(
        "the logits of a row do not depend on the rest of the batch",
        "what is written depends on what else is asked for at the same time",
        "no statistic over the batch, and no state kept between rows",
        "the definition of a conditional distribution",
    ),
    "scoring-is-pure": Words(
        "scoring and sampling change no weight, no buffer and no global random state",
        "validation changes what is trained; runs cannot be repeated",
        "draw from a generator of your own, and keep no state in the module",
        "the contract of `Prior`",
    ),
    "greedy-is-likeliest": Words(
        "at temperature 0 every code written is the likeliest after those before it, as one pass scores them",
        "a cache or a shift makes writing another model than the one that was trained",
        "compare each step's logits with those of one pass over the whole sequence",
        "caches of keys and values: the usual place of an error by one",
    ),
    "prefix-continued": Words(
        "a prefix comes back unchanged, and what follows is the likeliest after it",
        "forecasts do not go on from their history",
        "read the whole prefix into the state before the first new code",
        "the contract of `Prior.sample`",
    ),
    "draws-are-the-distribution": Words(
        "at temperature 1 tokens are drawn as often as the prior says they are likely",
        "sample paths are too narrow or too wide, and so are the intervals made of them",
        "divide the logits by the temperature once, and apply the softmax once",
        "Pearson's chi-squared test",
    ),
    "samples-by-row": Words(
        "what a row draws follows from its own seed and condition alone",
        "a sample cannot be made again, nor on a machine with another batch size",
        "one generator for each row, seeded by the row's own seed",
        "the contract of `Prior.sample`",
    ),
    "sharp-is-greedy": Words(
        "top-k of 1, a tiny nucleus and a temperature close to 0 are greedy",
        "the knobs of sampling do not do what they are named for",
        "mask all but the k likeliest; keep the smallest set that holds top-p",
        "Holtzman et al. 2020 (arXiv 1904.09751), section 3",
    ),
    "beam-is-scored": Words(
        "a beam's score is the log-probability of its codes",
        "beams are ranked by something else than the model",
        "carry scores along with their past when beams are picked",
        "beam search as in Sutskever et al. 2014 (arXiv 1409.3215), section 3.2",
    ),
    "beam-finds": Words(
        "a beam of one is greedy, no beam is worse than greedy, and one that is wide enough finds the best",
        "a search that costs more finds less",
        "pick caches together with codes, and keep the greedy path",
        "the definition of beam search; its own path may drop out of narrow beams",
    ),
    "no-share-is-teacher-forcing": Words(
        "with none of its own codes, scheduled sampling is teacher forcing bit for bit",
        "the start of the schedule is not the training that it is compared with",
        "draw nothing, and return the codes as they are, where the share is 0",
        "Bengio et al. 2015 (arXiv 1506.03099), section 2.4",
    ),
}
