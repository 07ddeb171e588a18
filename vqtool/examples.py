"""An example for the help of every command, and what to start with."""

from __future__ import annotations

START = """\
Start with one of these:
  vqtool forecast --steps 30 --data FILE.csv   forecasts, without training
  vqtool diagnose MODEL.safetensors            is this codebook healthy?
  vqtool new mine --from codec                 a recipe, to be trained by
  vqtool train mine.toml
  vqtool help                                  the documentation
"""

EXAMPLES = {
    "train": """\
vqtool train recipes/codec.toml
vqtool train recipes/codec.toml -s quantizer.levels=4 --out runs/four
vqtool train --from forecaster -s data.path=mine.csv""",
    "resume": """\
vqtool resume                  the newest run
vqtool resume runs/codec-1""",
    "evaluate": """\
vqtool evaluate runs/codec-1
vqtool evaluate runs/codec-1 --data other/recordings --split test
vqtool evaluate runs/codec-1 --sweep quantizer.floor_db=-40:-20:5 \\
                             --plot sweep.png""",
    "diagnose": """\
vqtool diagnose runs/codec-1              a run, or a checkpoint
vqtool diagnose model.safetensors         weights of any model; a folder,
                                          .pt, .ckpt, .bin or .npz too
vqtool diagnose model.safetensors --codes codes.npy
                                          and the use that its codes show
vqtool diagnose codes.npy --sizes 1024    codes alone
vqtool diagnose runs/new --against runs/old
                                          what changed
vqtool diagnose model.pt --vectors 'vq\\.(\\d+)\\.table$' \\
                         --usage 'vq\\.(\\d+)\\.hits$'
                                          by names of your own""",
    "improve": """\
vqtool improve runs/codec-1
vqtool improve converted.safetensors --latents latents.npy""",
    "convert": """\
vqtool convert encodec/ --to vqtool --out q.safetensors
vqtool improve q.safetensors --latents latents.npy --out better.safetensors
vqtool convert better.safetensors --to encodec --into encodec/ --out new/""",
    "generate": """\
vqtool generate runs/mine-1 --condition given.npz --out signals.npz
vqtool generate runs/mine-1 --condition given.npz --out signals.npz \\
                            --temperature 1 --samples 5""",
    "forecast": """\
vqtool forecast --steps 30 --data mine.csv
vqtool forecast --steps 30 --data mine.csv --plot fan.png --explain
vqtool forecast --steps 30 --data mine.csv --method theta
vqtool forecast runs/forecast-1 --steps 96 --data mine.csv --out next.csv""",
    "backtest": """\
vqtool backtest --horizon 24 --n-windows 5 --data mine.csv""",
    "encode": """\
vqtool encode codec talk.wav --out talk.vqc      the codec that comes along
vqtool encode runs/codec-1 talk.wav --out talk.vqc
vqtool encode runs/mine-1 signals.npz --out codes.safetensors
vqtool encode runs/codec-1 - --raw 16000 --out -    from a pipe to a pipe""",
    "decode": """\
vqtool decode runs/codec-1 talk.vqc --out talk.wav
vqtool decode runs/codec-1 talk.vqc --out rough.wav --levels 2
vqtool decode runs/codec-1 - --raw --out -          from a pipe to a pipe""",
    "classify": """\
vqtool classify runs/mine-1 picture.png
vqtool classify runs/mine-1 pictures/ --out labels.csv""",
    "export": """\
vqtool export runs/codec-1 --to onnx --out exported
vqtool export runs/codec-1 --to fp16""",
    "codes": """\
vqtool codes runs/mine-1
vqtool codes runs/mine-1 --out page    a page to look through""",
    "verify": """\
vqtool verify quantizer residual-ema
vqtool verify my_model.py:VectorQuantizer --arg dim=64
vqtool verify my_model.py:VectorQuantizer --forward 'm(x, mask=None)'
vqtool verify \\
    transformers.models.dac.modeling_dac:DacResidualVectorQuantizer \\
    --arg config.n_codebooks=4""",
    "bench": """\
vqtool bench quantizers
vqtool bench quantizers ema residual-ema --device cpu""",
    "check": """\
vqtool check mine.toml
vqtool check mine.toml --dry-run -s quantizer.levels=4""",
    "new": """\
vqtool new mine --from codec      mine.toml, with its sample data
vqtool new plugin my-vq           a quantizer, a loss and a data set""",
    "show": """\
vqtool show runs/codec-1
vqtool show model.safetensors
vqtool show talk.vqc              codes in a format of a plugin""",
    "plugins": """\
vqtool plugins quantizer          the kinds of quantizer
vqtool plugins quantizer fsq      the options of one""",
    "schema": """\
vqtool schema > recipe.schema.json""",
    "help": """\
vqtool help              the topics
vqtool help collapse     a page
vqtool help train        a command""",
}


def epilog(command: str) -> str:
    """The examples of a command's help, in lines that are not wrapped."""
    lines = EXAMPLES[command].splitlines()
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""
