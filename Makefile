# The commands of people and CI. `make` alone lists them.
#
# PYTHON chooses the interpreter of a new .venv:        make serve PYTHON=python3.12
# ARGS is passed on:                                     make serve ARGS="--runner triton-local"
# SECONDS is how long to fuzz:                          make fuzz SECONDS=600
# WORKERS is how many tests run at once:                make test WORKERS=0
# TORCH_INDEX is where torch comes from on Linux:        make setup-export TORCH_INDEX=        pip's own index, with CUDA
# PIP_ARGS go to pip where the rest is installed:       make setup-export PIP_ARGS="--index-url https://pypi.example/simple"

PYTHON ?= python3
SECONDS ?= 60
# One more than the cores of a small machine, since tests also wait for processes that they start.
WORKERS ?= 3
# Elsewhere pip's own index has the CPU build.
ifeq ($(shell uname),Linux)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
endif
BIN := .venv/bin
# The packages of one extra of pyproject.toml, one per line.
EXTRA = $(BIN)/python -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")'
# Where the files in google/rpc/ come from.
PACKAGES = $(BIN)/python -c 'import pathlib; from google.rpc import status_pb2; print(pathlib.Path(status_pb2.__file__).parents[2])'

.DEFAULT_GOAL := help
.PHONY: help serve setup-export test test-slow container-test fuzz check format protocol docs lock sbom clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

serve: .venv/serve.done ## serve the models of model_repository/ on this machine
	@exec $(BIN)/convoy serve $(ARGS)

setup-export: .venv/export.done ## install what building and training need, torch included

# Some hundred processes import the same files: none may compile them again.
test: .venv/dev.done ## run all tests but the slow ones, WORKERS=3 files at a time
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder $(ARGS)

test-slow: .venv/dev.done ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

container-test: .venv/dev.done ## build the images, run them on a Docker engine, and test failures
	$(BIN)/python -m pytest -m container tests/deploy $(ARGS)

fuzz: .venv/dev.done ## decode mutated images for SECONDS=60, in a process that may crash
	$(BIN)/python tests/server/preprocessing/fuzz.py --seconds $(SECONDS) $(ARGS)

check: .venv/dev.done ## check format, lint, types, and that generated files are up to date
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_generated.py

format: .venv/dev.done ## format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protocol: .venv/dev.done ## generate the stubs and the OpenAPI document from protocol/
	cp "$$($(PACKAGES))"/google/rpc/status.proto "$$($(PACKAGES))"/google/rpc/error_details.proto protocol/google/rpc/
	$(BIN)/python -m grpc_tools.protoc -I protocol --python_out clients/python \
	    --pyi_out clients/python --grpc_python_out clients/python protocol/convoy/v1/classifier.proto
	$(BIN)/python protocol/write_openapi.py

docs: .venv/dev.done ## generate docs/commands.md, docs/models.md and the catalog of the page
	$(BIN)/python docs/write_commands.py
	$(BIN)/python docs/write_models.py
	$(BIN)/python docs/write_catalog.py
	cp clients/javascript/convoy.js server/page/static/convoy.js

lock: .venv/dev.done ## update the versions that serving installs and that images are built with
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-annotate --no-emit-package convoy-client --extra serve pyproject.toml -o requirements/serve.txt
	echo hatchling | $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-annotate - -o deploy/build.txt

sbom: .venv/dev.done ## list what serving installs in CycloneDX format: build/sbom.json
	@mkdir -p build
	$(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
	    -o build/sbom.json requirements/serve.txt

clean: ## remove the virtual environment and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist

# ---------------------------------------------------------------- the virtual environment, in three layers

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	    "Convoy needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: name another, as in make serve PYTHON=python3.12" % v)'
	@echo "setting up .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

# Serving: hashed, without torch.
.venv/serve.done: requirements/serve.txt pyproject.toml clients/python/pyproject.toml | .venv/bin/python
	@echo "installing what serving needs (280 MB, once)"
	@$(BIN)/pip install --quiet --require-hashes -r requirements/serve.txt
	@$(BIN)/pip install --quiet --no-deps -e clients/python -e .
	@$(BIN)/pip freeze --exclude-editable > .venv/serving.txt
	@touch $@

# The constraints keep every package that serving uses unchanged: a running gateway is not disturbed.
.venv/export.done: .venv/serve.done
	@{ $(EXTRA) export; $(EXTRA) tensorrt; } > .venv/export.txt
	@PYTHON=$(BIN)/python deploy/torch-cpu.sh "$(TORCH_INDEX)" .venv/export.txt $(BIN)/pip
	$(BIN)/pip install $(PIP_ARGS) -c .venv/serving.txt -r .venv/export.txt
	@touch $@

.venv/dev.done: .venv/export.done
	@echo "installing what the tests need"
	@$(EXTRA) dev > .venv/dev.txt
	@$(BIN)/pip install --quiet -c .venv/serving.txt -r .venv/dev.txt
	@touch $@
