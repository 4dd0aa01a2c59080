#!/usr/bin/env bash
# Counts what one training step and one decoded block of four tokens do on CUDA: kernel launches, uploads, reads,
# synchronisations and replayed graphs. The driver of this folder computes nothing, so no GPU is needed.
#
#     eval "$(tests/gpu/setup.sh)"
#     tests/gpu/counts.sh target/gpu/debug/block-transformer
#
# Prints "CASE COUNTER VALUE", and fails when a value exceeds its limit in limits.txt, or a launch is refused.
# A count is the difference of a longer and a shorter run. The binary must be built without autotune
# (feature `gpu-tests`); then the counts are the same in every run. Training in bf16 compiles the bf16 instance of each
# kernel.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
binary=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
seq 1 4000 > text.txt
export DRY_CUDA_ZERO_READS=1
# compiled kernels are kept between the runs, and compiled at least once
export XDG_CACHE_HOME=$work/cache

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
    /^(launches|host_to_device|device_to_host|synchronisations|allocations|graph_replays|refused_launches) / {
      if (FNR == NR) first[$1] = $2
      else printf "%s %s %.2f\n", label, $1, ($2 - first[$1]) / units
    }' "$3" "$4"
}

# training CASE FLAG...: counts of a training step; leaves a checkpoint in CASE-2
training() {
  local case=$1
  shift
  local train=(train "$@" --corpus text.txt --byte-level --batch 4 --context 128 --device cuda --plain
    --validate-every 100 --checkpoint-every 100 --log-every 100)
  local steps
  for steps in 2 6; do run "$steps.log" "${train[@]}" --steps "$steps" --out "$case-$steps"; done
  rates "$case.step" 4 2.log 6.log
  # additions of several threads to one address would make two runs differ; the scatter of the loss has one per address
  if grep -E '^kernel .*(atomic|shared_sum)' 6.log | grep -v ' scatter_add_atomic_kernel_' >&2; then exit 1; fi
}

# decoding CASE: counts of a decoded block of the checkpoint CASE-2, launched kernel by kernel, and replayed as a graph
decoding() {
  local tokens
  local generate=(generate --checkpoint "$1-2" --prompt "1 2 3 4" --ignore-eos --greedy --device cuda)
  for tokens in 16 48; do run "$tokens.log" "${generate[@]}" --no-graph --max-tokens "$tokens"; done
  rates "$1.block" 8 16.log 48.log
  # the fourth block is captured; all tokens are within the bound of one graph, 64 positions
  for tokens in 16 48; do run "$tokens.log" "${generate[@]}" --max-tokens "$tokens"; done
  rates "$1.graph" 8 16.log 48.log
  # three sequences, so that rows of tensors are padded
  generate+=(--prompt "5 6 7 8" --prompt "9 10 11 12")
  for tokens in 16 48; do run "$tokens.log" "${generate[@]}" --no-graph --max-tokens "$tokens"; done
  rates "$1.block-of-3" 8 16.log 48.log
  for tokens in 16 48; do run "$tokens.log" "${generate[@]}" --max-tokens "$tokens"; done
  rates "$1.graph-of-3" 8 16.log 48.log
}

{
  training debug-block --preset debug-block
  decoding debug-block
  training debug-block-bf16 --preset debug-block --precision bf16
  training debug-vanilla --preset debug-vanilla
  decoding debug-vanilla
  training layer-170m --config "$here/layer-170m.toml"
  decoding layer-170m
} | tee counts.txt

"$here/limits.sh" counts.txt
