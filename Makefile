# What is exported here must not reach the parts under test; these alone work on the AWS that the shell is set for.
ON_AWS := deploy smoke redrive delete
ifneq ($(and $(filter $(ON_AWS),$(MAKECMDGOALS)),$(filter-out $(ON_AWS),$(MAKECMDGOALS))),)
$(error Run $(filter $(ON_AWS),$(MAKECMDGOALS)) by itself: the other targets are kept off your AWS account)
endif
unexport $(filter SAM_% POWERTOOLS_% LAMBDA_%,$(.VARIABLES)) PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH VIRTUAL_ENV
ifneq ($(filter-out $(ON_AWS),$(or $(MAKECMDGOALS),help)),)
unexport $(filter AWS_%,$(.VARIABLES))
endif

# What was answered at the first deployment counts from then on.
SAID = $(shell sed -n 's/.*$(1)[\\"= ]*\([a-z0-9_-]*\).*/\1/p' samconfig.toml | head -1)
ARCHITECTURE ?= $(or $(call SAID,Architecture),arm64)
REGION = $(if $(AWS_REGION)$(AWS_DEFAULT_REGION),,$(addprefix AWS_DEFAULT_REGION=,$(call SAID,region)))
GUIDED ?= $(if $(shell grep parameter_overrides samconfig.toml),,yes)

PYTHON := .venv/bin/python -u
DEV := .venv/installed
LOCAL_AWS := .venv-sam/installed .venv-ministack/installed
RUNTIME := .venv-runtime/installed
SAM := PATH="$(CURDIR)/.venv-sam/bin:$$PATH" SAM_CLI_TELEMETRY=0 __SAM_CLI_APP_DIR=.aws-sam/cli sam
# A release that somebody slipped something into is mostly found out within days: take none that is younger.
LOCK := .venv/bin/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes --exclude-newer '7 days' \
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

.PHONY: browser
browser: $(DEV) $(LOCAL_AWS) ## End conversations from a page in a real headless Chromium, as it is left, and across origins
	@$(PYTHON) -m local.browser

.PHONY: end
end: $(DEV) ## End one conversation at Tavus itself: make end DEPLOYMENT_ID=d... CONVERSATION_ID=c...
	@PYTHONPATH=src $(PYTHON) -m local.end

.PHONY: redrive
redrive: $(DEV) ## List the events that a stack failed on, and with INVOKE=yes try them again: make redrive STACK=name
	@PYTHONPATH=src $(REGION) $(PYTHON) -m operations.redrive $(if $(STACK),--stack '$(STACK)') $(if $(filter yes,$(INVOKE)),--invoke)

.PHONY: soak
soak: $(DEV) $(LOCAL_AWS) ## Let 1,000 session timeouts meet a Tavus that fails in many ways, and account for each; takes minutes
	@$(PYTHON) -m local.soak

.PHONY: test
test: $(DEV) $(LOCAL_AWS) $(RUNTIME) .venv-checkov/installed ## Run every check that needs no browser
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	AWS_DEFAULT_REGION=us-east-1 $(SAM) validate --lint
	.venv-checkov/bin/checkov --config-file local/checkov.yaml
	$(PYTHON) -m pytest

.PHONY: mutate
mutate: .venv-mutate/installed ## Break the room, the client and both doors in hundreds of ways, and list what no test notices; takes long
	PATH="$(CURDIR)/.venv-mutate/bin:$$PATH" mutmut run
	.venv-mutate/bin/mutmut results

.PHONY: bench
bench: $(DEV) $(RUNTIME) .venv-sam/installed ## Measure starts and calls beside what people usually write; takes about ten minutes
	@$(PYTHON) -m bench.run

.PHONY: build
build: $(DEV) .venv-sam/installed ## Build what is deployed: sam build, trimmed, checked against the pinned hashes, with byte code
	AWS_DEFAULT_REGION=us-east-1 $(SAM) build --parameter-overrides Architecture=$(ARCHITECTURE)
	$(PYTHON) -m operations.build --architecture $(ARCHITECTURE)

.PHONY: deploy
deploy: build ## Build and deploy; asks the first time, and with GUIDED=yes, and keeps the answers in samconfig.toml
	$(SAM) deploy $(if $(GUIDED),--guided)

.PHONY: smoke
smoke: $(DEV) ## See that requests get through a deployed stack, ending nothing: make smoke STACK=... [TOKEN=...]
	@$(REGION) $(PYTHON) -m operations.smoke $(if $(STACK),--stack '$(STACK)')

.PHONY: delete
delete: .venv-sam/installed ## Delete a deployed stack with its queues, table and logs: make delete STACK=...
	$(SAM) delete $(if $(STACK),--stack-name '$(STACK)')

.PHONY: sbom
sbom: $(DEV) ## List what is deployed, as CycloneDX: .aws-sam/sbom.cdx.json
	@mkdir -p .aws-sam
	$(PYTHON) -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-file .aws-sam/sbom.cdx.json requirements.txt

.PHONY: lock
lock: $(DEV) ## Pin the requirements again, as pyproject.toml asks; LOCK_FLAGS=--upgrade takes the newest
	$(LOCK) pyproject.toml --output-file requirements.txt
	$(LOCK) pyproject.toml --group dev --constraints requirements.txt --output-file requirements-dev.txt
	$(LOCK) --group runtime --output-file local/requirements-runtime.txt
	$(LOCK) --group usual --output-file bench/contestants/requirements.txt
	$(LOCK) --group sam --output-file local/requirements-sam.txt
	$(LOCK) --group ministack --output-file local/requirements-ministack.txt
	$(LOCK) --group checkov --output-file local/requirements-checkov.txt
	$(LOCK) pyproject.toml --group mutate --constraints requirements-dev.txt --output-file local/requirements-mutate.txt

.PHONY: clean
clean: ## Remove everything that the other targets made
	rm -rf .venv .venv-runtime .venv-sam .venv-ministack .venv-checkov .venv-mutate .aws-sam mutants .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src bench local operations tests -name __pycache__ -prune -exec rm -rf {} +

.venv/installed: requirements-dev.txt
.venv-runtime/installed: local/requirements-runtime.txt
.venv-sam/installed: local/requirements-sam.txt
.venv-ministack/installed: local/requirements-ministack.txt
.venv-checkov/installed: local/requirements-checkov.txt
.venv-mutate/installed: local/requirements-mutate.txt

%/installed:
	@python3.13 -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'This needs python3.13 with its venv module on the PATH: https://www.python.org/downloads/' >&2; exit 1; }
	@cmp -s $< $@ || { \
		printf '  Installing %s from %s, which may take a minute ...' $* $< && \
		python3.13 -m venv --clear $* && \
		$*/bin/python -m pip install -qq --require-hashes --only-binary :all: --requirement $< && \
		echo ' done'; }
	@cp $< $@
