#!/usr/bin/env bash
# Counts the launches from which the cost model (crates/cost) predicts those of other models:
#
#     eval "$(tests/gpu/setup.sh)"
#     tests/gpu/launches.sh target/gpu/debug/block-transformer > crates/cost/launches.toml
#
# Counts models with one and two layers in each stack, as counts.sh does, and fits launches that are linear in the layers.
# Fails if a count is more than 3% from the fit. Takes about half an hour. With a second argument, a folder, counts are
# kept there, and those already there are not repeated.
set -euo pipefail
binary=$(realpath "$1")
if [ $# -gt 1 ]; then
  mkdir -p "$2"
  work=$(realpath "$2")
else
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
cd "$work"
export DRY_CUDA_ZERO_READS=1
[ -s text.txt ] || seq 1 40000 > text.txt

# block NAME CONTEXT-LAYERS TOKEN-LAYERS and vanilla NAME LAYERS [WIDTH HEADS]: stacks of the 85M models
block() {
  cat > "$1.toml" << MODEL
preset = "block-170m"
[model]
vocab_size = 512
block_length = 4
embedder = { cls = "lookup", hidden_size = 192, projection_method = "concat" }
block_decoder = { hidden_size = 768, num_hidden_layers = $2, num_attention_heads = 12 }
token_decoder = { cls = "gpt-neo-x", decoding_strategy = "prefix", expansion_ratio = 2, hidden_size = 768, num_hidden_layers = $3, num_attention_heads = 12 }
MODEL
}
vanilla() {
  cat > "$1.toml" << MODEL
preset = "vanilla-160m"
[model]
vocab_size = 512
hidden_size = ${3:-768}
num_hidden_layers = $2
num_attention_heads = ${4:-12}
MODEL
}
for context in 1 2; do
  for token in 1 2; do block "block-$context-$token" "$context" "$token"; done
  vanilla "vanilla-$context-0" "$context"
done
vanilla narrow 1 64 2

# run LOG COMMAND...: runs a command, and writes its number of launches to LOG
run() {
  local log=$1
  shift
  [ -s "$log" ] && return
  if ! DRY_CUDA_LOG=$log.counts "$binary" "$@" > output.txt 2> errors.txt; then
    tail -5 errors.txt >&2
    exit 1
  fi
  awk '$1 == "launches" { print $2 }' "$log.counts" > "$log"
}

# difference LOG1 LOG2 UNITS: launches per unit, rounded: a run can have one launch more or less at its end
difference() {
  awk -v units="$3" 'FNR == NR { first = $1; next } { printf "%d\n", ($1 - first) / units + 0.5 }' "$1" "$2"
}

# step MODEL PRECISION BATCH CONTEXT MICRO-BATCHES: launches of a training step
step() {
  local name="$1-$2-$3-$4-$5" steps
  for steps in 2 6; do
    run "$name-$steps" train --config "$1.toml" --precision "$2" --batch "$3" --context "$4" --accumulate "$5" \
      --corpus text.txt --byte-level --device cuda --plain --validate-every 100 --checkpoint-every 100 \
      --log-every 100 --steps "$steps" --out "$name-out-$steps"
  done
  difference "$name-2" "$name-6" 4
}

# step_of MODEL PRECISION: launches of a step of one micro-batch
step_of() { step "$1" "$2" 4 256 1; }

# update MODEL PRECISION: launches of a step that a second micro-batch does not repeat
update() {
  local one two
  one=$(step "$1" f32 4 256 1)
  two=$(step "$1" f32 4 256 2)
  echo $((2 * one - two))
}

# decode MODEL PRECISION PROMPT TOKENS [SEQUENCES]: generates after two steps of training in f32
decode() {
  step "$1" f32 4 256 1 > /dev/null
  local prompts=() sequence
  for sequence in $(seq "${5:-1}"); do prompts+=(--prompt "$(seq -s ' ' "$sequence" $(($3 + sequence - 1)))"); done
  run "$1-decode-$2-$3-$4-${5:-1}" generate --checkpoint "$1-f32-4-256-1-out-2" "${prompts[@]}" --ignore-eos \
    --greedy --device cuda --no-graph --weights "$2" --cache "$2" --max-tokens "$4"
}

# decoding MODEL PRECISION: launches of four decoded tokens of three sequences, after about 90 tokens. One sequence has
# fewer launches, because its tensors have one row, which needs no padding.
decoding() {
  decode "$1" "$2" 30 16 3
  decode "$1" "$2" 30 48 3
  difference "$1-decode-$2-30-16-3" "$1-decode-$2-30-48-3" 8
}

# prefill MODEL PRECISION: launches of a chunk of a prompt, of at most 2048 positions. The longer prompt has one chunk more:
# 3092 tokens against 692, or 10,092 (2523 blocks).
prefill() {
  local numbers=800
  case $1 in block-*) numbers=2240 ;; esac
  decode "$1" "$2" 200 16
  decode "$1" "$2" "$numbers" 16
  difference "$1-decode-$2-200-16-1" "$1-decode-$2-$numbers-16-1" 1
}

# fit COUNT PRECISION MODEL...: the fit of COUNT, a function, as TOML. The slope of a stack is the mean over the models that
# differ in it only.
fit() {
  local count=$1 precision=$2 model counts=
  shift 2
  for model in "$@"; do counts+="$model $("$count" "$model" "$precision")"$'\n'; done
  awk -F '[ -]' -v count="${count%_of}" '
    function of(context, token) { return (context, token) in n ? n[context, token] : 0 }
    NF == 4 { n[$2, $3] = $4; sum += $4; models++; context_layers += $2; token_layers += $3 }
    END {
      if (models == 4) {
        context = (n[2, 1] - n[1, 1] + n[2, 2] - n[1, 2]) / 2
        token = (n[1, 2] - n[1, 1] + n[2, 2] - n[2, 1]) / 2
      } else {
        context = of(2, 0) + of(2, 1) + of(2, 2) - of(1, 0) - of(1, 1)
        # an update does the same for a layer of each stack, and a prefill runs one stack only
        if ((2, 2) in n) { context /= 2; token = context }
      }
      base = (sum - context * context_layers - token * token_layers) / models
      printf "%s = { base = %g, context = %g, token = %g }\n", count, base, context, token
      for (model in n) {
        split(model, layers, SUBSEP)
        fitted = base + context * layers[1] + token * layers[2]
        off = (fitted - n[model]) / n[model]
        if (off > 0.03 || off < -0.03) {
          printf "%s of %s and %s layers: counted %d, fitted %g\n", count, layers[1], layers[2], n[model], fitted > "/dev/stderr"
          bad = 1
        }
      }
      exit bad
    }' <<< "$counts"
}

echo "# Launches on CUDA, counted by tests/gpu/launches.sh. Each is linear in the layers of the context stack (the block"
echo "# decoder, or the only stack) and of the token decoder. A \`step\` has one micro-batch, and every further one repeats"
echo "# all but the \`update\`; \`decoding\` is that of four tokens, and \`prefill\` that of a chunk of a prompt."
for precision in f32 bf16; do
  # 12 heads and 4 sequences of 1024 positions have scores of 4 parts of 64 MiB; 8192 sequences of 32 tokens have 3 parts
  # of 2^25 logits, as the tokenizer of bytes has a vocabulary of 320
  whole=$(step vanilla-1-0 "$precision" 4 256 1)
  parts=$(step vanilla-1-0 "$precision" 4 1024 1)
  small=$(step narrow "$precision" 4 32 1)
  large=$(step narrow "$precision" 8192 32 1)
  echo
  echo "[$precision]"
  echo "attention_part = $(awk "BEGIN { print ($parts - $whole) / 3 }")"
  echo "loss_part = $(awk "BEGIN { print ($large - $small) / 2 }")"
  for family in block vanilla; do
    if [ $family = block ]; then
      all=(block-1-1 block-2-1 block-1-2 block-2-2)
      some=(block-1-1 block-2-2)
      context=(block-1-1 block-2-1)
    else
      all=(vanilla-1-0 vanilla-2-0)
      some=("${all[@]}")
      context=("${all[@]}")
    fi
    echo
    echo "[$precision.$family]"
    fit step_of "$precision" "${all[@]}"
    fit update "$precision" "${some[@]}"
    fit decoding "$precision" "${all[@]}"
    fit prefill "$precision" "${context[@]}"
  done
done
