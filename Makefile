# Needs Python >= 3.10 with venv, and Rust (cargo) >= 1.89. Everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
TORCH := .venv-torch
BIN := $(VENV)/bin
RUST_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find rust -name '*.rs' -o -name '*.cu' -o -name Cargo.toml)

# The benchmarks that `make bench` runs; BENCH=. runs all.
BENCH ?= ^(step\.Step\.|step\.StepThreads\..*AdamW|many|package|systems\.(Layerwise|Synchronization)|ratios\.(ToFloor\..*8388608|ToOneThread))
# The benchmarks that `make bench-compare` runs.
COMPARE ?= ^(step\.(Step|StepOptions)\.|step\.StepThreads\..*AdamW|many\.(Many|Call|Around)\.|package\.Checkpoint\.time)
# The benchmarks that `make dashboard` runs for each commit; fewer, because it runs them for many commits.
HISTORY ?= ^(step\.Step\..*(1024|16384|1048576)|many|package|ratios\.(ToFloor\..*8388608|ToOneThread|FloorTimes))
BASE ?= main
# What `make wheels` builds for: this machine, and aarch64-unknown-linux-gnu from elsewhere; for each of INTERPRETERS.
HOST = $(shell rustc --print host-tuple)
TARGETS ?= $(HOST)
INTERPRETERS ?= $(PYTHON)
# The Python of `make test-oldest`.
OLDEST ?= python3.10
# How many interrupts `make interrupts` makes inside of each call.
INTERRUPTS ?= 10000
# How long `make fuzz` and `make fuzz-files` run, and the first seed of the former.
SECONDS ?= 600
SEED ?= 0
# Libraries that `make speed` also measures, if they can be installed; several GB.
LIBRARIES ?= torch jax optax scipy ninja deepspeed prodigyopt schedulefree
ASV := $(BIN)/python -m asv
ASV_CONFIG := --config benches/asv.conf.json
# What `make dashboard` measures: the newest of COMMITS, and the last HISTORY_COMMITS that changed the package.
COMMITS ?= HEAD
HISTORY_COMMITS ?= 10
# The repository's address, for links in the documentation and the dashboard; none without a remote on the web.
REPOSITORY ?= $(filter https://%,$(shell git config --get remote.origin.url | sed -E 's|^git@([^:]+):|https://\1/|; s|\.git$$||'))
export REPOSITORY

.PHONY: demo test test-rust test-python test-torch lint test-slow interrupts fuzz fuzz-files test-free-threaded test-oldest test-arm test-avx512 sanitize mutants mutants-rust format examples loops docs speed bench bench-compare bench-cuda code-size build-cost wheels dashboard test-cuda clean toolchain

demo: $(VENV)/.demo $(VENV)/.built  ## Build, and train a network on handwritten digits with the usual optimizers.
	$(BIN)/python examples/digits.py

test: test-rust lint test-python  ## Run all required checks.

test-rust: toolchain
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --workspace
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps -p schuss

lint: $(VENV)/.test $(VENV)/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/mypy tests/support/user_script.py
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m mypy.stubtest schuss --mypy-config-file pyproject.toml --allowlist tests/data/stubtest_allowlist.txt

test-python: $(VENV)/.test $(VENV)/.built
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-torch: $(TORCH)/.made $(VENV)/.built  ## Run the tests of schuss.torch and schuss.flower, which need several GB of packages.
	$(TORCH)/bin/python -m pytest -W ignore::DeprecationWarning tests/torch tests/flower python/schuss/torch python/schuss/flower.py
	set -e; for script in examples/loops/with_torch.py examples/loops/with_flower.py; do \
		echo $$script; $(TORCH)/bin/python $$script; done

test-slow: $(VENV)/.test $(VENV)/.built  ## What `test` leaves out: all cases of tests that sample them, and much memory or time.
	$(BIN)/python -m pytest -m slow

interrupts: $(VENV)/.test $(VENV)/.built  ## Interrupt each call at ten thousand random moments, and print how many hit it; `test` does it at forty.
	SCHUSS_TEST_INTERRUPTS=$(INTERRUPTS) $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -rP tests/system/test_interrupts*.py
	SCHUSS_TEST_INTERRUPTS=$(INTERRUPTS) SCHUSS_TEST_CUDA=emulator $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -rP tests/cuda/test_gpu_interrupts.py

fuzz: $(VENV)/.test $(VENV)/.built  ## Make random calls for SECONDS; `test` makes twenty thousand.
	$(BIN)/python tests/fuzz/api.py --seconds $(SECONDS) --seed $(SEED)

fuzz-files: $(VENV)/.test $(VENV)/.fuzz $(VENV)/.built  ## Load damaged checkpoints, chosen by coverage, for SECONDS.
	$(BIN)/python tests/fuzz/files.py $(SECONDS)

test-free-threaded: $(VENV)/.made  ## Build a CPython without the GIL into build/free-threaded, and run the tests on it.
	PYTHON=$(BIN)/python tests/machines/free_threaded.sh

test-oldest: $(VENV)/.built  ## Run the tests on OLDEST, a Python 3.10 or 3.11, with the oldest NumPy that the package takes.
	$(OLDEST) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	build/oldest/bin/python -m pip install --quiet --group test "numpy==1.24.*"
	PYTHONPATH=python build/oldest/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-arm:  ## Build for aarch64, and run the lines of tests/support/bits.py and the crate's tests under qemu-user; hours.
	PYTHON=$(PYTHON) tests/machines/arm.sh

test-avx512: $(VENV)/.test $(VENV)/.built  ## Compare the bits of AVX-512 kernels, on a CPU that has them.
	PYTHON=$(BIN)/python tests/machines/avx512.sh

sanitize: $(VENV)/.test  ## Run tests of the crate and of the extension module under AddressSanitizer and ThreadSanitizer; hours.
	PYTHON=$(BIN)/python tests/machines/sanitize.sh

mutants: $(VENV)/.test $(VENV)/.built  ## Change sixty random places of schuss._core, and tell which changes no test notices; hours.
	$(BIN)/python tests/mutants/mutants.py

mutants-rust: $(VENV)/.test toolchain  ## The same for sixty random places of the kernels' crate; hours.
	command -v cargo-mutants >/dev/null || cargo install --locked cargo-mutants
	$(BIN)/python tests/mutants/kernels.py

test-cuda: $(VENV)/.test $(VENV)/.built  ## Run the GPU tests on an NVIDIA GPU; `test` runs them on an emulator.
	SCHUSS_TEST_CUDA=gpu $(BIN)/python -m pytest tests/cuda

format: $(VENV)/.test
	cargo fmt
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

examples: $(VENV)/.demo $(VENV)/.examples $(VENV)/.built  ## Run the gallery (into build/gallery) and the training loops.
	set -e; for script in examples/gallery/plot_*.py examples/loops/*.py; do \
		echo $$script; MPLBACKEND=agg $(BIN)/python $$script; done

loops: $(VENV)/.loops $(VENV)/.built  ## Run the training loops that need no torch.
	set -e; for script in $(filter-out %/with_torch.py %/with_flower.py,$(wildcard examples/loops/*.py)); do \
		echo $$script; $(BIN)/python $$script; done

docs: $(VENV)/.docs $(VENV)/.built  ## Build the documentation into build/docs; DOCS_OPTIONS="-D plot_gallery=0" leaves out the figures.
	$(BIN)/python -m sphinx -W --keep-going -b html $(DOCS_OPTIONS) docs build/docs

speed: $(VENV)/.bench $(VENV)/.libraries $(VENV)/.built  ## Measure the figures of README and docs, and rewrite both.
	$(BIN)/python benches/speed.py

bench: $(VENV)/.bench $(VENV)/.built  ## Run the asv suite on the installed package, quickly.
	$(ASV) machine --yes $(ASV_CONFIG)
	$(ASV) run $(ASV_CONFIG) --python=same -a rounds=1 --bench '$(BENCH)'

bench-cuda: $(VENV)/.test $(VENV)/.built  ## Measure on an NVIDIA GPU, and compare with PyTorch if .venv has it.
	$(BIN)/python benches/cuda.py

bench-compare: $(VENV)/.bench $(VENV)/.built  ## Compare this commit with BASE; fails if a benchmark is slower.
	$(BIN)/python benches/compare.py --bench '$(COMPARE)' $(BASE)

code-size: $(VENV)/.built  ## Print the bytes of machine code of each rule; builds once more, with symbols.
	$(BIN)/python benches/code_size.py

build-cost: $(VENV)/.made  ## Compare BASE and this commit: CPU-seconds of a build from nothing, size of the wheel.
	$(BIN)/python benches/build_cost.py $(BASE) HEAD

wheels: $(VENV)/.release  ## Build the sdist and a wheel for each of TARGETS into dist, check them, and try each in a bare environment, which builds from the sdist once more.
	rm -rf dist
	$(BIN)/maturin sdist --out dist
	set -e; export PATH="$(abspath $(BIN)):$$PATH"; for target in $(TARGETS); do case $$target in \
		$(HOST)) env "CARGO_TARGET_$$(echo $$target | tr a-z- A-Z_)_LINKER=$(CURDIR)/rust/python/manylinux.sh" \
			maturin build --release --locked --compatibility manylinux_2_17 --target $$target --out dist --interpreter $(INTERPRETERS);; \
		aarch64-unknown-linux-gnu) PYTHON=$(PYTHON) INTERPRETERS="$(INTERPRETERS)" PARTS="build bare" tests/machines/arm.sh; cp build/machines/arm/wheels/* dist;; \
		*) echo "nothing here builds for $$target"; exit 1;; esac; done
	$(BIN)/python -m twine check --strict dist/*
	set -e; for wheel in dist/*.whl; do $(BIN)/auditwheel show $$wheel | tee /dev/stderr | grep --quiet manylinux_2_17; done
	$(BIN)/abi3audit --strict dist/*abi3*.whl
	set -e; try() { \
		$$1 -m venv --clear --without-pip build/bare; \
		$(BIN)/python -m pip --python build/bare install --quiet numpy; \
		$(BIN)/python -m pip --python build/bare install $$2; \
		build/bare/bin/python tests/support/readme.py; }; \
	for python in $(INTERPRETERS); do try $$python "--no-index --find-links dist schuss"; done; \
	try $(PYTHON) "--no-deps dist/*.tar.gz"

dashboard: $(VENV)/.bench $(VENV)/.scripts  ## Measure the newest commit and those that last changed the package, if they have no results yet; write the history to benches/.asv/html.
	$(ASV) machine --yes $(ASV_CONFIG)
	{ git log --format=%H -n 1 $(COMMITS); git log --format=%H -n $(HISTORY_COMMITS) $(COMMITS) -- rust python Cargo.toml Cargo.lock; } \
		| awk '!seen[$$0]++' | CARGO_TARGET_DIR=$(CURDIR)/target/asv $(ASV) run $(ASV_CONFIG) -E virtualenv:$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])') --skip-existing --bench '$(HISTORY)' HASHFILE:-
	sed 's|"/commit/"|"$(REPOSITORY)/commit/"|' benches/asv.conf.json >benches/.asv.conf.json
	$(ASV) publish --config benches/.asv.conf.json
	$(BIN)/python benches/dashboard.py benches/.asv/html

# Fails early with a message that says what is missing.
toolchain:
	@command -v cargo >/dev/null || { echo "Rust is missing: install the Rust toolchain (cargo and rustc, 1.89 or newer), for example with rustup or your system's packages."; exit 1; }
	@cargo --version | awk '{split($$2, v, "."); if (v[1] == 1 && v[2] < 89) {print "Rust 1.89 or newer is needed, this is " $$2 ": run rustup update."; exit 1}}'
	@command -v $(PYTHON) >/dev/null || { echo "Python is missing: install Python 3.10 or newer, or choose one with PYTHON=/path/to/python."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}: choose one with PYTHON=/path/to/python.")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: install it (on Debian and Ubuntu: apt-get install python3-venv)."; exit 1; }

$(VENV)/.made: | toolchain
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" "maturin>=1.9,<2"
	@touch $@

$(VENV)/.built: $(VENV)/.made $(RUST_SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --locked
	@touch $@

$(VENV)/.libraries: | $(VENV)/.made
	for library in $(LIBRARIES); do \
		$(BIN)/python -m pip install --quiet $$library || echo "$$library cannot be installed here and is left out"; done
	@touch $@

# Scripts of the dashboard's pages. Their packages are old: setup.py needs setuptools' pkg_resources, and none needs what it requires.
$(VENV)/.scripts: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet "setuptools<81" wheel
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --group dashboard
	@touch $@

# PyTorch, Flower and what they bring along, on top of what .venv has, so that nothing there changes.
$(TORCH)/.made: $(VENV)/.test
	$(PYTHON) -m venv $(TORCH)
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
		> $$($(TORCH)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tests.pth
	$(TORCH)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(TORCH)/bin/python -m pip install --quiet --group torch
	@touch $@

$(VENV)/.%: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --group $*
	@touch $@

clean:
	rm -rf $(VENV) $(TORCH) target build dist python/schuss/*.so
	rm -rf docs/gallery docs/generated docs/api/generated docs/optimizers/generated
