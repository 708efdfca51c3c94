# Everything runs from a virtual environment in .venv, made on demand.
PYTHON ?= python3
BIN := .venv/bin
CHECKPOINTS := en-zh zh-en reverse sort anaphora

.PHONY: app test lint format bench checkpoints $(CHECKPOINTS:%=checkpoint-%)

app: .venv/app.stamp
	$(BIN)/streamlit run app.py

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: .venv/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/dev.stamp
	for script in benchmarks/*.py; do PYTHONPATH=. $(BIN)/python $$script || exit 1; done

checkpoints: $(CHECKPOINTS:%=checkpoint-%)

# Trained beside the shipped one, which it replaces when it is whole; called again after an interruption it goes on.
# The translation models read their sentence pairs from DATA, for example: make checkpoint-en-zh DATA=folder
$(CHECKPOINTS:%=checkpoint-%): checkpoint-%: .venv/app.stamp
	$(BIN)/python -m transformer train assets/recipes/$*.toml --output runs/checkpoint-$* --ship $(if $(DATA),--data $(DATA)) \
		$(if $(wildcard runs/checkpoint-$*/training_state.safetensors),--resume)
	rm -rf assets/checkpoints/$*
	mv runs/checkpoint-$* assets/checkpoints/$*

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headlight needs Python 3.11 or newer.")'
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/app.stamp: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev.stamp: requirements-dev.txt .venv/app.stamp
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	touch $@
