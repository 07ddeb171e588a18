"""A sound recipe of toy parts, for the tests to spoil."""

GOOD = """\
title = "toys"
seed = 3

[data]
kind = "toy"
path = "waves.npy"

[encoder]
kind = "toy"
strides = [4, 4]

[quantizer]
kind = "toy"
codebook_size = 16

[decoder]
kind = "toy"

[train]
steps = 100
lr = 2e-3

[evaluate]
metrics = ["toy"]
baselines = ["toy"]

[[stage]]
name = "first"
task = "toy"
losses = { toy = 1.0, commitment = 0.25 }

[[stage]]
name = "second"
task = "toy"
epochs = 2
options = { mask = 0.5 }
losses = { toy = { weight = 2, from = 3 } }
set = { "quantizer.temperature" = 0.7, "quantizer.hard" = true }
schedule."task.own_tokens" = { kind = "toy", from = 0.0 }
schedule.lr = { kind = "toy", from = 1e-3, to = 1e-4 }
"""
