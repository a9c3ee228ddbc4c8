# make run    set up, run the default suite on all methods and the baselines, write the report
# make test   set up, run the whole test suite
# make faults  every kill, damaged file and crowd of the campaign, of which make test tries a few; writes reports/faults.md
# make docs   set up, build the documentation into build/docs; a warning is an error
# make lint   set up, check style, types and who imports whom
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: run test faults docs lint clean
run: $(INSTALLED)
	$(BIN)/bench run --model all --keep-going $(ARGS); ran=$$?; $(BIN)/bench report && exit $$ran

test: $(INSTALLED)
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

faults: $(INSTALLED)
	FAULTS=whole $(BIN)/pytest -m faults tests/faults $(ARGS)

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
