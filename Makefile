.PHONY: check format lint types test real demo
PYTHON ?= python

check: format lint types test

format:
	$(PYTHON) -m ruff format --check .

lint:
	$(PYTHON) -m ruff check .

# mypy finds the package `headwater` through a folder with one link to this one
types:
	@mkdir -p .types && ln -sfn "$(CURDIR)" .types/headwater
	MYPYPATH=.types $(PYTHON) -m mypy -p headwater --exclude 'headwater/(build|dist|tests|benchmarks)/'

test:
	$(PYTHON) -m pytest

# real pretrained weights (packages pinned by hash in tests/real/requirements.txt); HEADWATER_REAL_DATA names a folder of public sets
real:
	HEADWATER_REAL=1 $(PYTHON) -m pytest -n 0 -rs tests/real

demo:
	$(PYTHON) run_downstream.py -u fbank -d emotion --demo
