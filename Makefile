# make help lists what there is. Each target does its own set-up; nothing is installed outside $(VENV).
PYTHON  ?= python3
VENV    ?= .venv
CHAPTER ?= ch3_han
PROFILE ?= quick
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
OUT     := reports/$(CHAPTER)/$(PROFILE)
# One OpenMP pool per process: t-SNE runs several times slower when two pools share two cores. torch sets its own.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1
.DEFAULT_GOAL := help
.PHONY: help reproduce test lab export

help:       ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

reproduce: $(READY)  ## run a chapter (CHAPTER=ch3_han PROFILE=quick) and say where its results lie
	@mkdir -p $(OUT)
	-@$(BIN)/scalable-arch data get vtest
	$(BIN)/papermill nbs/$(CHAPTER).ipynb $(OUT)/$(CHAPTER).ipynb -p profile $(PROFILE) -k python3 --no-progress-bar --log-output
	@echo; echo "Read $(OUT)/$(CHAPTER).ipynb (executed notebook); tables: $(OUT)/*.csv, *.md; figures: $(OUT)/*.png, *.svg"

# Threads that wait asleep: the tests start processes side by side, and threads that spin would slow each other tenfold.
test: export OMP_WAIT_POLICY = PASSIVE
test: $(READY)  ## everything CI runs
	$(BIN)/python -m pytest -q tests

lab: $(READY)  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab --ip=127.0.0.1 nbs

export: $(READY)  ## notebooks -> library and README
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python tests/readme.py

$(READY): settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@
