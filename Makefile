# Everything starts from an empty machine: each target installs what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := build/venv
BIN := $(VENV)/bin

# The variable silences what mkdocs-material says about its successor.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Most of these tests wait most of the time, for servers and for Leases to end.
SIDE_BY_SIDE := -n 3 --dist loadfile

# Tests hold real servers to real deadlines, which a busy machine may stall beyond. What fails (code 1; any other is no
# test's, or a broken promise) is tried once more alone, and that counts. The log keeps the first failures.
define twice_at_most
$(BIN)/python -m pytest $(1) $(2) || { [ $$? -eq 1 ] && \
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none --maxfail 3 $(2); }
endef

include e2e/kind/kind.mk

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) e2e/kind/testbed.py venv $(VENV)
	@touch $@

.PHONY: venv
venv: $(VENV)/.installed ## Make the Python environment with all tools

.PHONY: generate
generate: venv ## Write the CRD, the references, the golden files and what is made from the charts anew
	$(BIN)/python -m tests.generate

# NAMESPACE=name for another one than runnerhub-system, HELM="--set image.registry=... --values FILE" for other values.
NAMESPACE ?= runnerhub-system
.PHONY: manifest
manifest: venv ## Write build/manifest/runnerhub-operator.yaml, which installs the operator without Helm
	$(BIN)/python -m tests.manifest build/manifest/runnerhub-operator.yaml --namespace $(NAMESPACE) $(HELM)

.PHONY: lint
lint: venv ## Check format, types, layers, Dockerfiles, charts, workflow and the documentation's links
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTHON) e2e/kind/testbed.py lint
	$(MKDOCS)

.PHONY: unit
unit: venv ## Run the unit tests
	$(BIN)/python -m pytest tests/unit e2e/kind/tests

.PHONY: integration
integration: venv tools servers ## Run the tests against real servers on loopback: kube-apiserver, Postgres, Redis, S3
	$(call twice_at_most,$(SIDE_BY_SIDE),tests/integration)

.PHONY: bench-scale
bench-scale: venv tools ## Measure memory, time, CPU and API calls of the operator with 1 to 500 clusters (20 minutes or more)
	$(BIN)/python -m bench.scale

# It unpacks itself once into ~/.shiv.
.PHONY: cli
cli: build/kubectl-runnerhub ## Build the plugin for kubectl as one file, build/kubectl-runnerhub

build/kubectl-runnerhub: pyproject.toml requirements.lock $(foreach package,cli operator,$(wildcard \
  operator/runnerhub_$(package)/*.py operator/runnerhub_$(package)/*/*.py))
	@$(PYTHON) e2e/kind/testbed.py plugin $@

# To be read from build/site/index.html; --strict fails for a dead link or anchor.
.PHONY: docs
docs: venv ## Build the documentation's site in build/site, and check its links
	$(MKDOCS)

.PHONY: servers
servers:
	@$(TESTBED) servers

.PHONY: crash-sweep
crash-sweep: venv tools ## Kill the operator at each of its writes in turn; report in build/reports/crash-sweep.json
	$(BIN)/python -m pytest tests/integration/test_crash_sweep.py -m full

.PHONY: hostile
hostile: venv tools ## Try 10,000 generated specs on schema, operator and builders; report in build/reports/hostile.json
	RUNNERHUB_HOSTILE=full $(BIN)/python -m pytest tests/integration/test_hostile_specs.py tests/unit/api/test_hostile_input.py

.PHONY: faults-api
faults-api: venv tools ## Try the operator with an API server that is away, cuts, forgets, throttles and lies (half an hour)
	$(BIN)/python -m pytest tests/integration/test_api_faults.py -m full

.PHONY: e2e
e2e: check venv ## Run the tests on a kind cluster: install, faults with the oracle, deletion
	$(BIN)/python -m pytest e2e/tests

.PHONY: charts
charts: venv tools servers ## Test the charts, and installing with them on a real API server
	$(BIN)/python -m pytest tests/unit/charts tests/unit/argocd tests/integration/test_install.py tests/integration/test_install_lifecycle.py

.PHONY: network-policies
network-policies: check venv ## Test a cluster in a namespace that is closed to others (needs a pod network that enforces it)
	$(BIN)/python -m pytest e2e/tests/test_15_network_policies.py

.PHONY: e2e-install
e2e-install: check venv ## Install in each way on kind: Helm 3 and 4, kubectl, kustomize, Argo CD; report in build/reports/install.json
	$(BIN)/python -m pytest e2e/install

# For faults-postgres, faults-redis and faults-hub: RUNS of each fault, FAULTS=a,b for some of them, STRICT=1 to fail for
# missed targets, API_AWAY_SECONDS=600 and TWO_DOWN_SECONDS=600 for the outages that the design asks for, RESUME=1 to go on
# where an earlier suite was cut off.
RUNS ?= 10
FAULTS_OPTIONS = --runs $(RUNS) $(if $(FAULTS),--faults $(FAULTS)) $(if $(CLUSTER),--cluster $(CLUSTER)) \
	$(if $(API_AWAY_SECONDS),--api-away-seconds $(API_AWAY_SECONDS)) \
	$(if $(TWO_DOWN_SECONDS),--two-down-seconds $(TWO_DOWN_SECONDS)) $(if $(STRICT),--strict) $(if $(RESUME),--resume)

.PHONY: faults-postgres
faults-postgres: check venv ## Break the database in each way RUNS times while clients write (hours); keeps the cluster
	$(BIN)/python -m e2e.faults postgres $(FAULTS_OPTIONS)

.PHONY: faults-redis
faults-redis: check venv ## Break the queue in each way RUNS times while clients write (hours); keeps the cluster
	$(BIN)/python -m e2e.faults redis $(FAULTS_OPTIONS)

.PHONY: faults-hub
faults-hub: check venv ## Break orchestrators, leader, load balancer and runners RUNS times under load (hours); keeps the cluster
	$(BIN)/python -m e2e.faults hub $(FAULTS_OPTIONS)

# VERSION=1.2.3: says it in all places, dates the changelog, writes the generated files anew.
.PHONY: version
version: venv ## Give the product another version, VERSION=1.2.3
	$(BIN)/python -m release version "$(VERSION)"
	$(BIN)/python -m tests.generate

# RELEASE_OPTIONS="--images operator,redis" for some images, "--base-image docker.io/library/debian:trixie-slim" for another foundation.
RELEASE_OPTIONS ?=
.PHONY: release
release: check venv ## Build wheel, charts, manifest and images with their contents into build/release, with SHA256SUMS
	rm -rf build/release
	$(BIN)/python -m release build build/release $(RELEASE_OPTIONS)

.PHONY: release-check
release-check: check venv ## Build a release twice and compare; report in build/reports/release.json
	rm -rf build/release-check
	$(BIN)/python -m release check build/release-check $(RELEASE_OPTIONS)

.PHONY: test
test: check lint tools servers ## Run all that must pass before a change lands
	$(call twice_at_most,$(SIDE_BY_SIDE),tests/unit e2e/kind/tests tests/integration)
	$(call twice_at_most,,e2e/tests)

.PHONY: demo
demo: check venv ## Create a kind cluster and a RunnerHubCluster, break it on purpose, print what clients saw
	$(BIN)/python -m e2e.demo

.PHONY: demo-down
demo-down: down ## Remove what `make demo` left running
