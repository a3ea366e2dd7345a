# All targets ignore the shell's settings for Python, pip and uv, except those that say how to reach packages.
NETWORK := UV_CACHE_DIR UV_CONCURRENT_% UV_CONFIG_FILE UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_HTTP_% UV_INDEX UV_INDEX_% \
	UV_INSECURE_HOST UV_KEYRING_PROVIDER UV_LINK_MODE UV_NATIVE_TLS UV_OFFLINE UV_PYTHON_% UV_REQUEST_TIMEOUT UV_SYSTEM_CERTS
unexport VIRTUAL_ENV $(filter-out $(NETWORK),$(filter PIP_% PYTHON% UV_%,$(.VARIABLES)))

# The targets that use only this machine also ignore its settings for AWS, sam and the functions.
LOCAL := env $(foreach name,$(filter AWS_% LAMBDA_% POWERTOOLS_% SAM_%,$(.VARIABLES)),-u $(name))

UV := .venv-uv/bin/uv
PYTHON := $(LOCAL) .venv/bin/python -u
SAM := SAM_CLI_TELEMETRY=0 __SAM_CLI_APP_DIR=.aws-sam/cli .venv-sam/bin/sam
BUILD := $(LOCAL) $(UV) run --no-project --python 3.13 -m

DEV := .venv/installed
LOCAL_AWS := .venv-sam/installed .venv-ministack/installed
RUNTIME := .venv-runtime/installed

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: $(DEV) $(LOCAL_AWS) ## Deploy to a local AWS, end conversations over HTTP, by session timeouts and at a limit, and check the results
	@$(PYTHON) -m local.run

.PHONY: serve
serve: $(DEV) $(LOCAL_AWS) ## Deploy to a local AWS, show commands to try, and keep it running
	@$(PYTHON) -m local.serve

.PHONY: browser
browser: $(DEV) $(LOCAL_AWS) ## End conversations and set a limit from web pages in headless Chromium
	@$(PYTHON) -m local.browser

.PHONY: end
end: $(DEV) ## End one conversation at Tavus, without AWS: make end DEPLOYMENT_ID=d... CONVERSATION_ID=c...
	@PYTHONPATH=src .venv/bin/python -m local.end

.PHONY: soak
soak: $(DEV) $(LOCAL_AWS) ## Send 1,000 session timeouts under injected faults, and check the outcome of each; takes minutes
	@$(PYTHON) -m local.soak

.PHONY: test
test: $(DEV) $(LOCAL_AWS) $(RUNTIME) ## Run all checks and tests that need no browser
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	$(LOCAL) $(SAM) validate
	$(PYTHON) -m pytest

.PHONY: unit
unit: $(DEV) ## Run the tests that need no network and no build; takes about a minute
	$(PYTHON) -m pytest tests/unit --numprocesses auto

.PHONY: mutate
mutate: $(DEV) ## Change the code in many small ways, and list the changes that no unit test notices; takes a long time
	$(LOCAL) PATH="$(CURDIR)/.venv/bin:$$PATH" mutmut run
	$(LOCAL) .venv/bin/mutmut results

.PHONY: bench
bench: $(DEV) $(RUNTIME) ## Compare cold starts and calls with other implementations; takes about ten minutes
	@$(PYTHON) -m bench.run

.PHONY: build
build: .venv-sam/installed $(UV) ## Build the functions, for arm64 and x86_64
	$(LOCAL) $(SAM) build

# sam build runs this for each function. ARTIFACTS_DIR is the folder to fill.
build-%: $(UV)
	@$(BUILD) operations.package "$${ARTIFACTS_DIR:?is set by sam build}"

.PHONY: release
release: $(UV) ## Make the files of a release, which deploy without a build: make release VERSION=1.0.0
	@$(BUILD) operations.release '$(VERSION)'

.PHONY: deploy
deploy: STACK := $(or $(STACK),end-conversation)
deploy: $(DEV) .venv-sam/installed ## Build and deploy to AWS; asks two questions the first time: make deploy [STACK=...]
	@SAM_CLI_TELEMETRY=0 .venv/bin/python -m operations.deploy '$(STACK)'

.PHONY: smoke
smoke: $(DEV) ## Check that requests reach a deployed stack, without ending anything: make smoke STACK=... [TOKEN=...]
	@.venv/bin/python -m operations.smoke '$(or $(STACK),end-conversation)'

.PHONY: delete
delete: .venv-sam/installed ## Delete a deployed stack with its queues, table and logs: make delete [STACK=...]
	@$(SAM) delete --stack-name '$(or $(STACK),end-conversation)'

.PHONY: lock
lock: $(UV) ## Lock the dependencies of pyproject.toml; LOCK_FLAGS=--upgrade takes the newest versions
	$(UV) lock $(LOCK_FLAGS)
	$(UV) export --frozen --quiet --no-dev --no-emit-project --output-file requirements.txt
	$(UV) export --frozen --quiet --only-group uv --output-file local/requirements-uv.txt

.PHONY: clean
clean: ## Remove everything that the other targets created
	rm -rf .venv .venv-* .aws-sam mutants .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src bench local operations tests -name __pycache__ -prune -exec rm -rf {} +

# An environment is filled under another name and then renamed, so that an interrupted install leaves no partial one. If
# two makes install it at once, the second to finish keeps that of the first. It can be moved together with the clone.
FILL = { [ -e $@ ] && [ -z "$$(find $^ -newer $@)" ] || rm -rf $(ENVIRONMENT); } && \
	find . -maxdepth 1 -name '.venv-new.*' -mmin +60 -exec rm -rf {} + && \
	new=$$(mktemp -d .venv-new.XXXXXX) && chmod 755 $$new && trap 'rm -rf $$new' EXIT && trap 'exit 1' HUP INT TERM
RENAME = { $$new/bin/python -c 'import os, sys; os.rename(*sys.argv[1:])' $$new $(ENVIRONMENT) 2>/dev/null || \
	[ -e $@ ] || { echo 'Delete $(ENVIRONMENT): it is in the way.' >&2; exit 1; }; }

# Each environment is a group of pyproject.toml: .venv-sam is the group sam; .venv is the group dev with the project's
# own dependencies.
%/installed: ENVIRONMENT = $*
%/installed: uv.lock pyproject.toml .python-version $(UV)
	@printf 'Installing %s from uv.lock, which may take a minute ...' $*
	@$(FILL) && $(UV) venv --quiet --relocatable $$new && UV_PROJECT_ENVIRONMENT=$$new \
		$(UV) sync --quiet --frozen $(addprefix --only-group ,$(patsubst .venv-%,%,$(filter .venv-%,$*))) && \
		touch $$new/installed && $(RENAME)
	@echo ' done'

# The version of uv that the lock was made with. Any uv or Python 3.13 can install it. uv reads no settings of the project
# here, because an older uv does not understand them.
$(UV): ENVIRONMENT = .venv-uv
$(UV): local/requirements-uv.txt
	@$(FILL) && here=$$(pwd) && \
	if error=$$(exec 2>&1; cd / && command -v uv >/dev/null && uv venv --quiet --python 3.13 "$$here/$$new" && \
		UV_SYSTEM_CERTS=1 VIRTUAL_ENV="$$here/$$new" uv pip install --quiet --require-hashes --only-binary :all: \
			--requirement "$$here/$<"); then :; \
	elif python3.13 -c 'import ensurepip, venv' 2>/dev/null; then \
		python3.13 -m venv --clear $$new && $$new/bin/python -m pip install -qq --require-hashes --only-binary :all: \
			$${UV_DEFAULT_INDEX:+--index-url "$$UV_DEFAULT_INDEX"} --requirement $<; \
	elif command -v uv >/dev/null; then \
		echo "$$error" >&2; exit 1; \
	else \
		echo 'This needs uv (https://docs.astral.sh/uv/) or Python 3.13 with its venv module on the PATH.' >&2; exit 1; \
	fi && touch $$new/bin/uv && $(RENAME)
