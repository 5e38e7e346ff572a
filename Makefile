# The same target names that CI uses. Every target does its own set-up.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
# More loaders: EXTRAS=dev,loaders,ffcv (.ci/run does so). Tests of what is not installed skip, and say so.
EXTRAS ?= dev,nvimgcodec,hf
comma := ,
INSTALLED := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
export PATH := $(abspath $(VENV))/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup data train test soak docs lint format clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 14

setup: $(INSTALLED) ## make the virtual environment and install everything into it

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

data: data/fashion_mnist/val ## write Fashion-MNIST as image files to data/fashion_mnist

data/fashion_mnist/val: | $(INSTALLED)
	$(RUN) -m src.prepare fashion_mnist

train: setup data ## train a small ResNet on Fashion-MNIST to 92 % (a few minutes on 2 cores)
	$(RUN) -m src.train experiment=demo

test: setup lint ## the quality gate and all tests
	-@$(RUN) -m src.prepare fashion_mnist # tests that need the demo data skip without it, and say so
	$(RUN) -m pytest --numprocesses auto --dist worksteal

SECONDS ?= 1800
soak: setup ## kill trainings at random instants for SECONDS=1800: every one must end equal bit for bit
	$(RUN) -m tests.end_to_end.soak --seconds $(SECONDS)

docs: setup ## build the site into build/site: guides, recipes, every key, the API
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

lint: setup ## ruff, mypy, import-linter
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache

format: setup ## let ruff format and sort
	ruff check --fix .
	ruff format .

clean: ## remove the virtual environment and caches; runs/ and data/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info build
