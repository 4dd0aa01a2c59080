#!/usr/bin/env bash
# Trains on two GPUs whose driver and NCCL compute nothing (driver.c, nccl.c), and counts the sums of gradients:
#
#     eval "$(tests/gpu/setup.sh)"
#     tests/gpu/replicas.sh target/gpu/debug/block-transformer
#
# Prints "CASE COUNTER VALUE", values per step and GPU, and fails when a value exceeds its limit in limits.txt, when a
# GPU is waited for between logged steps, or when the GPUs ask for different sums. Then the same runs must go through the
# host where NCCL is missing, and where no GPU can join.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
binary=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
seq 1 4000 > text.txt
export DRY_CUDA_ZERO_READS=1 DRY_CUDA_DEVICES=2

# training NAME MODEL STEPS: a run with its counts in NAME.cuda and NAME.nccl, and its output in NAME.txt
training() {
  local model=$2
  if ! DRY_CUDA_LOG=$1.cuda DRY_NCCL_LOG=$1.nccl "$binary" train $model --steps "$3" --out "$1" --corpus text.txt \
    --byte-level --batch 4 --context 128 --devices cuda:0,cuda:1 --plain --validate-every 100 --checkpoint-every 100 \
    --log-every 100 > "$1.txt" 2> "$1.errors"; then
    tail -5 "$1.errors" >&2
    exit 1
  fi
}

# connected CASE MODEL STEPS: counts of a step of each GPU with NCCL
connected() {
  local LD_LIBRARY_PATH=$CUDA_PATH/nccl:$LD_LIBRARY_PATH
  training "$1.short" "$2" 2
  training "$1.long" "$2" "$3"
  grep -q "by NCCL" "$1.long.txt"
  grep -qx "mismatches 0" "$1.long.nccl"
  local kind
  for kind in nccl cuda; do
    awk -v label="$1" -v units=$((2 * ($3 - 2))) '
      /^(launches|device_to_host|synchronisations|refused_launches|all_reduces|all_reduce_bytes) / {
        if (FNR == NR) first[$1] = $2
        else printf "%s %s %.2f\n", label, $1, ($2 - first[$1]) / units
      }' "$1.short.$kind" "$1.long.$kind"
  done
}

{
  connected debug-block-x2.step "--preset debug-block" 6
  connected layer-170m-x2.step "--config $here/layer-170m.toml" 4
} | tee counts.txt
"$here/limits.sh" counts.txt

training missing "--preset debug-block" 2
grep "gradients are summed in the memory of the process: .*libnccl" missing.txt
export DRY_NCCL_FAIL=1 LD_LIBRARY_PATH=$CUDA_PATH/nccl:$LD_LIBRARY_PATH
training refused "--preset debug-block" 2
grep "gradients are summed in the memory of the process: NCCL failed" refused.txt
