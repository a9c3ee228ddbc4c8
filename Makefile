# make run    set up, run the default suite on all methods and the baselines, write the report
# make pack   pack results/ into reports/results.zip, for `bench report --compare reports/results.zip`
# make test   set up, run the whole test suite
# make faults  every kill, damaged file and crowd of the campaign, of which make test tries a few; writes reports/faults.md
# make study  set up, write the study of training budgets into reports/study from its results, in seconds;
#             GRID="dino,crops --budget 60000,250000 --seed 0,1,2" first trains and scores what they lack (hours),
#             FROM=nothing does everything anew, in build/study, and leaves the results as they are
# make docs   set up, build the documentation into build/docs; a warning is an error
# make lint   set up, check style, types and who imports whom
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: run pack test faults study docs lint clean
run: $(INSTALLED)
	$(BIN)/bench run --model all --keep-going $(ARGS); ran=$$?; $(BIN)/bench report && exit $$ran

pack: $(INSTALLED)
	$(BIN)/bench export archive reports/results.zip

test: $(INSTALLED)
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

faults: $(INSTALLED)
	FAULTS=whole $(BIN)/pytest -m faults tests/faults $(ARGS)

STUDY := results/study.zip
STUDIED := quip,dino,inbedder,llm2comp,crops,llm2vec-gen \
  --set llm2comp.contrastive_lr=1e-4 --vary llm2comp.objective=mntp
SMALL := $(STUDIED) --budget 60000 --seed 42,0,1,2,3
LARGE := $(STUDIED) --budget 250000 --seed 42,0,1
SUITE := quick
BESIDE := backbone-mean,whitened:backbone-mean,hashing,all-MiniLM-L6-v2
TRIED := $(addprefix --tried ,$(wildcard results/tried.zip))
WORK := build/study
PAGE := $(if $(FROM),$(WORK)/report,reports/study)
WORDED := $(if $(FROM),$(WORK)/worded,results/wordings.zip)

study: $(INSTALLED)
ifneq ($(FROM)$(GRID),)
	mkdir -p $(WORK)/results
	$(if $(FROM),,$(BIN)/python -m zipfile -e $(STUDY) $(WORK)/results)
	$(BIN)/bench train $(or $(GRID),$(SMALL)) --out $(WORK)/grid --scored $(WORK)/results
	$(if $(GRID),,$(BIN)/bench train $(LARGE) --out $(WORK)/grid --scored $(WORK)/results)
	$(BIN)/bench run --model $$(test -d $(WORK)/grid && echo trained:$(WORK)/grid,)$(BESIDE) --suite $(SUITE) --results $(WORK)/results
	$(if $(FROM),,$(BIN)/bench export archive $(STUDY) --results $(WORK)/results)
endif
ifdef FROM
	$(BIN)/bench run --model trained:$(WORK)/grid,$(BESIDE) --suite $(SUITE) --wordings 10 --results $(WORDED)
endif
	$(BIN)/bench study --results $(if $(FROM),$(WORK)/results,$(STUDY) $(TRIED)) --out $(PAGE)
	$(BIN)/bench study --results $(WORDED) --out $(PAGE)/wordings

docs: $(INSTALLED)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check 'pip>=23.1'  # older ones fail on packages that come as source
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
