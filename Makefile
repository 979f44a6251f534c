# make reproduce            all notebooks, one seed (SEEDS=5: hours, the committed figures)
# make test                 ruff, every test, every notebook in profile smoke, every committed number
# make quick                the unit tests that matter while editing, within a minute
# make gpu                  everything that a GPU can show, within ten minutes; none here: says so
# make bench                the speed figures (minutes; wants a quiet machine)
# make site                 the static site, in docs/_build/html
# make venv | lint | clean
#
# Needs only Python >= 3.11 (PYTHON=...) and make; everything else goes into .venv.

PYTHON      ?= python3
PROFILE     ?= mini
SEEDS       ?= 1
# Index for torch alone (TORCH_INDEX=URL, of its CPU builds): on Linux the default index's
# torch brings 2 GB of CUDA libraries, the CPU index does not. Empty: pip's own settings.
TORCH_INDEX ?=

VENV  := .venv
PY    := $(VENV)/bin/python
PIP   := $(PY) -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
TORCH := $(shell grep '^torch==' constraints.txt)

# One thread a process, a process a core: two pools of threads on the same cores only wait.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2

.PHONY: reproduce test quick gpu bench site venv lint clean

reproduce: venv
	$(PY) -m lorasoups reproduce --profile $(PROFILE) --seeds $(SEEDS)

test: lint
	$(PYTEST) -m "not notebooks"
	$(PY) -m pytest -q -m notebooks
	$(PY) -m lorasoups check

quick: venv
	$(PYTEST) -m "not notebooks and not slow"

gpu: venv
	$(PY) tests/benchmarks/gpu.py

bench: venv
	$(PY) -m pytest tests/benchmarks -q -s

# Built without a network; only the first call installs its packages.
site: venv
	$(PY) -c 'import myst_nb, sphinx_book_theme' 2>/dev/null || \
	  $(PIP) install -e ".[site]" -c constraints.txt
	rm -rf docs/api
	OMP_NUM_THREADS=1 $(PY) -m sphinx -c docs -d docs/_build/doctrees -W --keep-going -q . \
	  docs/_build/html

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

# Installs again only if pyproject.toml or constraints.txt changed, or the folder was moved: the
# stamp holds a checksum of them (git sets new file times, so times would install for nothing).
# torch goes first, in a call of its own: there an index of its own (TORCH_INDEX) or a local wheel
# (2.13.0+cpu) can serve it, and the call for all the rest finds it installed and leaves it alone,
# instead of picking PyPI's CUDA build with gigabytes of nvidia-* packages.
venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python >= 3.11 is needed: $$($(PYTHON) --version 2>&1) found;" \
	         "call make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@sum="$$( { echo '$(CURDIR)'; cat pyproject.toml constraints.txt; } | cksum)"; \
	if [ ! -x $(PY) ] || [ "$$sum" != "$$(cat $(STAMP) 2>/dev/null)" ]; then \
	  set -e; \
	  [ -x $(PY) ] || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }; \
	  $(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX) --no-deps) $(TORCH) -c constraints.txt; \
	  $(PIP) install -e ".[all]" -c constraints.txt; \
	  echo "$$sum" > $(STAMP); \
	fi

clean:
	rm -rf .cache .pytest_cache .ruff_cache build lorasoups.egg-info notebooks/*.failed.ipynb docs/_build docs/api
	find lorasoups tests -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "kept: $(VENV) (delete it by hand), data/, figures/, notebooks/"
