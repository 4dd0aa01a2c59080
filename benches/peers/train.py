#!/usr/bin/env python3
"""Measures training steps of this project and of PyTorch with transformers in turn."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import processor


def ours(binary, preset, batch, context, steps):
    """Returns the seconds of a step of this project."""
    with tempfile.TemporaryDirectory() as out:
        flags = ["--preset", preset, "--batch", batch, "--context", context, "--steps", steps, "--out", out]
        done = subprocess.run([binary, "bench", "train", *map(str, flags)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{binary}: {done.stderr}")
        results = json.loads((Path(out) / "results.json").read_text())
    row = next(row for row in results["rows"] if row["model"] == preset)
    return batch * context / row["rate"]["median"]


def configuration(binary, preset):
    """Returns the configuration of a preset."""
    done = subprocess.run([binary, "presets", "--show", preset], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{binary}: {done.stderr}")
    return json.loads(done.stdout)


def neox(stack, vocab_size, positions):
    """Returns the configuration for transformers of a stack of GPT-NeoX layers."""
    from transformers import GPTNeoXConfig

    keys = ["hidden_size", "num_hidden_layers", "num_attention_heads", "rotary_pct", "rotary_emb_base", "layer_norm_eps"]
    return GPTNeoXConfig(
        vocab_size=vocab_size,
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=None,
        intermediate_size=4 * stack["hidden_size"],
        use_parallel_residual=stack["use_parallel_residual"],
        **{key: stack[key] for key in keys},
    )


def vanilla_loss(config):
    """Returns a model with random weights, and its loss on token ids `[batch, time]`."""
    from transformers import GPTNeoXForCausalLM

    model = GPTNeoXForCausalLM(neox(config, config["vocab_size"], config["max_position_embeddings"]))
    return model, lambda ids: model(ids, labels=ids, use_cache=False).loss


def block_loss(config):
    """The same for a Block Transformer with a lookup embedder and a prefix token decoder."""
    import torch
    from transformers import GPTNeoXForCausalLM, GPTNeoXModel

    embedder, context, tokens = (config[key] for key in ("embedder", "block_decoder", "token_decoder"))
    if embedder["cls"] != "lookup" or tokens.get("decoding_strategy") != "prefix":
        sys.exit("--preset: PyTorch has vanilla models, and block models with a lookup embedder and a prefix")
    length, vectors, vocab = config["block_length"], tokens["expansion_ratio"], config["vocab_size"]
    model = torch.nn.ModuleDict({
        "embedder": torch.nn.Embedding(vocab, embedder["hidden_size"]),
        # the block decoder has no token table of its own
        "block_decoder": GPTNeoXModel(neox(context, 1, config["max_position_embeddings"])),
        "expansion": torch.nn.Linear(context["hidden_size"], vectors * tokens["hidden_size"]),
        "token_decoder": GPTNeoXForCausalLM(neox(tokens, vocab, vectors + length)),
    })

    def loss(ids):
        batch, time_ = ids.shape
        blocks = ids.reshape(batch, time_ // length, length)
        embedded = model["embedder"](blocks[:, :-1]).flatten(2)  # [batch, n - 1, d]
        states = model["block_decoder"](inputs_embeds=embedded, use_cache=False).last_hidden_state
        prefix = model["expansion"](states).reshape(-1, vectors, tokens["hidden_size"])
        targets = blocks[:, 1:].reshape(-1, length)
        decoder = model["token_decoder"]
        inputs = torch.cat([prefix, decoder.get_input_embeddings()(targets[:, :-1])], 1)
        hidden = decoder.gpt_neox(inputs_embeds=inputs, use_cache=False).last_hidden_state[:, vectors - 1 :]
        logits = decoder.get_output_embeddings()(hidden)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return model, loss


class Torch:
    """A training step with the recipe of this project: the mean loss, clipping to norm 1, AdamW."""

    def __init__(self, config, threads):
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch, self.vocab_size = torch, config["vocab_size"]
        self.model, self.loss = block_loss(config) if "block_length" in config else vanilla_loss(config)
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
        self.version = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"

    def step(self, batch, context):
        ids = self.torch.randint(self.vocab_size, (batch, context))
        start = time.perf_counter()
        self.loss(ids).backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, help="program of this project")
    parser.add_argument("--preset", default="vanilla-160m")
    parser.add_argument("--batch", default=1, type=int, help="sequences per step")
    parser.add_argument("--context", default=1024, type=int, help="tokens per sequence")
    parser.add_argument("--steps", default=3, type=int, help="counted steps per round, after one step of warm-up")
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--threads", default=2, type=int, help="threads of PyTorch")
    arguments = parser.parse_args()
    batch, context, steps = arguments.batch, arguments.context, arguments.steps
    torch = Torch(configuration(arguments.binary, arguments.preset), arguments.threads)
    print(f"{arguments.preset}, {batch} x {context} tokens, f32, {processor()}; {torch.version}", flush=True)
    mine, theirs = [], []
    for number in range(1, arguments.rounds + 1):
        mine.append(ours(arguments.binary, arguments.preset, batch, context, steps))
        theirs.append(statistics.median([torch.step(batch, context) for _ in range(1 + steps)][1:]))
        print(f"round {number}: this project {mine[-1]:.2f} s, PyTorch {theirs[-1]:.2f} s per step", flush=True)
    rates = [batch * context / statistics.median(seconds) for seconds in (mine, theirs)]
    ratio = statistics.median(b / a for a, b in zip(mine, theirs))
    print(f"medians: this project {rates[0]:.0f} tokens/s, PyTorch {rates[1]:.0f} tokens/s; ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
