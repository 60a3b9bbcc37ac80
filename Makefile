# `make help` lists the commands.
SHELL := /bin/bash
CARGO ?= cargo
FUZZ_SECONDS ?= 30

.PHONY: help build test setup needs clients fmt lint unit bench fuzz demo sim crash sim-fresh sim-mutants

help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build the release binary: target/release/fluxgate
	$(CARGO) build --release

demo: ## Show the main job in about 30 seconds
	$(CARGO) run --profile demo -- demo

test: needs clients fmt lint sim-fresh unit ## Check format and lints, run all tests; needs what `make setup` installs

# What the tests need and this machine lacks, as Debian packages.
MISSING = $(strip $(shell \
  command -v influxd >/dev/null || echo influxdb; command -v influx >/dev/null || echo influxdb-client; \
  /usr/bin/python3 -c "import influxdb" 2>/dev/null || echo python3-influxdb; \
  command -v cc >/dev/null || echo gcc libc6-dev; PATH="$$PATH:/sbin:/usr/sbin" command -v mkfs.ext4 >/dev/null || echo e2fsprogs; \
  command -v curl >/dev/null || echo curl; command -v openssl >/dev/null || echo openssl; \
  /usr/bin/python3 -c "import ensurepip" 2>/dev/null || echo python3-venv; command -v npm >/dev/null || echo nodejs npm; \
  PATH="$$PATH:/sbin:/usr/sbin"; for program in wget haproxy nginx prometheus icinga2 collectd; do \
  command -v $$program >/dev/null || echo $$program | sed 's/^nginx/nginx-light/; s/^icinga2/icinga2-bin/; s/^collectd/collectd-core/'; done))

setup: ## Install the Debian packages the tests need, where missing (as root)
	@missing="$(MISSING)"; [ -z "$$missing" ] || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }
	@rustup component list 2>/dev/null | grep -q 'rustfmt.*installed' || rustup component add rustfmt clippy || true

needs:
	@missing="$(MISSING)"; [ -z "$$missing" ] || \
	{ echo "The tests need these Debian packages: $$missing. Run \`make setup\`." >&2; exit 1; }

clients: ## Install the clients of InfluxDB that the tests write with, in target/clients (from PyPI and npm)
	@tests/clients/install.sh

fmt:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package fluxgate-sim --features sim --all-targets -- -D warnings
	sim/mutants.py --check

unit:
	@CARGO="$(CARGO)" tests/run_all.sh

bench: ## Measure writes, queries, admin requests, migration and faults (some 30 minutes; needs influxd); results in benches/baselines/
	benches/write_path.sh
	benches/query_path.sh
	benches/admin_path.sh
	benches/migration.sh
	benches/under_faults.sh

# SEEDS (default 1000) or MINUTES, FIRST; PROFILE (sim/src/plan.rs); SEED replays one with its trace and cuts it down.
sim: ## Try the promises on a simulated machine, 1000 seeds or as SEEDS=, MINUTES=, SEED= say
	$(CARGO) run -q --package fluxgate-sim --features sim --profile sim

# Others with each commit; the last line says from which seed on.
sim-fresh:
	@hash=$$(git rev-parse HEAD 2>/dev/null | cut -c1-8); \
	SEEDS=2000 FIRST=$$((16#$${hash:-0})) $(MAKE) --no-print-directory sim

sim-mutants: ## See the simulator find deliberate faults, one after the other (some minutes)
	CARGO="$(CARGO)" sim/mutants.py

# The tests of `kill -9`, with many rounds instead of few: each point at which the process can end, in turn. And power
# cuts (as root), a tenth as many on each file system.
crash: ROUNDS ?= 500
crash: ## Kill the real program ROUNDS times (default 500) and count what its clients had acknowledged
	CRASH_ROUNDS=$(ROUNDS) $(CARGO) test --test faults -- --nocapture rounds_of_crashes power_cut

fuzz: ## Run each fuzz target for FUZZ_SECONDS (default 30)
	fuzz/run.sh $(FUZZ_SECONDS)
