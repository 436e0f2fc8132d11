# make demo     builds kiln, and with it examples/hello; shows the image
# make test     every check and test; what is missing on the machine is skipped, unless CI is set
# make bench    kiln beside buildah (and docker, where an engine answers); writes bench/RESULTS.md;
#               then the frontend on very large files
# make fuzz     each fuzz target for FUZZ_SECONDS (10); needs a C++ compiler
# make build    target/release/kiln
# make packages installs the Debian packages that the tests use (as root)

CARGO ?= cargo
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
DENY := $(shell $(CARGO) deny --version >/dev/null 2>&1 && echo yes)
CXX_FOUND := $(shell command -v c++)
# How long each fuzz target runs.
FUZZ_SECONDS ?= 10
# Cases of each property test; twice as many as proptest's own number.
export PROPTEST_CASES ?= 512

.PHONY: help build demo test lint doc deny unit fuzz bench packages

help:
	@sed -n 's/^# //p' Makefile

build:
	$(CARGO) build --release --locked -p kiln

demo:
	@examples/hello/demo.sh

packages:
	@tests/support/packages.sh test

test: lint doc deny fuzz unit

lint:
	$(CARGO) fmt --all --check
	rustfmt --check --edition 2024 --config style_edition=2024 bench/measure.rs
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

deny:
ifeq ($(DENY),yes)
	$(CARGO) deny check licenses bans sources
else
	@echo "cargo-deny is not installed: licences and sources are not checked"
endif

unit:
ifeq ($(NEXTEST),yes)
	$(CARGO) test --workspace --doc --locked --quiet
	$(CARGO) nextest run --workspace --locked --no-fail-fast
else
	$(CARGO) test --workspace --locked --no-fail-fast
endif

fuzz:
ifneq ($(CXX_FOUND)$(CI),)
	fuzz/run.sh $(FUZZ_SECONDS)
else
	@echo "no C++ compiler is installed: nothing is fuzzed"
endif

bench:
	@bench/run.sh
	$(CARGO) bench -p kiln-frontend --locked
