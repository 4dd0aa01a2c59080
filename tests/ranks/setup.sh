#!/usr/bin/env bash
# Installs what a build with the feature `mpi` and its tests need: Open MPI, and libclang for the bindings.
# With Debian's packages, as root or with sudo.
set -euo pipefail
has_clang() { ls /usr/lib/llvm-*/lib/libclang*.so* > /dev/null 2>&1 || [ -n "${LIBCLANG_PATH:-}" ]; }
if command -v mpirun > /dev/null && command -v mpicc > /dev/null && has_clang; then exit 0; fi
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
  libopenmpi-dev openmpi-bin libclang-dev procps > /dev/null
mpirun --version > /dev/null
