#!/usr/bin/env bash
# A run on wgpu:cpu that was ended after step 2 and resumed has the weights and losses of an uninterrupted one, to the bit.
#
#     eval "$(tests/gpu/setup.sh)"
#     tests/gpu/resume.sh target/gpu/debug/block-transformer
#
# The binary must be built without autotune (feature `gpu-tests`).
set -euo pipefail
binary=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
seq 1 4000 > text.txt

# run COMMAND...: runs the binary, and prints the end of what it says if it fails
run() {
  if ! "$binary" "$@" > output.txt 2>&1; then
    tail -5 output.txt >&2
    exit 1
  fi
}

run train --preset debug-block --corpus text.txt --byte-level --batch 2 --context 32 --steps 4 --device wgpu:cpu \
  --deterministic --plain --validate-every 100 --checkpoint-every 2 --log-every 4 --out whole
cp -r whole resumed
rm -r resumed/checkpoints/{step-000004,best}
run train --resume --out resumed --plain
cmp {whole,resumed}/checkpoints/step-000004/model.bpk
losses() { cut -d, -f1-4,7 "$1/metrics.csv"; }
cmp <(losses whole) <(losses resumed)
