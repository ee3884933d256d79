# `make demo` shows it all; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# One place for what is built, whatever the environment says: the stack's image takes it from there.
export CARGO_TARGET_DIR := $(CURDIR)/target
CARGO_HOME ?= $(HOME)/.cargo
# rustup's tools go before those that Debian has in /usr/bin.
ifneq ($(wildcard $(CARGO_HOME)/bin/cargo),)
export PATH := $(CARGO_HOME)/bin:$(PATH)
endif

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Build, bring the stack up, kill nginx and watch it being healed
	@stack/demo.sh

.PHONY: down
down: ## Stop the stack, and the Docker engine if the demo started it
	@stack/down.sh

.PHONY: setup
setup: ## Install what is missing for the build and the stack (Debian), or say what to install
	@stack/setup/packages.sh build docker

.PHONY: build
build: ## Build the daemon, the drill and the benchmark
	@stack/setup/build.sh --bins

.PHONY: plugins
plugins: ## Build the plugins as WebAssembly components
	@stack/setup/plugins.sh

.PHONY: images
images: build plugins ## Get or make the images of the stack
	@stack/setup/docker.sh start
	@stack/setup/images.sh
	@stack/setup/compose build sentinel

.PHONY: fmt
fmt: ## Format the sources
	@cargo fmt --all

.PHONY: lint
lint: ## Check the format and the lints
	@stack/setup/lint.sh

.PHONY: deny
deny: ## Check the dependencies: licences, bans, sources, and known holes where their list can be had
	@stack/setup/deny.sh

.PHONY: test
test: ## Run everything that checks the project: format, lints, dependencies, and all tests, against real containers
	@stack/setup/test.sh

.PHONY: release-check
release-check: ## Run the demo on bare machines, new and months old: what a release must do from nothing
	@stack/setup/release-check.sh

.PHONY: crash
crash: build plugins ## Kill the daemon 500 times under load: nothing may be lost, nothing done twice
	@SENTINEL_CRASH_ROUNDS="$${SENTINEL_CRASH_ROUNDS:-500}" \
		cargo test --release --workspace --test crash -- --nocapture

.PHONY: soak
soak: ## Play the engine through SEEDS simulated worlds of faults (100000); SEED=n plays one
	@cargo run --release --quiet -p sentinel-simulation --bin soak

.PHONY: mutants
mutants: ## Plant bugs in the engine, one after another, and see the simulation find each
	@cargo test --release -p sentinel-simulation --features mutations --test mutants -- --nocapture

.PHONY: fuzz
fuzz: ## Feed every parser of foreign bytes with made-up input for FUZZ_SECONDS each (60); FUZZ_TARGET=name feeds one
	@FUZZ_SECONDS="$(FUZZ_SECONDS)" FUZZ_TARGET="$(FUZZ_TARGET)" FUZZ_INPUT="$(FUZZ_INPUT)" stack/setup/fuzz.sh

.PHONY: bench
bench: build plugins ## Measure what sentinel costs, beside the plain disk; ARGS='--only effect' for a part
	@target/release/sentinel-bench $(ARGS)

# Where the guests of the benchmark go that a toolchain of their own makes.
bench_guests := target/plugins/bench

.PHONY: bench-plugins
bench-plugins: build plugins ## Measure the sandbox beside bare wasmtime, with guests in Rust, JavaScript and Python
	@stack/setup/toolchains.sh js python
	@rm -rf $(bench_guests) && mkdir -p $(bench_guests)
	@cp -r plugins/examples/js-reconnect plugins/examples/python-log-doctor $(bench_guests)
	@for example in js-reconnect python-log-doctor; do \
		target/release/sentinel plugin build $(bench_guests)/$$example -o $(bench_guests)/$$example.wasm || exit 1; \
	done
	@cargo bench -p sentinel-sandbox --bench dispatch -- $(CURDIR)/target/plugins/dist/docker-restart.wasm \
		$(CURDIR)/$(bench_guests)/js-reconnect.wasm $(CURDIR)/$(bench_guests)/python-log-doctor.wasm

.PHONY: clean
clean: down ## Stop the stack and remove what was built
	@cargo clean --quiet
	@rm -rf stack/run
