#!/usr/bin/env bash
# Builds the tests of the kernels for 64-bit ARM and runs them under QEMU, on any Linux machine. The first
# build takes about five minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
linker=aarch64-linux-gnu-gcc

# the toolchain of rust-toolchain.toml, or that of RUSTUP_TOOLCHAIN
missing=()
command -v qemu-aarch64 > /dev/null || missing+=("apt-get install qemu-user")
command -v $linker > /dev/null || missing+=("apt-get install gcc-aarch64-linux-gnu")
[ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || missing+=("rustup target add $target")
if [ ${#missing[@]} != 0 ]; then
  echo "tests/neon.sh: this machine lacks what these commands install:" >&2
  printf '  %s\n' "${missing[@]}" >&2
  exit 1
fi

export CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/neon
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$linker
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
cargo test --package block-transformer-kernels --features flex --target $target --locked "$@"
