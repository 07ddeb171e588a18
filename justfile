# `just` runs lint and tests; see CONTRIBUTING.md.
default: lint test

test:
    pytest -n 2 --dist worksteal

# lines and branches of vqtool and its plugins that the tests reach; fails under 90 %
coverage:
    pytest -n 2 --dist worksteal --cov

# damaged files of every kind, five thousand of them; the tests take 200
fuzz count="5000":
    python -m tests.fuzz --count {{count}}

# kill so many tiny trainings or fill their disk, and compare what they give in the end: `just kills 200`
kills trials="200":
    OMP_NUM_THREADS=1 python -m tests.training.kills {{trials}}

lint:
    ruff check .
    ruff format --check .
    mypy
    python docs/make.py --check

fix:
    ruff check --fix .
    ruff format .

# the pages and the JSON Schema that are made from the code
docs:
    python docs/make.py
    vqtool schema > recipes/recipe.schema.json

# the site in site/, without the network; fails at a broken link: pip install -e '.[docs]'
site:
    mkdocs build --strict

# the terminal picture of the README, of a run at hand: `just picture runs/demo`
picture run:
    python docs/picture.py docs/images/diagnose.svg "vqtool diagnose {{run}}"

# the animated one: a forecast, and the codebooks of a run of voltage.toml
terminal run:
    python docs/picture.py docs/images/terminal.svg "vqtool forecast --steps 24 --data recipes/data/ETTh1.csv" \
        "vqtool diagnose {{run}} | head -14"

# every law on every combination of quantizers, some minutes
laws:
    python -m tests.quantizers.combinations

# every law on the GPU kernels, in Triton's interpreter; minutes for each kind
kernel-laws:
    python -m tests.quantizers.kernel_laws

# what only a GPU can show; the figures of docs/benchmarks.md
gpu:
    python -m tests.gpu docs/figures/gpu.json

# figures of docs/benchmarks.md; on an otherwise idle machine
bench:
    OMP_NUM_THREADS=1 vqtool bench quantizers
    OMP_NUM_THREADS=1 vqtool bench generation
    OMP_NUM_THREADS=1 vqtool bench tokenise

# train every shipped recipe; about an hour on two cores
recipes:
    for recipe in recipes/*.toml; do vqtool train "$recipe" || exit 1; done

# the tests that depend on torch, under other versions of it: `just matrix 2.6.0 2.13.0`
matrix +versions:
    python tests/matrix.py {{versions}}
