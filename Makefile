.PHONY: check format lint types test demo
PYTHON ?= python

check: format lint types test

format:
	$(PYTHON) -m ruff format --check .

lint:
	$(PYTHON) -m ruff check .

# mypy finds the package `headwater` through a folder with one link to this one
types:
	@mkdir -p build/types && ln -sfn "$(CURDIR)" build/types/headwater
	MYPYPATH=build/types $(PYTHON) -m mypy -p headwater --exclude 'build/|tests/'

test:
	$(PYTHON) -m pytest

demo:
	$(PYTHON) run_downstream.py -u fbank -d emotion --demo
