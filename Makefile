# make help lists what there is. Each target does its own set-up; nothing is installed outside $(VENV).
PYTHON  ?= python3
VENV    ?= .venv
CHAPTER ?= ch3_han
PROFILE ?= quick
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
SMALL   := $(VENV)/.small
OUT     := reproduced/$(CHAPTER)$(if $(filter desk,$(PROFILE)),,/$(PROFILE))
DATA    := $(if $(filter ch5% ch6% ch13%,$(CHAPTER)),fashion_mnist,vtest)
# One OpenMP pool per process: t-SNE runs several times slower when two pools share two cores. torch sets its own.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1
.DEFAULT_GOAL := help
.PHONY: help demo reproduce book test test-all lab export

help:       ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

# The demo needs far less than development does; where the latter is installed, it will do.
demo: $(if $(wildcard $(READY)),$(READY),$(SMALL))  ## find real people of a video again: a page with pictures and scores, in a minute
	$(BIN)/scalable-arch demo

reproduce: $(READY)  ## run a chapter (CHAPTER=ch3_han PROFILE=quick) into reproduced/ and say where its results lie
	-@$(BIN)/scalable-arch data get $(DATA)
	$(BIN)/scalable-arch reproduce --chapters $(CHAPTER) --profile $(PROFILE)
	@echo; echo "Read $(OUT)/$(CHAPTER).ipynb (executed notebook); tables: $(OUT)/tables.md, *.csv; figures: $(OUT)/figures"
	@echo "On record: reports/$(CHAPTER)"

book: $(READY)  ## the book, from reports/ into _book/: open _book/index.html, no server needed
	$(BIN)/python -c 'from scalable_arch.book.site import main; main()'

# Threads that wait asleep: the tests start processes side by side, and threads that spin would slow each other tenfold.
test test-all: export OMP_WAIT_POLICY = PASSIVE
test: $(READY)  ## everything CI runs
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder tests

test-all: export HYPOTHESIS_PROFILE = explore
test-all: $(READY)  ## the same with new examples of every property, and five times as many
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 30 tests

# The checkout is its root: the index shows a picture in reports/ and leads to the executed chapters there. Jupyter refuses
# to run as root unless told to, and in a container one is root; it listens on this machine only, and asks for its token.
lab: $(READY)  ## JupyterLab on the notebooks, open at the index
	$(BIN)/jupyter lab --ip=127.0.0.1 --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/nbs/index.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

export: $(READY)  ## notebooks -> library and README
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python tests/readme.py

$(SMALL): settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[video]'
	touch $@

$(READY): settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@
