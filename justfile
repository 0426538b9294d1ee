# The usual commands; `just` alone lists them. Each is a line that can be typed as well.
# https://just.systems

set shell := ["bash", "-euo", "pipefail", "-c"]

_default:
    @just --list --unsorted

# The program, optimised: target/release/procmemfs
build:
    cargo build --release

# Install it for all users, where mount(8) finds it
install root="/usr/local":
    cargo install --path . --locked --root {{ quote(root) }}

# All tests: units, real mounts, and the examples in the documentation
test *arguments:
    cargo test {{ arguments }}

# Units alone, on fake processes: no mount, a few seconds
unit filter="":
    cargo test --lib --bins {{ quote(filter) }}

# Real mounts with real tools, those whose name contains the filter (as root nothing is skipped)
mount filter="":
    cargo test --test mount -- {{ quote(filter) }}

# The examples in the documentation of the library
doctest:
    cargo test --doc

# Format, lints, and links in the documentation: as the gate has them
lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS='-D warnings' cargo doc --no-deps

# Licences, sources and advisories of dependencies (takes cargo-deny)
deny:
    cargo deny --locked check

# The documentation of the library, in a browser
docs:
    cargo doc --no-deps --open

# Benchmarks of units; those whose name contains the filter
bench filter="":
    cargo bench --bench units -- {{ quote(filter) }}

# The fuzzer on its corpus and some thousand inputs, always the same
fuzz-short:
    fuzz/run short

# The fuzzer, so many minutes for each target
fuzz-long minutes="10":
    fuzz/run long {{ quote(minutes) }}

# Models of the concurrency: many orders of the steps of threads
models filter="models":
    RUSTFLAGS='--cfg shuttle' cargo test --lib --profile models --target-dir target/shuttle {{ quote(filter) }}

# A tour: a program, its memory as files, and tools that look at it
tour:
    cargo run --example tour

# The pictures in docs/ (as root; takes the Python package `rich`)
pictures: build
    docs/pictures/modules.py
    docs/pictures/demo.py target/release/procmemfs

# All that must hold before a change is taken (Debian 12, as root; it installs what it lacks)
gate:
    bash .ci/run
