# `make book` and `make test` are all a newcomer needs: each makes .venv if it is missing or stale, then does its job.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# One thread per process: small tensors are slower on several, and chapters and tests already run side by side.
export OMP_NUM_THREADS ?= 1

.PHONY: book test lint reference steady nudge mutants bench clean

book: $(READY)
	@$(BIN)/python book/_ext/build_book.py

test: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .

# Rewrites tests/reference after a deliberate change of a chapter's code or results; read the diff before committing it.
reference: $(READY)
	@$(BIN)/python tests/make_reference.py

# Every chapter over seeds, ends of ranges and data sets: tests/steady.csv. Takes hours; goes on where it was interrupted.
steady: $(READY)
	@$(BIN)/python tests/steady.py

# Every chapter with its rounding disturbed in a dozen ways: tests/nudges.csv. Resumable as well.
nudge: $(READY)
	@$(BIN)/python tests/nudge.py

# Every chapter with one number of the library changed by one per cent, a dozen places each: tests/mutants.csv. Resumable too.
mutants: $(READY)
	@$(BIN)/python tests/mutants.py

# Tables of ratios against other ways, and _build/bench.json; JAX is among them after pip install -r requirements-bench.txt.
bench: $(READY)
	@$(BIN)/python -m benchmarks

clean:
	rm -rf _build .pytest_cache .ruff_cache

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@echo "installing the pinned packages into .venv (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
