#!/usr/bin/env python3
"""Measures training steps of this project and of PyTorch with transformers in turn, on a vanilla preset."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from model import Model
from peers import HERE, processor


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


class Torch:
    """A training step with the recipe of this project: the mean loss, clipping to norm 1, AdamW."""

    def __init__(self, path, threads):
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch = torch
        self.model = transformers.GPTNeoXForCausalLM.from_pretrained(path, dtype=torch.float32).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
        self.version = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"

    def step(self, batch, context):
        ids = self.torch.randint(self.model.config.vocab_size, (batch, context))
        start = time.perf_counter()
        self.model(ids, labels=ids, use_cache=False).loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, help="program of this project")
    parser.add_argument("--folder", default=HERE.parents[1] / "target/peers", type=Path, help="folder of the models")
    parser.add_argument("--preset", default="vanilla-160m")
    parser.add_argument("--batch", default=1, type=int, help="sequences per step")
    parser.add_argument("--context", default=1024, type=int, help="tokens per sequence")
    parser.add_argument("--steps", default=3, type=int, help="counted steps per round, after one step of warm-up")
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--threads", default=2, type=int, help="threads of PyTorch")
    arguments = parser.parse_args()
    batch, context, steps = arguments.batch, arguments.context, arguments.steps
    model = Model(arguments.folder, arguments.binary, arguments.preset)
    model.prepare()
    torch = Torch(str(model.exported), arguments.threads)
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
