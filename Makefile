# Two commands are enough: `make bench` and `make test`.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
SUITE ?= quick
# Tests compute on one thread each: as many processes as there are cores, as far as memory goes.
PYTEST = $(RUN) -m pytest -n logical --maxprocesses 4 --dist worksteal

# glibc gives large buffers back to the system after every step and faults them in again:
# keeping them makes training on a CPU about a quarter faster.
export MALLOC_ARENA_MAX = 1
export MALLOC_MMAP_THRESHOLD_ = 1073741824
export MALLOC_TRIM_THRESHOLD_ = 4294967296
export MALLOC_TOP_PAD_ = 268435456

.PHONY: bench test test-slow mutants install report checkpoints real64 throughput clean

bench: $(VENV)/.ready  ## install, run a suite (SUITE=quick), print the table, say where the report is
	$(RUN) -m benchmarks.run suite=$(SUITE) hardware.workers=auto $(ARGS)

test: $(VENV)/.ready  ## lint, types, layers, tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache
	$(PYTEST) $(ARGS)

test-slow: $(VENV)/.ready  ## every test, the slow ones too
	$(PYTEST) -m "slow or not slow" $(ARGS)

mutants: $(VENV)/.ready  ## plants every known trap of DP training and shows that a test fails
	$(RUN) -m tests.mutants

report: $(VENV)/.ready  ## tables, plots and pages again, of every suite that has records
	$(RUN) -m benchmarks.report $(patsubst %/records,%,$(wildcard results/*/records results/local/*/records))

checkpoints: $(VENV)/.ready  ## the public checkpoints and the yardstick again (about six hours)
	$(RUN) -m benchmarks.yardstick train
	$(RUN) -m benchmarks.pretrain method=dp_wavelet force=true
	$(RUN) -m benchmarks.pretrain method=dp_wavelet_quarter stage=upsampler force=true
	$(RUN) -m benchmarks.pretrain method=dp_llamagen force=true
	$(RUN) -m benchmarks.pretrain method=dp_ldm force=true
	$(RUN) -m benchmarks.pretrain method=dp_pixel_diffusion force=true

# What is pretrained already is kept: the checkpoints come with the project.
real64: export WAVEDP_WEIGHTS = $(DATA)/weights
real64: $(VENV)/.ready  ## the comparison on real faces: DATA=folder with mmcelebahq64/, public/, weights/
	test -d "$(DATA)" || { echo "DATA= is not a folder: name the one with mmcelebahq64/"; exit 2; }
	for method in dp_wavelet dp_wavelet_quarter dp_llamagen dp_ldm dp_pixel_diffusion; do \
	  $(RUN) -m benchmarks.pretrain method=px64/$$method method.public.photos.root=$(DATA)/public || exit; done
	$(RUN) -m benchmarks.run suite=real64 dataset.root=$(DATA)/mmcelebahq64 hardware.workers=auto $(ARGS)
	$(RUN) -m benchmarks.neighbours suite=real64 dataset.root=$(DATA)/mmcelebahq64 $(ARGS)

throughput: export KINETO_LOG_LEVEL = 99
throughput: $(VENV)/.ready  ## speed of the core, of data, metrics and the wavelet, as ratios to the same without us
	$(RUN) -m pytest benchmarks/throughput -m "slow or not slow" --benchmark-only

install: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -e ".[all]"
	touch $@

clean:  ## caches, and results on embedded data; keeps what is committed, and ledgers of your data
	rm -rf .cache results/quick results/smoke
