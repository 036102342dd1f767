# Everything a fresh Linux or macOS machine needs is Python 3.11 or later and make.
#   make serve ARGS="--port 8011"    start the server (first run: install the light serving set)
#   make train                       install what training needs, without CUDA if there is no NVIDIA GPU
#   make test                        install what the tests need and run them all
#   make test-vllm                   the tests on the real vLLM, on the CPU (Linux; first run: 3.5 GiB)
#   make test-deploy                 a real Prometheus 2 scrapes the server (Debian; first run: 20 MB)
#   make test-clients                the client libraries against a server (first run: 0.8 GiB)
#   make mutants                     take each rule of a server under attack out in a copy, and see its test fail
#   make corpus                      every malformed adapter through the command line (10 to 20 minutes)
#   make size-fuzz                   what others wait under the largest requests (some minutes)
#   make test-device                 the tests on a device, in software (Debian on x86-64; first run: 0.5 GiB)
# On Windows: deploy\windows\serve.ps1

.DEFAULT_GOAL := help
.PHONY: help serve train test test-vllm test-device test-deploy test-clients test-clients-heavy clients-table \
  mutants corpus size-fuzz lint clean

PYTHON ?=
ARGS ?=
TESTS ?= tests
CONTRACT := $(wildcard tests/server/engines/test_contract*.py) tests/server/engines/test_hot_swap.py
VLLM_TESTS ?= $(CONTRACT) \
  $(patsubst %,tests/server/%.py,api/endpoints/test_formats api/endpoints/test_http api/endpoints/test_openai \
    api/endpoints/test_tools api/endpoints/test_responses_http api/endpoints/test_responses_openai \
    rollout/test_changes live/test_live_changes live/test_loading metrics/test_metrics) \
  tests/vllm

# What makes adapters and bases, and the repository itself: as long as all that serves, and run beside it.
MAKING := tests/adapters tests/bench tests/project tests/routing tests/server/cli

DEVICE_TESTS ?= tests/device tests/server/engines/test_contract.py
# They give what waits a time that a device in software, at a tenth of a second a step, may exceed.
TIMED := unload_that or load_that_is_cancelled or stalls or nobody_reads or come_back or used_again

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# On a terminal pip shows what it installs.
QUIET = $$([ -t 2 ] || echo --quiet)
SAY := @printf 'oneseek: %s\n'

help:
	@printf '%s\n' \
	  'make serve   start the server on http://127.0.0.1:8000; ARGS="--port 8011" passes options on' \
	  'make train   install what training needs; ARGS="identity --language sv" trains too' \
	  'make test    lint, check types and imports, run every test; TESTS=tests/server runs a part' \
	  'make test-vllm  the engine contract and tests/vllm on the real vLLM, on the CPU, in a cached environment' \
	  'make test-device  tests/device and the engine contract over WebGPU on a software device, in a cached environment' \
	  'make test-deploy  tests/deploy: a real Prometheus 2, from Debian, scrapes the server' \
	  'make test-clients  OpenAI'"'"'s libraries, LiteLLM, LangChain and others against a server, in a cached environment' \
  'make test-clients-heavy  guidellm and lm-eval, which bring torch, on demand' \
  'make clients-table  test-clients, and then the table of docs/clients.md' \
  'make mutants  take each rule of tests/project/mutants out in a copy, and see its test fail; about 10 minutes' \
	  'make corpus  every malformed adapter through the command line, one process each' \
	  'make size-fuzz  how long others wait while the server is sent the largest requests; some minutes' \
	  'make lint    the checks without the tests' \
	  'make clean   remove the environment and every cache in this folder'

serve: $(VENV)/.serve
	$(SAY) 'starting; press Ctrl-C to stop'
	@exec $(BIN)/python -m server serve $(ARGS)

# On PyPI every torch for Linux is a CUDA build, 3 GB larger. Without an NVIDIA GPU it comes from PyTorch's own index.
TORCH := 2.13.0
TORCH_CPU := --no-deps 'torch==$(TORCH)+cpu' --extra-index-url https://download.pytorch.org/whl/cpu

train: $(VENV)/.train
ifdef ARGS
	@exec $(BIN)/python -m server train $(ARGS)
else
	$(SAY) 'to train: $(BIN)/oneseek train identity --language sv, or make train ARGS="identity --language sv"'
endif

test: lint
ifeq ($(TESTS),tests)
	$(SAY) 'running the tests in two processes; one of them reports at the end'
	@log=$$(mktemp) && trap 'rm -f "$$log"' EXIT; \
	$(BIN)/python -m pytest -q $(MAKING) >"$$log" 2>&1 & making=$$!; \
	$(BIN)/python -m pytest -q tests $(MAKING:%=--ignore=%) && \
	$(BIN)/python -m pytest -q --engine device -m 'not slow' $(CONTRACT) tests/server/engines/test_families.py; serving=$$?; \
	wait $$making; making=$$?; cat "$$log"; exit $$((serving || making))
else
	$(SAY) 'running the tests'
	@$(BIN)/python -m pytest -q $(TESTS)
endif

# The server refuses names under ONESEEK_ that are not settings, in the environment of the tests too.
unexport ONESEEK_TEST_CACHE

test-vllm: $(VENV)/.made
	@python=$$($(BIN)/python -m tests.vllm.environment --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	echo "oneseek: running the tests on vLLM, with $$python"; \
	VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1 HF_HUB_OFFLINE=1 PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 \
	  "$$python" -m pytest -q --engine vllm --durations=5 $(VLLM_TESTS)

test-device: $(VENV)/.made
	@python=$$($(BIN)/python -m tests.device.environment --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	echo "oneseek: running the tests on a device, with $$python"; \
	PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 \
	  "$$python" -m pytest -q --engine webgpu --durations=5 -m 'not slow' -k 'not ($(TIMED))' $(DEVICE_TESTS)

test-deploy: $(VENV)/.test
	@prometheus=$$($(BIN)/python -m tests.deploy.prometheus --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	echo "oneseek: running the tests with $$prometheus"; \
	$(BIN)/python -m pytest -q --prometheus "$$prometheus" tests/deploy

# In the clients' environment, with a server of this one's; the second run has the openai that Inspect asks for.
CLIENTS = PYTHONPATH=.:$$new PYTHONDONTWRITEBYTECODE=1 "$$python" -m pytest -q -p no:cacheprovider --durations=5 \
  --confcutdir=$(CLIENT_TESTS) --server-python $(BIN)/python
CLIENT_TESTS := tests/clients/suite
NEWEST_OPENAI := $(CLIENT_TESTS)/test_inspect_ai.py

test-clients: $(VENV)/.serve
	@python=$$($(BIN)/python -m tests.clients.environment --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	echo "oneseek: running the client libraries, with $$python"; \
	new=; $(CLIENTS) $(CLIENT_TESTS) --ignore=$(NEWEST_OPENAI) || exit; \
	new="$${python%/bin/python}/openai3"; $(CLIENTS) $(NEWEST_OPENAI) $(CLIENT_TESTS)/test_openai.py

test-clients-heavy: $(VENV)/.serve
	@python=$$($(BIN)/python -m tests.clients.environment --heavy --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	new=; $(CLIENTS) $(CLIENT_TESTS)/heavy_clients.py

clients-table: test-clients
	@$(BIN)/python -m tests.clients.table

mutants: $(VENV)/.test
	@$(BIN)/python -m tests.project.mutants.run

corpus: $(VENV)/.test
	@$(BIN)/python -m tests.server.live.adapters.doors

size-fuzz: $(VENV)/.serve
	@$(BIN)/python -m bench.hostile $(ARGS)

lint: $(VENV)/.test
	$(SAY) 'checking style, types and imports'
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m pyright --pythonpath $(BIN)/python
	@$(BIN)/python -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are newer than pyproject.toml once its dependencies are installed, so a second run installs nothing.
$(VENV)/.serve: pyproject.toml $(VENV)/.made
	$(SAY) 'installing the serving set (no torch)'
	@$(PIP) install $(QUIET) --use-pep517 --editable .
	@touch $@

$(VENV)/.train: pyproject.toml $(VENV)/.made
	@size='about 6 GB on Linux, half of it CUDA'; torch=; \
	if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
	  torch=cpu; size='about 2 GB, torch without CUDA'; fi; \
	echo "oneseek: installing what training needs ($$size)"; \
	if [ "$$torch" ]; then $(PIP) install $(QUIET) $(TORCH_CPU) || exit; fi; \
	$(PIP) install $(QUIET) --use-pep517 --editable '.[train]'
	@touch $@ $(VENV)/.serve
	@echo "oneseek: $(VENV) now holds $$(du -sh $(VENV) | cut -f1)"

$(VENV)/.test: pyproject.toml $(VENV)/.made
	$(SAY) 'installing what the tests need (torch and transformers among it: some minutes)'
	@$(PIP) install --quiet --upgrade 'pip>=25.1'
	@$(PIP) install --quiet --use-pep517 --editable . --group lint --group test
	@touch $@ $(VENV)/.serve

$(VENV)/.made:
	@python=''; \
	for candidate in "$(PYTHON)" python3 python3.13 python3.12 python3.11 python; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	  then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'oneseek: no Python 3.11 or later found (python3 is '"$$(python3 -V 2>&1)"'); install one, or say make PYTHON=/path/to/python3' >&2; \
	  exit 1; \
	fi; \
	echo "oneseek: making $(VENV) with $$("$$python" -V)"; \
	"$$python" -m venv $(VENV) || { \
	  echo 'oneseek: could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	@touch $@
