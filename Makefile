# Everything a fresh Linux or macOS machine needs is Python 3.11 or later and make.
#   make serve ARGS="--port 8011"    start the server (first run: install what serving needs, without torch)
#   make train                       install what training needs, without CUDA if there is no NVIDIA GPU
#   make test                        install what the tests need, and run all tests except those of training
#   make test-training               the tests that train, distil, merge and convert models
#   make test-vllm                   run the tests on the real vLLM, on the CPU (Linux; the first run downloads 3.5 GiB)
#   make test-deploy                 build and run the files of deploy/ (Debian, as root; the first run downloads 0.2 GB)
#   make test-bench                  run each scenario of oneseek bench for a short time against real servers
#   make test-rivals                 test the other servers that oneseek bench starts (not in CI; downloads 3.7 GiB)
#   make test-page                   test the server's web page in headless Chromium (Debian; the first run downloads 160 MB)
#   make test-ray                    test two replicas on a Ray cluster on this machine (the first run downloads 0.9 GiB)
#   make test-ray-vllm               test two vLLM replicas on a Ray cluster, on the CPU (not in CI; downloads 3.8 GiB)
#   make test-clients                test client libraries against a server (the first run downloads 0.8 GiB)
#   make board-picture               draw docs/board.png, the Grafana dashboard of a server under load (Debian)
#   make mutants                     remove each security rule in a copy of the code, and check that its test then fails
#   make corpus                      give every malformed adapter to the command line (10 to 20 minutes)
#   make size-fuzz                   measure how long other clients wait during the largest requests (some minutes)
#   make test-device                 run the tests on a software GPU (Debian on x86-64; the first run downloads 0.5 GiB)
# On Windows: deploy\windows\serve.ps1

.DEFAULT_GOAL := help
.PHONY: help serve train test test-training test-vllm test-device test-deploy board-picture test-ray test-ray-vllm test-bench test-rivals \
  test-page screenshots vendor \
  test-clients test-clients-heavy clients-table mutants corpus size-fuzz prose docs locks release lint clean

PYTHON ?=
ARGS ?=
TESTS ?= tests
CONTRACT := $(wildcard tests/server/engines/test_contract*.py) tests/server/engines/test_hot_swap.py
VLLM_TESTS ?= $(CONTRACT) \
  $(patsubst %,tests/server/%.py,api/endpoints/test_formats api/endpoints/test_http api/endpoints/test_keys \
    api/endpoints/test_openai api/endpoints/test_tools api/endpoints/test_responses_http api/endpoints/test_responses_openai \
    rollout/test_changes live/test_live_changes live/loading/test_loading live/loading/test_loading_refusals \
    metrics/test_metrics metrics/test_gateways) \
  tests/vllm

# The tests of training run with `make test-training`, because most of them start Python with torch many times.
TRAINING_VERBS := tests/server/cli/training tests/server/cli/test_upgrading.py
TRAINING_PARTS := tests/adapters/distillation tests/adapters/evaluation tests/adapters/merging tests/adapters/mini \
  tests/adapters/pth tests/adapters/training tests/server/cli/adapters/test_merge.py
TRAINING := $(TRAINING_VERBS) $(TRAINING_PARTS)
STARTS_RIVALS := tests/bench/gpu tests/bench/test_bigbase.py
ELSEWHERE := $(TRAINING) $(STARTS_RIVALS)

# `make test` runs these folders beside the rest of tests/; both halves take about the same time.
MAKING := tests/adapters tests/bench tests/project tests/routing tests/server/cli tests/server/live tests/server/rollout \
  tests/server/telemetry

DEVICE_TESTS ?= tests/device tests/server/engines/test_contract.py tests/server/engines/test_contract_adapters.py
# Tests with timeouts that a software device, with steps of a tenth of a second, may exceed.
TIMED := unload_that or load_that_is_cancelled or stalls or nobody_reads or come_back or used_again

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# On a terminal, pip shows what it installs; else it is quiet.
QUIET = $$([ -t 2 ] || echo --quiet)
SAY := @printf 'oneseek: %s\n'

help:
	@printf '%s\n' \
	  'make serve   start the server on http://127.0.0.1:8000; ARGS="--port 8011" passes options to oneseek serve' \
	  'make train   install what training needs; with ARGS="identity --language sv", also train an adapter' \
	  'make test    check style, types and imports, and run the tests; TESTS=tests/server runs those of one folder' \
	  'make test-training  run the tests that train, distil, merge and convert models; they take longest' \
	  'make test-vllm  run the engine contract tests and tests/vllm on the real vLLM, on the CPU' \
	  'make test-device  run tests/device and the engine contract tests on WebGPU, with a software Vulkan driver' \
	  'make test-deploy  run tests/deploy on the container image, the systemd unit, the proxies and Prometheus; as root' \
	  'make board-picture  draw docs/board.png: the panels of the Grafana dashboard, for a server under load' \
	  'make test-bench  run each scenario of oneseek bench for a short time against real servers' \
	  'make test-rivals  let oneseek bench start vllm serve, its Rust front end and llama.cpp; not part of CI' \
	  'make test-page  run tests/page: the server'"'"'s web page in headless Chromium' \
	  'make screenshots  take the screenshots of docs/pictures again, in headless Chromium' \
	  'make vendor  download the web page'"'"'s JavaScript libraries from npm again' \
	  'make test-ray  run tests/ray and the engine contract tests on replicas in a Ray cluster on this machine' \
	  'make test-ray-vllm  test two vLLM replicas in a Ray cluster on this machine, on the CPU; not part of CI' \
	  'make test-clients  test OpenAI'"'"'s libraries, LiteLLM, LangChain and other clients against a server' \
  'make test-clients-heavy  test guidellm, lm-eval, vllm bench serve and inference-perf; not part of CI' \
  'make clients-table  run test-clients, then write the table of docs/clients.md' \
  'make mutants  remove each rule of tests/project/mutants in a copy, and check that its test fails; 30 minutes or more' \
	  'make corpus  give every malformed adapter to the command line, in one process each' \
	  'make size-fuzz  measure how long other clients wait while the server gets the largest requests; some minutes' \
	  'make prose   count overused words in docstrings and documents; ARGS="--sample 50" prints random lines to read' \
	  'make docs    build the documentation as a web site in build/site, and check its links' \
	  'make locks   write locks/*.txt again, with the newest versions of all packages' \
	  'make release  build the wheel and the sdist twice, compare the builds, and start a server from the wheel' \
	  'make lint    check style, types and imports, without the tests' \
	  'make clean   remove .venv, build output and all caches in this folder'

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

# Run two commands at once. The first command's output is shown when both have ended.
define side_by_side
@log=$$(mktemp) && trap 'rm -f "$$log"' EXIT; \
{ $(1); } >"$$log" 2>&1 & first=$$!; \
{ $(2); }; second=$$?; \
wait $$first; first=$$?; cat "$$log"; exit $$((second || first))
endef

ifeq ($(TESTS),tests)
test: $(VENV)/.test
	$(SAY) 'running the checks and the tests in three processes; two of them print their output at the end'
	$(call side_by_side,$(MAKE) --no-print-directory lint & checks=$$!; \
	  $(BIN)/python -m pytest -q $(MAKING) $(ELSEWHERE:%=--ignore=%); tests=$$?; wait $$checks && exit $$tests, \
	  $(BIN)/python -m pytest -q tests $(MAKING:%=--ignore=%) && \
	  $(BIN)/python -m pytest -q --engine device -m 'not slow' $(CONTRACT) tests/server/engines/test_families.py)
else
test: lint
	$(SAY) 'running the tests'
	@$(BIN)/python -m pytest -q $(TESTS)
endif

test-training: $(VENV)/.test
	$(SAY) 'running the tests of training in two processes; one of them prints its output at the end'
	$(call side_by_side,$(BIN)/python -m pytest -q --durations=5 $(TRAINING_PARTS), \
	  $(BIN)/python -m pytest -q --durations=5 $(TRAINING_VERBS))

# The server refuses environment variables that begin with ONESEEK_ and are not settings, also in tests.
unexport ONESEEK_TEST_CACHE

# On vLLM, this test takes a minute. Another test of the contract mixes fewer requests.
VLLM_SOAK := a_thousand_mixed_requests
test-vllm: $(VENV)/.made
	@python=$$($(BIN)/python -m tests.vllm.environment --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	echo "oneseek: running the tests on vLLM, with $$python"; \
	VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1 HF_HUB_OFFLINE=1 PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 \
	  "$$python" -m pytest -q --engine vllm --durations=5 -k 'not ($(VLLM_SOAK))' $(VLLM_TESTS)

test-device: $(VENV)/.made
	@python=$$($(BIN)/python -m tests.device.environment --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	echo "oneseek: running the tests on a device, with $$python"; \
	PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 \
	  "$$python" -m pytest -q --engine webgpu --durations=5 -m 'not slow' -k 'not ($(TIMED))' $(DEVICE_TESTS)

test-deploy: $(VENV)/.test
	@prometheus=$$($(BIN)/python -m tests.deploy.prometheus --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	tools=$$($(BIN)/python -m tests.deploy.tools --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	kubernetes=$$($(BIN)/python -m tests.deploy.kubernetes.environment --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	echo "oneseek: running the tests with $$prometheus, $$tools and $$kubernetes"; \
	$(BIN)/python -m pytest -q --durations=10 --prometheus "$$prometheus" --deploy-tools "$$tools" \
	  --kubernetes "$$kubernetes" tests/deploy

board-picture: $(VENV)/.test
	@prometheus=$$($(BIN)/python -m tests.deploy.prometheus --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	$(BIN)/python -m tests.deploy.watching.picture --prometheus "$$prometheus" --out docs/board.png

test-bench: $(VENV)/.test
	$(SAY) 'running oneseek bench against real servers'
	@$(BIN)/python -m pytest -q --durations=5 tests/bench/live/live_suite.py $(STARTS_RIVALS)

test-rivals: $(VENV)/.test
	@cache='$(ONESEEK_TEST_CACHE)'; vllm=; \
	llama=$$($(BIN)/python -m tests.bench.live.environment --cache "$$cache") || exit; \
	if [ "$$(uname -s)" = Linux ]; then \
	  vllm=$$($(BIN)/python -m tests.vllm.environment --cache "$$cache") || exit; fi; \
	echo "oneseek: starting every contender, with $$vllm and $$llama"; \
	$(BIN)/python -m pytest -q --durations=5 tests/bench/live/rivals_suite.py \
	  --vllm-python "$$vllm" --llama-python "$$llama"

# The browser and axe-core are fetched into the cache once.
CHROMIUM_PATH = $$($(BIN)/python -m tests.page.chromium --cache '$(ONESEEK_TEST_CACHE)')

test-page: $(VENV)/.test
	@chromium=$(CHROMIUM_PATH) && axe=$$($(BIN)/python -m tests.page.vendor --axe --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	echo "oneseek: testing the web page with $$chromium"; \
	$(BIN)/python -m pytest -q --chromium "$$chromium" --axe "$$axe" --durations=5 tests/page/suite

screenshots: $(VENV)/.test
	@chromium=$(CHROMIUM_PATH) || exit; \
	$(BIN)/python -m tests.page.screenshots "$$chromium" docs/pictures

vendor: $(VENV)/.test
	@$(BIN)/python -m tests.page.vendor --cache '$(ONESEEK_TEST_CACHE)'

# These two tests read the memory figures of replicas at once, but the figures can be half a second old.
OLD_FIGURES := prompt_scores_are_whole or little_kv_memory

test-ray: $(VENV)/.made
	@python=$$($(BIN)/python -m tests.ray.environment --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	echo "oneseek: running the tests on Ray, with $$python"; \
	PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 "$$python" -m pytest -q --engine remote --without-torch --durations=5 \
	  -m 'not slow' -k 'not ($(OLD_FIGURES))' tests/ray tests/server/engines/test_contract.py \
	  tests/server/engines/test_contract_adapters.py

# Without nobind, vLLM on the CPU binds the threads of every replica to the same cores.
test-ray-vllm: $(VENV)/.made
	@cache='$(ONESEEK_TEST_CACHE)'; vllm=$$($(BIN)/python -m tests.vllm.environment --cache "$$cache") || exit; \
	python=$$($(BIN)/python -m tests.ray.vllm_environment "$$vllm" --cache "$$cache") || exit; \
	echo "oneseek: running vLLM on Ray, with $$python"; \
	VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind HF_HUB_OFFLINE=1 \
	  PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 "$$python" -m pytest -q --engine remote --without-torch --durations=5 \
	  tests/ray/vllm_suite.py

# Runs in the clients' environment, with a server from .venv. The second run has the openai version that Inspect needs.
CLIENTS = PYTHONPATH=.:$$new PYTHONDONTWRITEBYTECODE=1 "$$python" -m pytest -q -p no:cacheprovider --durations=5 \
  --confcutdir=$(CLIENT_TESTS) --server-python $(BIN)/python
CLIENT_TESTS := tests/clients/suite
NEWEST_OPENAI := $(CLIENT_TESTS)/test_inspect_ai.py

test-clients: $(VENV)/.serve
	@python=$$($(BIN)/python -m tests.clients.environment --cache '$(ONESEEK_TEST_CACHE)') || exit; \
	echo "oneseek: running the client libraries, with $$python"; \
	new=; $(CLIENTS) $(CLIENT_TESTS) --ignore=$(NEWEST_OPENAI) || exit; \
	new="$${python%/bin/python}/openai3"; $(CLIENTS) $(NEWEST_OPENAI) $(CLIENT_TESTS)/test_openai.py

# vLLM's client runs in the environment of test-vllm. inference-perf runs only if there is a Python 3.12.
test-clients-heavy: $(VENV)/.serve
	@cache='$(ONESEEK_TEST_CACHE)'; vllm=; \
	python=$$($(BIN)/python -m tests.clients.environment --heavy --cache "$$cache") || exit; \
	perf=$$($(BIN)/python -m tests.clients.environment --inference-perf --cache "$$cache") || exit; \
	if [ "$$(uname -s)" = Linux ]; then \
	  vllm=$$($(BIN)/python -m tests.vllm.environment --cache "$$cache") || exit; fi; \
	new=; $(CLIENTS) $(CLIENT_TESTS)/heavy_clients.py --vllm-python "$$vllm" --inference-perf-python "$$perf"

clients-table: test-clients
	@$(BIN)/python -m tests.clients.table

mutants: $(VENV)/.test
	@$(BIN)/python -m tests.project.mutants.run

corpus: $(VENV)/.test
	@$(BIN)/python -m tests.server.live.adapters.doors

size-fuzz: $(VENV)/.serve
	@$(BIN)/python -m bench.hostile $(ARGS)

prose: $(VENV)/.made
	@$(BIN)/python -m tests.project.prose $(ARGS)

docs: $(VENV)/.docs
	$(SAY) 'building the site in build/site; a broken link is an error'
	@rm -rf .cache build/site
	@$(BIN)/python -m zensical build --strict

locks: $(VENV)/.test
	@$(BIN)/python -m tests.project.release.locks

release: $(VENV)/.release
	@$(BIN)/python -m tests.project.release.build

lint: $(VENV)/.test
	$(SAY) 'checking style, types and imports'
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m pyright --pythonpath $(BIN)/python
	@$(BIN)/python -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp files are newer than pyproject.toml once its dependencies are installed, so a second run installs nothing.
$(VENV)/.serve: pyproject.toml $(VENV)/.made
	$(SAY) 'installing the packages for serving (without torch)'
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
	$(SAY) 'installing what the tests need, including torch and transformers; this takes some minutes'
	@$(PIP) install --quiet --upgrade 'pip>=25.1'
	@$(PIP) install --quiet --use-pep517 --editable . --group lint --group test --group deploy
	@touch $@ $(VENV)/.serve

$(VENV)/.docs $(VENV)/.release: $(VENV)/.%: pyproject.toml $(VENV)/.made
	@$(PIP) install --quiet --upgrade 'pip>=25.1'
	@$(PIP) install $(QUIET) --group $*
	@touch $@

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
