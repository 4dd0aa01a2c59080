"""A process with one model in one engine. It reads requests as lines of JSON, and answers each with a line."""

import json
import os
import sys
import time


class CTranslate2:
    """CTranslate2's `Generator`"""

    def __init__(self, path, weights, threads):
        import ctranslate2

        kind = {"f32": "float32", "int8": "int8"}[weights]
        self.generator = ctranslate2.Generator(
            path, device="cpu", compute_type=kind, inter_threads=1, intra_threads=threads
        )
        self.version = ctranslate2.__version__

    def reserve(self, batch, length):
        """CTranslate2 allocates its caches as they grow."""

    def generate(self, prompts, new):
        """Returns the greedy tokens of each prompt, and the seconds until each step was complete."""
        from model import token

        texts = [[token(index) for index in row] for row in prompts]
        ends = {}

        def callback(result):
            ends[result.step] = time.perf_counter()
            return False

        start = time.perf_counter()
        results = self.generator.generate_batch(
            texts,
            max_length=new,
            min_length=new,
            beam_size=1,
            sampling_topk=1,
            include_prompt_in_result=False,
            callback=callback,
        )
        times = [ends[step] - start for step in sorted(ends)]
        return [result.sequences_ids[0] for result in results], times


class Torch:
    """`GPTNeoXForCausalLM` of transformers in PyTorch"""

    def __init__(self, path, threads):
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch, self.transformers = torch, transformers
        model = transformers.GPTNeoXForCausalLM.from_pretrained(path, dtype=torch.float32)
        self.model = model.eval()
        self.version = f"{torch.__version__}, transformers {transformers.__version__}"

    def reserve(self, batch, length):
        """PyTorch allocates its caches as they grow."""

    def generate(self, prompts, new):
        """Returns the greedy tokens of each prompt, and the seconds until each step was complete."""
        torch = self.torch
        cache = self.transformers.DynamicCache(config=self.model.config)
        chosen, times = [], []
        with torch.inference_mode():
            start = time.perf_counter()
            ids = torch.tensor(prompts)
            for _ in range(new):
                output = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids = output.logits[:, -1].argmax(-1, keepdim=True)
                chosen.append(ids)
                times.append(time.perf_counter() - start)
        return torch.cat(chosen, 1).tolist(), times


def load(request):
    """Returns the engine that the first request names."""
    name, path, threads = request["engine"], request["path"], request["threads"]
    if name == "ctranslate2":
        return CTranslate2(path, request["weights"], threads)
    if name == "torch":
        return Torch(path, threads)
    from llama import Llama

    return Llama(request["modules"], path, threads, request["cache"])


def measure(engine, case, prompts):
    """Returns tokens per second, or the seconds until the first token."""
    new, batch = case["new"], case["batch"]
    engine.reserve(batch, case["prompt"] + new)
    engine.generate(prompts[:1], 1)  # warm-up
    _, times = engine.generate(prompts, new)
    if len(times) != new:
        raise RuntimeError(f"{len(times)} of {new} steps")
    if case["kind"] == "first":
        return times[0]
    if case["kind"] == "whole":
        return batch * new / times[-1]
    # the first step is the prompt, the second one the warm-up
    return batch * (new - 2) / (times[-1] - times[1])


def main():
    from model import prompts

    # libraries that print to stdout must not disturb the answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if engine is None:
                engine = load(request)
                answer = {"version": engine.version}
            else:
                case = request["case"]
                rows = prompts(case["batch"], case["prompt"], request["vocab"])
                if case["kind"] == "greedy":
                    engine.reserve(case["batch"], case["prompt"] + case["new"])
                    answer = {"tokens": engine.generate(rows, case["new"])[0]}
                else:
                    answer = {"value": measure(engine, case, rows)}
        except Exception as error:  # the other engines are still measured
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
