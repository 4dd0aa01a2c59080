#!/usr/bin/env bash
# Counts what one training step and one decoded block of four tokens do on CUDA: kernel launches, uploads, reads and
# synchronisations. The driver of this folder computes nothing, so no GPU is needed.
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

# one layer of each stack of block-170m
cat > layer-170m.toml << 'MODEL'
preset = "block-170m"
[model]
vocab_size = 512
block_length = 4
embedder = { cls = "lookup", hidden_size = 192, projection_method = "concat" }
block_decoder = { hidden_size = 768, num_hidden_layers = 1, num_attention_heads = 12 }
token_decoder = { cls = "gpt-neo-x", decoding_strategy = "prefix", expansion_ratio = 2, hidden_size = 768, num_hidden_layers = 1, num_attention_heads = 12 }
MODEL

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
    /^(launches|host_to_device|device_to_host|synchronisations|allocations|refused_launches) / {
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

# decoding CASE: counts of a decoded block of the checkpoint CASE-2
decoding() {
  local tokens
  for tokens in 16 48; do
    run "$tokens.log" generate --checkpoint "$1-2" --prompt "1 2 3 4" --ignore-eos --greedy --device cuda \
      --max-tokens "$tokens"
  done
  rates "$1.block" 8 16.log 48.log
}

{
  training debug-block --preset debug-block
  decoding debug-block
  training debug-block-bf16 --preset debug-block --precision bf16
  training debug-vanilla --preset debug-vanilla
  decoding debug-vanilla
  training layer-170m --config layer-170m.toml
  decoding layer-170m
} | tee counts.txt

awk '
  FNR == NR { if ($1 != "#" && NF == 3) limit[$1 " " $2] = $3; next }
  $2 == "refused_launches" && $3 > 0 { print "refused launches: " $0 > "/dev/stderr"; bad = 1 }
  ($1 " " $2) in limit && $3 > limit[$1 " " $2] {
    print $1 " " $2 " is " $3 ", more than the limit " limit[$1 " " $2] > "/dev/stderr"; bad = 1
  }
  END { exit bad }' "$here/limits.txt" counts.txt
