# make demo    a first federation, in a minute       make bench    speed, against plain PyTorch
# make test    lint, types and every quick test      make results  the figures of the documentation
# make lint    the first two alone                   make nightly  the slow tests
# make docs    the site of the documentation, into build/site
# make applications  four of them, half an hour
# make clean   remove what was built (but not .venv)
#
# The first call makes .venv with $(PYTHON), else python3.11, else python3, and installs into it.
# With TORCH_INDEX=https://download.pytorch.org/whl/cpu torch comes from that index.

BIN := .venv/bin
HASH := $(shell cat pyproject.toml constraints.txt | cksum | tr ' ' '-')
TEST := .venv/stamp-test-$(HASH)
# An environment for tests also runs the demo.
DEMO := $(or $(wildcard $(TEST)),.venv/stamp-demo-$(HASH))

.PHONY: demo test lint docs bench results applications nightly clean

demo: $(DEMO)
	$(BIN)/folkmoot demo

# Two workers with a thread each; more threads than cores would slow both down many times over.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

lint: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(TEST)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(TEST)
	$(BIN)/folkmoot bench

results: $(TEST)
	$(BIN)/python benchmarks/results.py

applications: $(TEST)
	$(BIN)/python benchmarks/applications.py

nightly: $(TEST)
	$(BIN)/pytest -m "slow or nightly" --timeout 3600

clean:
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name .venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

.venv/stamp-%-$(HASH):
	tools/install.sh $* $@
