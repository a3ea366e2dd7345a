# What is exported here must not reach the parts under test; redrive alone works on the AWS that the shell is set for.
unexport $(filter SAM_% POWERTOOLS_% LAMBDA_%,$(.VARIABLES)) PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH VIRTUAL_ENV
ifneq ($(MAKECMDGOALS),redrive)
unexport $(filter AWS_%,$(.VARIABLES))
endif

PYTHON := .venv/bin/python -u
DEV := .venv/installed
LOCAL_AWS := .venv-sam/installed .venv-ministack/installed
LOCK := .venv/bin/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(LOCK_FLAGS)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: $(DEV) $(LOCAL_AWS) ## End conversations for real on this machine, over HTTP and by session timeouts, and check it
	@$(PYTHON) -m local.run

.PHONY: serve
serve: $(DEV) $(LOCAL_AWS) ## The same, but stay up, with the lines to try
	@$(PYTHON) -m local.serve

.PHONY: end
end: $(DEV) ## End one conversation at Tavus itself: make end DEPLOYMENT_ID=d... CONVERSATION_ID=c...
	@PYTHONPATH=src $(PYTHON) -m local.end

.PHONY: redrive
redrive: $(DEV) ## List the events that a stack failed on, and with INVOKE=yes try them again: make redrive STACK=name
	@PYTHONPATH=src $(PYTHON) -m operations.redrive $(if $(STACK),--stack '$(STACK)') $(if $(filter yes,$(INVOKE)),--invoke)

.PHONY: soak
soak: $(DEV) $(LOCAL_AWS) ## Let 1,000 session timeouts meet a Tavus that fails in many ways, and account for each; takes minutes
	@$(PYTHON) -m local.soak

.PHONY: test
test: $(DEV) $(LOCAL_AWS) ## Run every check
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 __SAM_CLI_APP_DIR=.aws-sam/cli .venv-sam/bin/sam validate --lint
	$(PYTHON) -m pytest

.PHONY: lock
lock: $(DEV) ## Pin the requirements again, as pyproject.toml asks; LOCK_FLAGS=--upgrade takes the newest
	$(LOCK) pyproject.toml --output-file requirements.txt
	$(LOCK) pyproject.toml --group dev --constraints requirements.txt --output-file requirements-dev.txt
	$(LOCK) --group sam --output-file local/requirements-sam.txt
	$(LOCK) --group ministack --output-file local/requirements-ministack.txt

.PHONY: clean
clean: ## Remove everything that the other targets made
	rm -rf .venv .venv-sam .venv-ministack .aws-sam .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src local operations tests -name __pycache__ -prune -exec rm -rf {} +

.venv/installed: requirements-dev.txt
.venv-sam/installed: local/requirements-sam.txt
.venv-ministack/installed: local/requirements-ministack.txt

%/installed:
	@python3.13 -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'This needs python3.13 with its venv module on the PATH: https://www.python.org/downloads/' >&2; exit 1; }
	@cmp -s $< $@ || { \
		printf '  Installing %s from %s, which may take a minute ...' $* $< && \
		python3.13 -m venv --clear $* && \
		$*/bin/python -m pip install -qq --require-hashes --only-binary :all: --requirement $< && \
		echo ' done'; }
	@cp $< $@
