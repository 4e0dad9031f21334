# Chappe. `make` lists what can be done.

# The build cache can be shared between clones: export CARGO_TARGET_DIR.
CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help run test check fmt clippy bench-cluster services services-down services-wipe cluster chaos crash bench autobahn helm-check helm-test

help: ## List the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and start everything in one process, data in ./chappe-data
	@scripts/require cargo cc
	$(CARGO) build --release --package chappe-server --package chappe-loadtest --no-default-features --bins
	exec $${CARGO_TARGET_DIR:-target}/release/chappe serve --channel general

test: ## Everything that CI runs; starts the servers that are missing, and stops what it started
	@scripts/require cargo cc python3 pip go1.26 $$(tests/services/services needs)
	$(MAKE) check
	tests/services/services run $(CARGO) test --workspace --no-fail-fast
	$(MAKE) helm-check BINARY=$${CARGO_TARGET_DIR:-target}/debug/chappe
	$(CARGO) doc --workspace --no-deps --quiet

check: fmt clippy ## Format and lints

fmt: ## Is everything formatted?
	$(CARGO) fmt --all --check

clippy: ## Lints, warnings denied
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

bench: ## Measure against bare programs; BENCH="--only fanout --quick" and the like narrow it
	@scripts/require cargo cc
	$(CARGO) build --profile dist --package chappe-server --package chappe-bench
	$(CARGO) run --quiet --profile dist --package chappe-bench -- $(BENCH)

bench-cluster: ## Measure a cluster on the real servers; BENCH="gaps publish latency" narrows it
	@scripts/require cargo cc libssl $$(tests/services/services needs)
	$(CARGO) build --release --package chappe-server
	tests/services/services run $(CARGO) bench --package chappe-tests --bench cluster -- $(BENCH)
	tests/services/services run $(CARGO) bench --package chappe-storage --features scylla --bench store_scylla

services: ## Start Kafka, Cassandra, Redis and S3 for the tests, on loopback
	@scripts/require $$(tests/services/services needs)
	@tests/services/services up
	@echo 'For a test by itself: eval "$$(tests/services/services env)"'

services-down: ## Stop them, keep their data
	@tests/services/services down

services-wipe: ## Stop them and delete their data, keep the downloads
	@tests/services/services wipe

cluster: ## A development cluster: servers, 3 brokers, 4 gateways; tests/cluster/cluster down ends it
	@scripts/require cargo cc libssl $$(tests/services/services needs)
	$(CARGO) build --package chappe-server
	tests/cluster/cluster up

chaos: ## 40 rounds of faults on a real cluster under load, each audited; CHAPPE_CHAOS_SEED, _FROM
	@scripts/require cargo cc libssl $$(tests/services/services needs)
	$(CARGO) build --release --package chappe-server
	$(CARGO) build --release --package chappe-loadtest
	CHAPPE_CHAOS_ROUNDS=$${CHAPPE_CHAOS_ROUNDS:-40} tests/services/services run \
		$(CARGO) test --release --package chappe-tests --test faults -- --nocapture

helm-check: ## Lint, render and validate the chart with Helm 3 and 4; BINARY=chappe reads what it renders
	@scripts/require python3 pip go1.26 flock
	tests/kubernetes/check $(if $(BINARY),--binary $(BINARY))

helm-test: ## The chart's whole life on a real control plane; compiles it the first time (half an hour)
	@scripts/require python3 pip go1.26 flock setsid openssl curl
	tests/kubernetes/lifecycle

crash: ## 30 rounds of kill -9 under load, each audited
	$(CARGO) build --package chappe-server --package chappe-loadtest
	CHAPPE_CRASH_ROUNDS=30 $(CARGO) test --package chappe-tests --test crash -- --nocapture

autobahn: ## Autobahn's WebSocket cases against the link (needs Python 2.7)
	tests/autobahn/run
