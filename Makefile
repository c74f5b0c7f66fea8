# make setup | demo | demo-segmentation | enhance-demo | search-demo | test | lint | stacks
# Each sets up .venv first, and only what is not there yet.

# The first interpreter that runs, is new enough, and for which the pinned versions have wheels.
CANDIDATES := python3.11 python3.12 python3.10 python3
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),$(if $(shell $(p) -c '$(NEW_ENOUGH)' 2>&1 || echo no),,$(p))))

VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.done
# The constraints keep one step from moving what another pins: torch asks for the newest setuptools, torchvision for numpy 2.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(addprefix -c ,$(sort $(wildcard requirements/*.txt)))
BUILD := $(INSTALL) --no-build-isolation --no-deps
# Test files run side by side: most of them wait for a tool that they start.
WORKERS ?= 2

DEMO_CONFIG := configs/detection/ruas_ssd_demo.py
DEMO_WORK := work_dirs/demo
ENHANCE_CONFIG := configs/enhance/ruas_a_demo.py
ENHANCE_WORK := work_dirs/enhance-demo
SEGMENT_CONFIG := configs/segmentation/ruas_deeplab_demo.py
SEGMENT_WORK := work_dirs/demo-segmentation
SEARCH_CONFIG := configs/detection/ruas_ssd_demo_search.py
SEARCH_WORK := work_dirs/search-demo

.PHONY: setup demo demo-segmentation enhance-demo search-demo test lint stacks

setup: $(DONE)/package

demo: setup
	$(BIN)/python tools/make_demo_data.py --out data/demo
	$(BIN)/python tools/train.py $(DEMO_CONFIG) --work-dir $(DEMO_WORK)
	$(BIN)/python tools/test.py $(DEMO_CONFIG) $(DEMO_WORK) --work-dir $(DEMO_WORK) --show-dir $(DEMO_WORK)/pictures
	@echo 'Pictures, logs and the checkpoint are in $(DEMO_WORK).'

demo-segmentation: setup
	$(BIN)/python tools/make_demo_data.py segmentation --out data/demo
	$(BIN)/python tools/train.py $(SEGMENT_CONFIG) --work-dir $(SEGMENT_WORK)
	$(BIN)/python tools/test.py $(SEGMENT_CONFIG) $(SEGMENT_WORK) --work-dir $(SEGMENT_WORK) --show-dir $(SEGMENT_WORK)/pictures
	@echo 'Pictures, logs and the checkpoint are in $(SEGMENT_WORK).'

enhance-demo: setup
	$(BIN)/python tools/make_demo_data.py enhance --out data/demo
	$(BIN)/python tools/train.py $(ENHANCE_CONFIG) --work-dir $(ENHANCE_WORK)
	$(BIN)/python tools/test.py $(ENHANCE_CONFIG) $(ENHANCE_WORK) --work-dir $(ENHANCE_WORK) --show-dir $(ENHANCE_WORK)/pictures
	@echo 'Pictures, logs and the checkpoint are in $(ENHANCE_WORK).'

# Search, train what was found and, with the same budget, the published architecture; test both.
search-demo: setup
	$(BIN)/python tools/make_demo_data.py --out data/demo
	$(BIN)/python tools/train.py $(SEARCH_CONFIG) --work-dir $(SEARCH_WORK)/search
	$(BIN)/python tools/train.py $(DEMO_CONFIG) --work-dir $(SEARCH_WORK)/found --genotype $(SEARCH_WORK)/search/genotype.json
	$(BIN)/python tools/test.py $(DEMO_CONFIG) $(SEARCH_WORK)/found --work-dir $(SEARCH_WORK)/found --genotype $(SEARCH_WORK)/search/genotype.json
	$(BIN)/python tools/train.py $(DEMO_CONFIG) --work-dir $(SEARCH_WORK)/published
	$(BIN)/python tools/test.py $(DEMO_CONFIG) $(SEARCH_WORK)/published --work-dir $(SEARCH_WORK)/published
	$(BIN)/python tools/analysis_tools/compare_results.py $(SEARCH_WORK)/found $(SEARCH_WORK)/published
	@echo 'The found architecture is in $(SEARCH_WORK)/search: genotype.json, architecture.png, probabilities.png.'

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Needs neither torch nor the toolboxes.
lint: $(DONE)/tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

# The wheel in fresh environments: lowest, pinned and newest torch, every Python, the OneDL forks. Downloads several GB; to try some
# of them only: make stacks STACKS='3.11-lowest 3.12-newest'.
stacks: $(DONE)/build
	$(BIN)/python tests/stacks.py $(STACKS)

# One step, one stamp: a step runs again when its requirements, or a step before it, have changed.
$(DONE)/venv:
	@test -n '$(PYTHON)' && $(PYTHON) -c '$(NEW_ENOUGH)' || { echo 'Python 3.10 or newer is needed: make $(MAKECMDGOALS) PYTHON=path/to/python' >&2; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	mkdir -p $(DONE) && touch $@

$(DONE)/build: requirements/build.txt $(DONE)/venv
	$(INSTALL) -r $<
	touch $@

$(DONE)/tests: requirements/tests.txt $(DONE)/build
	$(INSTALL) -r $<
	touch $@

$(DONE)/torch: requirements/torch.txt $(DONE)/tests
	$(INSTALL) -r $<
	touch $@

$(DONE)/hosts: requirements/hosts.txt $(DONE)/torch
	$(INSTALL) -r $<
	touch $@

$(DONE)/enhance: requirements/enhance.txt $(DONE)/hosts
	$(INSTALL) -r $<
	touch $@

# After all that asks for either opencv. Forced, or pip would leave alone a headless opencv whose files opencv-python has
# overwritten.
$(DONE)/opencv: requirements/opencv.txt $(DONE)/enhance
	$(INSTALL) --no-deps --force-reinstall -r $<
	touch $@

$(DONE)/mmcv: requirements/mmcv.txt $(DONE)/opencv
	$(BUILD) -r $<
	touch $@

$(DONE)/mmagic: requirements/mmagic.txt $(DONE)/mmcv
	$(BUILD) -r $<
	touch $@

$(DONE)/package: setup.py pyproject.toml ruas_mm/version.py $(DONE)/mmagic
	$(BUILD) --editable .
	touch $@
