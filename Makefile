# make demo · make test · make check · make bench · make quality · make docs: each sets up what it needs in .venv by itself.
# make studio · make studio-test: likewise in .venv-studio, because gradio wants other versions of some libraries.

PYTHON ?= python3
VENV ?= .venv
METHOD ?= uce
BIN := $(VENV)/bin
STUDIO := contrib/studio
STUDIO_VENV ?= .venv-studio
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard contrib/*/pyproject.toml plugins/*/pyproject.toml))
PACKAGES := . $(filter-out $(STUDIO),$(PLUGINS))
MANIFESTS := constraints.txt $(addsuffix /pyproject.toml,$(PACKAGES))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
EDITABLE := $(addprefix --editable ,$(PACKAGES))
EXTRAS_test := --editable 'contrib/judges[nudenet]'

.PHONY: demo test check bench quality docs studio studio-test clean

demo: $(VENV)/.product
	$(BIN)/efface demo picturebook --output out/demo.html

test: export OMP_NUM_THREADS ?= 1 # on models this small more threads only wait for each other
test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: $(VENV)/.check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.test
	$(BIN)/python benchmarks/run.py

quality: $(VENV)/.product
	$(BIN)/python benchmarks/quality.py --method $(METHOD) --controls cat:fish

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

studio: $(STUDIO_VENV)/.studio
	$(STUDIO_VENV)/bin/efface studio picturebook

studio-test: export OMP_NUM_THREADS ?= 1
studio-test: export EFFACE_STUDIO_PICTURES ?= docs/images
studio-test: $(STUDIO_VENV)/.studio
	$(STUDIO_VENV)/bin/python -m pytest $(STUDIO)/tests

clean:
	rm -rf $(VENV) $(STUDIO_VENV) out site .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.product: $(MANIFESTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(EDITABLE)
	touch $@

$(VENV)/.test $(VENV)/.check $(VENV)/.docs: $(VENV)/.%: $(VENV)/.product
	$(PIP) --editable '.[$*]' $(EXTRAS_$*)
	touch $@

$(STUDIO_VENV)/.studio: $(MANIFESTS) $(STUDIO)/constraints.txt $(STUDIO)/pyproject.toml
	$(PYTHON) -m venv $(STUDIO_VENV)
	$(STUDIO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(STUDIO)/constraints.txt \
		$(EDITABLE) --editable '$(STUDIO)[test]'
	touch $@
