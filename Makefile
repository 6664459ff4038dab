# Needs Python >= 3.10 with venv, and Rust (cargo) >= 1.89. Everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUST_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find rust -name '*.rs' -o -name Cargo.toml)

# What `make bench` runs of the asv suite; BENCH=. runs all of it.
BENCH ?= ^(step\.Step\.|step\.StepThreads\..*AdamW|many|package|systems\.(Layerwise|Synchronization)|ratios\.(ToFloor\..*8388608|ToOneThread))
# What `make bench-compare` runs.
COMPARE ?= ^(step\.(Step|StepOptions)\.|step\.StepThreads\..*AdamW|many\..*time_|package\.Checkpoint\.time)
# What `make dashboard` runs for each commit: less, since history multiplies it.
HISTORY ?= ^(step\.Step\..*(1024|16384|1048576)|many|package|ratios\.(ToFloor\..*8388608|ToOneThread|FloorTimes))
BASE ?= main
# Whom `make speed` measures beside us, where they install; several GB.
RIVALS ?= torch jax optax scipy ninja deepspeed
ASV := $(BIN)/python -m asv
ASV_CONFIG := --config benches/asv.conf.json
COMMITS ?= HEAD~4..HEAD

.PHONY: demo test test-rust test-python lint format examples loops docs speed bench bench-compare bench-cuda code-size build-cost dashboard test-cuda clean toolchain

demo: $(VENV)/.demo $(VENV)/.built  ## Build, and train a network on handwritten digits with every optimizer.
	$(BIN)/python examples/digits.py

test: test-rust lint test-python  ## Everything that must pass.

test-rust: toolchain
	cargo fmt --check
	cargo clippy --locked --release --all-targets -- -D warnings
	cargo test --locked --release --workspace
	cargo test --locked -p schuss --lib  # overflow and assertions, which only this profile looks for
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --release --no-deps -p schuss

lint: $(VENV)/.test $(VENV)/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m mypy.stubtest schuss --mypy-config-file pyproject.toml --allowlist tests/data/stubtest_allowlist.txt

test-python: $(VENV)/.test $(VENV)/.built
	$(BIN)/python -m pytest

test-cuda: $(VENV)/.test $(VENV)/.built  ## On an NVIDIA GPU, which the other tests do without.
	SCHUSS_TEST_CUDA=gpu $(BIN)/python -m pytest tests/cuda

format: $(VENV)/.test
	cargo fmt
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

examples: $(VENV)/.demo $(VENV)/.examples $(VENV)/.built  ## The gallery, into build/gallery, and the training loops.
	set -e; for script in examples/gallery/plot_*.py examples/loops/*.py; do \
		echo $$script; MPLBACKEND=agg $(BIN)/python $$script; done

loops: $(VENV)/.loops $(VENV)/.built  ## The training loops that need nothing large.
	set -e; for script in $(filter-out %/with_torch.py,$(wildcard examples/loops/*.py)); do \
		echo $$script; $(BIN)/python $$script; done

docs: $(VENV)/.docs $(VENV)/.built  ## Into build/docs; DOCS_OPTIONS="-D plot_gallery=0" leaves out the figures.
	$(BIN)/python -m sphinx -W --keep-going -b html $(DOCS_OPTIONS) docs build/docs

speed: $(VENV)/.bench $(VENV)/.rivals $(VENV)/.built  ## Measures the figures of README and docs, and rewrites both.
	$(BIN)/python benches/speed.py

bench: $(VENV)/.bench $(VENV)/.built  ## The asv suite on the installed package, quickly.
	$(ASV) machine --yes $(ASV_CONFIG)
	$(ASV) run $(ASV_CONFIG) --python=same -a rounds=1 --bench '$(BENCH)'

bench-cuda: $(VENV)/.test $(VENV)/.built  ## On an NVIDIA GPU; beside PyTorch where it is installed into .venv.
	$(BIN)/python benches/cuda.py

bench-compare: $(VENV)/.bench $(VENV)/.built  ## This commit against BASE, interleaved; fails when something got slower.
	$(BIN)/python benches/compare.py --bench '$(COMPARE)' $(BASE)

code-size: $(VENV)/.built  ## Bytes of machine code by rule; builds once more, with symbols.
	$(BIN)/python benches/code_size.py

build-cost: $(VENV)/.made  ## CPU-seconds of a build from nothing, and the wheel's size: BASE and this commit.
	$(BIN)/python benches/build_cost.py $(BASE) HEAD

dashboard: $(VENV)/.bench  ## Measures COMMITS where that has not been done, and publishes the history in benches/.asv/html.
	$(ASV) machine --yes $(ASV_CONFIG)
	CARGO_TARGET_DIR=$(CURDIR)/target/asv $(ASV) run $(ASV_CONFIG) --skip-existing --bench '$(HISTORY)' $(COMMITS)
	$(ASV) publish $(ASV_CONFIG)

# Says what is missing instead of failing somewhere inside a build.
toolchain:
	@command -v cargo >/dev/null || { echo "Rust is missing: install the Rust toolchain (cargo and rustc, 1.89 or newer), for example with rustup or your system's packages."; exit 1; }
	@cargo --version | awk '{split($$2, v, "."); if (v[1] == 1 && v[2] < 89) {print "Rust 1.89 or newer is needed, this is " $$2 ": run rustup update."; exit 1}}'
	@command -v $(PYTHON) >/dev/null || { echo "Python is missing: install Python 3.10 or newer, or say which one with PYTHON=/path/to/python."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}: say which with PYTHON=/path/to/python.")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: install it (on Debian and Ubuntu: apt-get install python3-venv)."; exit 1; }

$(VENV)/.made: | toolchain
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" "maturin>=1.9,<2"
	@touch $@

$(VENV)/.built: $(VENV)/.made $(RUST_SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --locked
	@touch $@

$(VENV)/.rivals: | $(VENV)/.made
	for rival in $(RIVALS); do \
		$(BIN)/python -m pip install --quiet $$rival || echo "$$rival does not install here: it is left out"; done
	@touch $@

$(VENV)/.%: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --group $*
	@touch $@

clean:
	rm -rf $(VENV) target build dist python/schuss/*.so
	rm -rf docs/gallery docs/generated docs/api/generated docs/optimizers/generated
