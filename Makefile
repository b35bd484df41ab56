.PHONY: help check format lint types test real demo docs notebooks wheel
.DEFAULT_GOAL := check
PYTHON ?= python

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

check: format lint types test ## what every change must pass

format: ## is every file formatted?
	$(PYTHON) -m ruff format --check .

lint: ## ruff's rules
	$(PYTHON) -m ruff check .

# mypy finds the package `headwater` through a folder with one link to this one
types: ## mypy over the package
	@mkdir -p .types && ln -sfn "$(CURDIR)" .types/headwater
	MYPYPATH=.types $(PYTHON) -m mypy -p headwater --exclude 'headwater/(build|dist|tests|benchmarks)/'

test: ## all tests
	$(PYTHON) -m pytest

# real pretrained weights (packages pinned by hash in tests/real/requirements.txt); HEADWATER_REAL_DATA names a folder of public sets
real: ## tests on real pretrained weights
	HEADWATER_REAL=1 $(PYTHON) -m pytest -n 0 -rs tests/real

demo: ## a first run on a spoken miniature
	$(PYTHON) run_downstream.py -u fbank -d emotion --demo

# needs `pip install -c constraints.txt -e '.[docs]'`; the sources are the pages where they lie, a warning is an error
docs: ## the documentation site, into build/site
	$(PYTHON) -m sphinx -W --keep-going -q -c docs -b html . build/site
	@echo build/site/index.html

# needs `pip install -c constraints.txt -e '.[demo,notebooks]'`; minutes on one core
notebooks: ## execute the notebooks of docs/notebooks, and keep their outputs
	$(PYTHON) docs/run_notebooks.py

wheel: ## wheel and sdist into dist/, and whether PyPI would take them (needs build and twine)
	rm -rf dist && $(PYTHON) -m build --outdir dist . && $(PYTHON) -m twine check --strict dist/*
