# Every target works on a fresh checkout: what it needs is installed into .venv first.
# GNU make ends with 2 when a command fails, whatever that command's own exit code was; it prints that code.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOG := $(VENV)/install.log
# The index torch came from the last time, so that a later `make` does not fetch another build.
TORCH_INDEX ?= $(shell cat $(VENV)/torch.index 2>/dev/null)
# A variable, since a comma would end the argument of a call.
WHAT := .[train,embedded]
WORKERS ?= 2
PYTEST_ARGS ?=
# Two makes in one checkout must not install at once; the lock goes when its holder ends, however it ends.
LOCKED := flock Makefile

MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint test-slow test-gpu constraints clean install-demo install-dev FORCE

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-20s %s\n", $$1, $$2 }'
	@echo 'PYTHON=python3.11 chooses the interpreter, TORCH_INDEX=URL the package index that torch comes from.'

demo: install-demo ## run the whole loop here; RECORDING=dir CONFIG=dir JSON=file are handed on
	@exec $(BIN)/python -m demo $(if $(RECORDING),--recording '$(RECORDING)') \
	    $(if $(CONFIG),--config '$(CONFIG)') $(if $(JSON),--json '$(JSON)')

test: lint ## run the checks and all tests but the slow ones, on the CPU
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow' $(PYTEST_ARGS)

test-slow: install-dev ## run the slow tests
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

test-gpu: install-dev ## run the tests of a GPU; fails where there is none
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

lint: install-dev ## run ruff, mypy and the import contracts
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

clean: ## remove .venv and what the checks leave
	@$(LOCKED) rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
	@find . -name __pycache__ -prune -exec rm -rf {} +

install-demo:
	@$(call in_turn,$(VENV)/demo.stamp)

install-dev:
	@$(call in_turn,$(VENV)/dev.stamp)

define in_turn
flock --nonblock Makefile true || echo 'another make installs here: waiting for it'; $(LOCKED) $(MAKE) $(1)
endef

define pip
$(BIN)/python -m pip install --constraint constraints.txt $(1) >>$(LOG) 2>&1 || \
    { tail -n 15 $(LOG); echo 'pip failed: its whole output is in $(LOG)'; exit 1; }
endef

define CHECK_PYTHON
import platform, sys
name = sys.argv[1]
found = "%s %d.%d" % ((platform.python_implementation(),) + tuple(sys.version_info[:2]))
if not found.startswith("CPython") or not (3, 11) <= tuple(sys.version_info[:2]) <= (3, 13):
    sys.exit("%s is %s: castloop needs CPython 3.11 to 3.13; install it or run make PYTHON=python3.11"
             % (name, found))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("%s has no venv module: install it (Debian, Ubuntu: apt-get install python%d.%d-venv) and run make again"
             % ((name,) + tuple(sys.version_info[:2])))
endef
export CHECK_PYTHON

define TORCH_BUILD
import torch
cuda = torch.version.cuda
print(f"torch {torch.__version__}: " + (f"CUDA {cuda} build" if cuda else "CPU build"))
endef
export TORCH_BUILD

$(BIN)/python:
	@$(PYTHON) -c '' 2>/dev/null || { echo '$(PYTHON) does not run: castloop needs CPython 3.11 to 3.13;' \
	    'install it or run make PYTHON=python3.11'; exit 1; } >&2
	@$(PYTHON) -c "$$CHECK_PYTHON" '$(PYTHON)'
	@echo 'making $(VENV) with $(PYTHON)'
	@$(PYTHON) -m venv --clear $(VENV)

# Rewritten only when it differs: its time is that of the last change of index.
$(VENV)/torch.index: FORCE $(BIN)/python
	@echo '$(TORCH_INDEX)' | cmp -s - $@ || echo '$(TORCH_INDEX)' > $@

# torch alone comes from that index, what it depends on from the default one: PyTorch's indexes hold few versions.
$(VENV)/torch.stamp: $(VENV)/torch.index constraints.txt
	@$(if $(TORCH_INDEX),echo 'installing torch from $(TORCH_INDEX) (log: $(LOG))'; \
	    $(call pip,--force-reinstall --no-deps --index-url '$(TORCH_INDEX)' torch))
	@touch $@

$(VENV)/demo.stamp: $(BIN)/python $(VENV)/torch.stamp pyproject.toml constraints.txt
	@$(if $(TORCH_INDEX),,echo 'torch comes from the default index; make TORCH_INDEX=URL takes it from another')
	@echo 'installing into $(VENV) (log: $(LOG))'
	@$(call pip,--editable '$(WHAT)')
	@$(BIN)/python -c "$$TORCH_BUILD"
	@touch $@

# --group needs pip 25.1, which the venv of an older Python lacks.
$(VENV)/dev.stamp: $(VENV)/demo.stamp
	@echo 'installing the test and lint groups (log: $(LOG))'
	@$(call pip,pip)
	@$(call pip,--group dev)
	@touch $@

constraints: ## write constraints.txt anew from what pip chooses today; torch stays at its pin
	@$(PYTHON) -c "$$CHECK_PYTHON" '$(PYTHON)'
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	    grep '^torch==' constraints.txt >"$$tmp/torch.txt" && \
	    $(PYTHON) -m venv "$$tmp/venv" && \
	    "$$tmp/venv/bin/python" -m pip install --quiet --upgrade pip && \
	    "$$tmp/venv/bin/python" -m pip install --quiet --constraint "$$tmp/torch.txt" \
	        --group dev '$(WHAT)' && \
	    { sed -n '/^#/p' constraints.txt; "$$tmp/venv/bin/python" -m pip freeze --all --exclude castloop \
	        | sed 's/+cpu$$//'; } >"$$tmp/new" && \
	    cp "$$tmp/new" constraints.txt

FORCE:
