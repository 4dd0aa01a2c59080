#!/usr/bin/env bash
# Prints registers, stack and spilled bytes of this project's kernels at sm_90, as ptxas reports them, for
# one layer of each stack of block-170m in training and decoding. Fails when a kernel spills.
#
#     eval "$(tests/gpu/setup.sh)"
#     tests/gpu/registers.sh target/gpu/debug/block-transformer
set -euo pipefail
binary=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
seq 1 4000 > text.txt
export DRY_CUDA_ZERO_READS=1 DRY_CUDA_PTX=$work/ptx DRY_CUDA_LOG=$work/log
mkdir ptx
cat > model.toml << 'MODEL'
preset = "block-170m"
[model]
vocab_size = 512
block_length = 4
embedder = { cls = "lookup", hidden_size = 192, projection_method = "concat" }
block_decoder = { hidden_size = 768, num_hidden_layers = 1, num_attention_heads = 12 }
token_decoder = { cls = "gpt-neo-x", decoding_strategy = "prefix", expansion_ratio = 2, hidden_size = 768, num_hidden_layers = 1, num_attention_heads = 12 }
MODEL
{
  "$binary" train --config model.toml --corpus text.txt --byte-level --batch 1 --context 512 --device cuda --plain --steps 1 --out run
  for format in f32 bf16; do
    # a context of more than one part of keys
    "$binary" generate --checkpoint run --prompt "$(seq 1 100 | tr '\n' ' ')" --ignore-eos --greedy --device cuda \
      --max-tokens 8 --cache "$format"
  done
} > output.txt 2>&1 || { tail -5 output.txt >&2; exit 1; }

kernels='^(attend_few|attend_one|attend_part|combine|write|split_kernel|join_kernel|query_gradient|key_gradient|forward|backward|parameter_parts|adamw_kernel|squares|choose_kernel|next_occurrence|sum_of_occurrences)_'
echo "registers stack spill_stores spill_loads kernel"
for file in ptx/*; do
  name=$(sed -n 's/^.*\.entry \([A-Za-z0-9_]*\).*/\1/p;T;q' "$file")
  [[ $name =~ $kernels ]] || continue
  "$CUDA_PATH/bin/ptxas" -v -arch=sm_90a "$file" -o /dev/null 2>&1 | awk -v name="$name" '
    /bytes stack frame/ { stack = $1; stores = $5; loads = $9 }
    /Used/ { for (i = 1; i < NF; i++) if ($i == "Used") registers = $(i + 1) }
    END { print registers, stack, stores, loads, name }'
done | sort -k5 | tee registers.txt
awk '$3 + $4 > 0 { print "spills: " $5 > "/dev/stderr"; bad = 1 } END { exit bad }' registers.txt
