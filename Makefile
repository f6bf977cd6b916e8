# The chores of the project. Each is a few lines here; what they do is Rust, in
# hack/xtask and e2e.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# rustup knows the pinned release by its number only where it was installed so.
# Where the default toolchain is that very release, use it, as nothing else differs.
PINNED := $(shell sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
ifeq ($(RUSTUP_TOOLCHAIN),)
ifneq ($(shell command -v rustup),)
ifeq ($(shell rustup toolchain list | grep -F '$(PINNED)-'),)
ifneq ($(shell RUSTUP_TOOLCHAIN=stable rustc --version 2>/dev/null | grep -F 'rustc $(PINNED) '),)
export RUSTUP_TOOLCHAIN := stable
endif
endif
endif
endif

# Development builds select the whole workspace (no -p): cargo unites features
# over what is selected, so every chore finds the same compiled dependencies.
# Programs are built by cargo, but not run by it: what `cargo run` puts into their
# environment would have a cargo inside compile ring, and all above it, once more.
BUILT := $(or $(CARGO_TARGET_DIR),target)/debug
XTASK := $(BUILT)/xtask

# A real node takes root; without it the demo does not need its binaries.
DEMO_TOOLS := $(if $(filter 0,$(shell id -u)),,control-plane kwok)

# What the benches run. Nothing but the one of BatchJob needs the peers, which take minutes to build.
UPGRADE_TOOLS := control-plane kwok $(if $(filter off,$(SPRINGTIDE_NODE)),,node)
BENCH_TOOLS := $(UPGRADE_TOOLS) peers

# KEEP=1 leaves the demo's cluster running.
KEEP_FLAG := $(if $(filter-out 0 no false,$(KEEP)),--keep)

##@ Try it

.PHONY: demo
demo: deps xtask ## Run real batch jobs on a real local Kubernetes and show them; KEEP=1 leaves it running.
	cargo build --workspace --bins
	bin=$$($(XTASK) tools --print-path $(DEMO_TOOLS)) && SPRINGTIDE_BIN=$$bin $(BUILT)/demo $(KEEP_FLAG)

.PHONY: demo-batch-job
demo-batch-job: demo ## The demo of BatchJob: the same as demo.

.PHONY: demo-batch
demo-batch: deps xtask ## Show a queue with a peak window that drains and opens again, on simulated nodes (three minutes).
	cargo build --workspace --bins
	bin=$$($(XTASK) tools --print-path control-plane kwok) && SPRINGTIDE_BIN=$$bin $(BUILT)/demo-batch

.PHONY: demo-upgrade
demo-upgrade: deps xtask ## Upgrade a service in place on a real node while requests run, and roll back (root; two minutes).
	cargo build --workspace --bins
	bin=$(if $(filter 0,$(shell id -u)),$$($(XTASK) tools --print-path control-plane node)) && SPRINGTIDE_BIN=$$bin $(BUILT)/demo-upgrade

.PHONY: demo-timeshare
demo-timeshare: deps xtask ## Show two services and batch jobs share a real node, by the clock and by hand, while requests run (root; four minutes).
	cargo build --workspace --bins
	bin=$(if $(filter 0,$(shell id -u)),$$($(XTASK) tools --print-path control-plane node)) && SPRINGTIDE_BIN=$$bin $(BUILT)/demo-time-share

.PHONY: clean-local
clean-local: ## End what `make demo KEEP=1` left running, and remove all of it.
	cargo build --bin demo
	$(BUILT)/demo clean

##@ Develop

.PHONY: test
test: ## Run everything a change must pass (format, lints, generated files, unit and cluster tests), with minutes per stage.
	started=$$(date +%s); cargo build --bin xtask; $(XTASK) ci --started $$started

.PHONY: test-long
test-long: ## Run the tests with their long loops, on real clusters with the image that is delivered (hours).
	started=$$(date +%s); cargo build --bin xtask; $(XTASK) ci --long --started $$started

.PHONY: bench-batch
bench-batch: deps xtask ## Measure BatchJob beside Kubernetes' Job and Kueue on this machine (release build); BENCH_ARGS=--help tells of parts.
	cargo build --release -p springtide-manager
	cargo build --release -p springtide-e2e --bin bench-batch
	bin=$$($(XTASK) tools --print-path $(BENCH_TOOLS)) && SPRINGTIDE_BIN=$$bin $(BUILT:debug=release)/bench-batch $(BENCH_ARGS)

.PHONY: bench-batch-admission
bench-batch-admission: deps xtask ## Measure the admission on the loads of Kueue's own test (release build); BENCH_ARGS=--help tells of parts.
	cargo build --release -p springtide-manager
	cargo build --release -p springtide-e2e --bin bench-batch
	bin=$$($(XTASK) tools --print-path) && SPRINGTIDE_BIN=$$bin $(BUILT:debug=release)/bench-batch admission $(BENCH_ARGS)

.PHONY: bench-upgrade
bench-upgrade: deps xtask ## Measure InPlaceUpgrade on ten thousand pods, and on a real node (release build); BENCH_ARGS=--help tells of parts.
	cargo build --release -p springtide-manager
	cargo build --release -p springtide-e2e --bin bench-upgrade
	bin=$$($(XTASK) tools --print-path $(UPGRADE_TOOLS)) && SPRINGTIDE_BIN=$$bin $(BUILT:debug=release)/bench-upgrade $(BENCH_ARGS)

.PHONY: bench-timeshare
bench-timeshare: deps xtask ## Measure TimeShareGroup on ten thousand pods, and on a real node (release build); BENCH_ARGS=--help tells of parts.
	cargo build --release -p springtide-manager
	cargo build --release -p springtide-e2e --bin bench-time-share
	bin=$$($(XTASK) tools --print-path $(UPGRADE_TOOLS)) && SPRINGTIDE_BIN=$$bin $(BUILT:debug=release)/bench-time-share $(BENCH_ARGS)

.PHONY: bench-plumbing
bench-plumbing: deps xtask ## Measure what the plumbing costs: memory per pod, leases, write budget, hand-over (release build).
	cargo build --release -p springtide-manager
	cargo build --release -p springtide-e2e --bin bench-plumbing
	bin=$$($(XTASK) tools --print-path) && SPRINGTIDE_BIN=$$bin $(BUILT:debug=release)/bench-plumbing

.PHONY: fmt
fmt: ## Format the Rust code.
	cargo fmt --all

.PHONY: gen
gen: xtask ## Write CRDs, samples and reference pages anew from the Rust types.
	$(XTASK) gen

.PHONY: check
check: xtask ## Compare the generated files with the Rust types, and hold the CRDs to their rules.
	$(XTASK) check

.PHONY: audit
audit: xtask ## Check licences, banned crates, sources and advisories of all dependencies (cargo-deny).
	$(XTASK) audit

##@ Deliver

.PHONY: image
image: xtask ## Build the container image (an OCI archive in target/image) from a static release program.
	$(XTASK) image

.PHONY: image-check
image-check: xtask ## Build the image twice, in different folders, and compare: it must be the same.
	$(XTASK) image --check

.PHONY: install-manifests
install-manifests: xtask ## Render the kustomize bases and config/install.yaml from the chart.
	$(XTASK) manifests

##@ Prepare

.PHONY: deps
deps: xtask ## Install missing Debian packages as root; otherwise name them.
	$(XTASK) deps --install

.PHONY: tools
tools: deps ## Build the pinned test binaries (etcd, Kubernetes, KWOK, containerd) that are not in the cache.
	$(XTASK) tools

# Compiled with cargo's own output, so that a cold start shows what it does.
.PHONY: xtask
xtask:
	@cargo build --bin xtask

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { sub(/:.*/, "", $$1); printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
