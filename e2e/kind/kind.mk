# Targets of the test bed. CLUSTER names another cluster than the default one.
TESTBED := $(PYTHON) e2e/kind/testbed.py
ifdef CLUSTER
TESTBED += --name $(CLUSTER) --kubeconfig build/kubeconfig-$(CLUSTER)
endif

.PHONY: check
check: ## Check what the machine must have; install what is missing
	@$(TESTBED) check

.PHONY: tools
tools: ## Build the pinned Go tools (once)
	@$(TESTBED) tools

.PHONY: images
images: ## Build the product's images whose inputs changed
	@$(TESTBED) images

.PHONY: cluster
cluster: ## Create the kind cluster, or mend it; kubeconfig in build/kubeconfig
	@$(TESTBED) cluster

.PHONY: load
load: ## Load the product's images onto the cluster's nodes
	@$(TESTBED) load

.PHONY: down
down: ## Delete the kind cluster
	@$(TESTBED) down

.PHONY: clean
clean: ## Delete clusters, the traffic guard and build/; caches stay
	@$(TESTBED) clean
