"""Speed and memory of quantizers beside what users would otherwise take, measured in one process, in turns."""

# Each case is the module of its name in vqtool/bench, whose `rows(device, seconds)` yields what `--json` calls "cases".
CASES = {
    "quantizers": "train steps and encoding beside vector-quantize-pytorch, EnCodec, transformers and faiss",
    "generation": "generating codes with the `gpt` prior, beside the GPT-2 of transformers with its cache",
    "tokenise": "windows of a three-channel signal to codes, beside the wav2vec2 of transformers",
    "loop": "training steps of the engine beside a loop written by hand for the same model",
}
