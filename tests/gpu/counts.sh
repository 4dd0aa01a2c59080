#!/usr/bin/env bash
# Counts what one training step and one decoded block of four tokens do on CUDA: kernel launches, uploads, reads and
# synchronisations. The driver of this folder computes nothing, so no GPU is needed.
#
#     eval "$(tests/gpu/setup.sh)"
#     tests/gpu/counts.sh target/gpu/debug/block-transformer [PRESET...] > counts.txt
#
# A count is the difference of a longer and a shorter run. The binary must be built without autotune
# (feature `gpu-tests`); then the counts are the same in every run.
set -euo pipefail
binary=$(realpath "$1")
shift
presets=("${@:-debug-block}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
seq 1 4000 > text.txt
export DRY_CUDA_ZERO_READS=1

# run LOG COMMAND...: runs a command, and writes the counts to LOG
run() {
  local log=$1
  shift
  if ! DRY_CUDA_LOG=$log "$binary" "$@" > output.txt 2> errors.txt; then
    tail -5 errors.txt >&2
    exit 1
  fi
}

# rates LABEL UNITS LOG1 LOG2: the differences of two logs per unit
rates() {
  awk -v label="$1" -v units="$2" '
    /^(launches|host_to_device|device_to_host|device_to_device|synchronisations|allocations|graph_replays|refused_launches) / {
      if (FNR == NR) first[$1] = $2
      else printf "%s %s %.2f\n", label, $1, ($2 - first[$1]) / units
    }' "$3" "$4"
}

for preset in "${presets[@]}"; do
  train=(train --preset "$preset" --corpus text.txt --byte-level --batch 4 --context 128 --device cuda --plain
    --validate-every 100 --checkpoint-every 100 --log-every 100)
  run two.log "${train[@]}" --steps 2 --out two
  run six.log "${train[@]}" --steps 6 --out six
  rates "$preset train_step" 4 two.log six.log
  generate=(generate --checkpoint two --prompt "1 2 3 4" --ignore-eos --greedy --device cuda)
  run short.log "${generate[@]}" --max-tokens 16
  run long.log "${generate[@]}" --max-tokens 48
  rates "$preset block_of_4" 8 short.log long.log
done
