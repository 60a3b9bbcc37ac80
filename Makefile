# `make help` lists the commands.
SHELL := /bin/bash
CARGO ?= cargo
FUZZ_SECONDS ?= 30

.PHONY: help build test setup fmt lint unit bench fuzz demo

help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build the release binary: target/release/fluxgate
	$(CARGO) build --release

demo: ## Show the main job in about 30 seconds
	$(CARGO) run --release -- demo

test: setup fmt lint unit ## Install what is missing, check format and lints, run all tests

setup: ## Install the Debian packages the tests need, where missing
	@missing=; command -v influxd >/dev/null || missing="influxdb"; command -v influx >/dev/null || missing="$$missing influxdb-client"; \
	/usr/bin/python3 -c "import influxdb" 2>/dev/null || missing="$$missing python3-influxdb"; \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; command -v mkfs.ext4 >/dev/null || missing="$$missing e2fsprogs"; \
	command -v curl >/dev/null || missing="$$missing curl"; command -v openssl >/dev/null || missing="$$missing openssl"; \
	[ -z "$$missing" ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; }
	@rustup component list 2>/dev/null | grep -q 'rustfmt.*installed' || rustup component add rustfmt clippy || true

fmt:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

unit:
	$(CARGO) test --workspace
	@# Each bench once, as a test: they cannot rot.
	$(CARGO) test --package fluxgate --bench '*'

bench: ## Measure writes, queries, admin requests and migration (some 25 minutes; needs influxd); results in benches/baselines/
	benches/write_path.sh
	benches/query_path.sh
	benches/admin_path.sh
	benches/migration.sh

fuzz: ## Run each fuzz target for FUZZ_SECONDS (default 30)
	fuzz/run.sh $(FUZZ_SECONDS)
