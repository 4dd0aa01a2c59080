#!/usr/bin/env bash
# Trains with the largest micro-batch that `train` prints for a device of 2 GiB, and with one that is twice as large. The
# first must fit, and the second must end with an error that names a smaller one. Other commands end with an error too.
#
#     eval "$(tests/gpu/setup.sh)"
#     tests/gpu/fits.sh target/gpu/debug/block-transformer
set -euo pipefail
here=$(realpath "$(dirname "$0")")
binary=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
seq 1 400000 > text.txt
export DRY_CUDA_ZERO_READS=1 DRY_CUDA_MIB=2048 DRY_CUDA_LOG=counts

# train OUT BATCH FLAG...: three steps; output and errors go to files
train() {
  local out=$1 batch=$2
  shift 2
  "$binary" train --config "$here/layer-170m.toml" --corpus text.txt --byte-level --device cuda --plain --context 512 --steps 3 \
    --batch "$batch" --validate-every 100 --checkpoint-every 100 --log-every 100 --out "$out" "$@" \
    > output.txt 2> errors.txt
}

# commands other than train also end with an error: one panics inside, the other reads logits that were never computed
for command in "parity $here/../golden" "generate --checkpoint small --prompt 1"; do
  [ -d small ] || "$binary" train --preset debug-block --corpus text.txt --byte-level --batch 2 \
    --context 32 --device cuda --plain --steps 1 --out small > output.txt 2> errors.txt
  if DRY_CUDA_MIB=2 "$binary" $command --device cuda > output.txt 2> errors.txt; then
    echo "$command runs in 2 MiB" >&2
    exit 1
  fi
  grep -qx 'error: the device has too little memory; .*' errors.txt || { tail -5 errors.txt >&2; exit 1; }
  if grep 'panicked' errors.txt >&2; then exit 1; fi
done

for precision in f32 bf16; do
  train "plan-$precision" 1 --precision "$precision" || { tail -5 errors.txt >&2; exit 1; }
  largest=$(sed -n 's/^largest micro-batch that fits into .*: //p' output.txt)
  if ! train "largest-$precision" "$largest" --precision "$precision"; then
    echo "$precision: the micro-batch $largest does not fit, but train printed it" >&2
    tail -5 errors.txt >&2
    exit 1
  fi
  peak=$(sed -n 's/^peak_bytes //p' counts)
  if train "over-$precision" $((2 * largest)) --precision "$precision"; then
    echo "$precision: the micro-batch $((2 * largest)) fits, so that $largest is not the largest" >&2
    exit 1
  fi
  grep -q 'error: --batch .*try micro-batches of' errors.txt || { tail -5 errors.txt >&2; exit 1; }
  if grep 'panicked' errors.txt >&2; then exit 1; fi
  echo "$precision: $largest sequences fit, with $peak bytes at most, and $((2 * largest)) do not"
done
