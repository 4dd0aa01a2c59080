"""Makes the reference numbers beside this file: the EleutherAI harness over small random models.

    pip install lm-eval==0.4.13 torch==2.15.0 transformers==5.23.0
    python make.py made-up
    python make.py tasks DATA TOKENIZER.json

`made-up` scores the few items in made-up/, tokenized by bytes. `tasks` scores the first items of
the real task files in DATA (named as in made-up/) with the GPT-NeoX tokenizer, and writes numbers
but no texts.

Every weight follows from its name (see `weight`), so there is nothing to load. The vanilla model
is a Hugging Face GPTNeoXForCausalLM in the harness's HFLM. The block model is a direct implementation
of the architecture below, in the same HFLM with its own scoring of token ids. Both compute in f64.
"""

import json
import math
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval
import lm_eval.tasks
import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
HIDDEN, LAYERS, HEADS, ROTARY, EPS = 32, 2, 2, 0.25, 1e-5
BLOCK, PREFIX = 4, 2
EOS, PAD = 0, 1


# Weights


def weight(name, shape):
    """Uniform values from the parameter's name: SplitMix64 seeded with its FNV-1a hash."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit = (z >> np.uint64(40)).astype(np.float64) / 2**24 * 2 - 1
    if len(shape) > 1:
        values = unit * math.sqrt(6.75 / shape[1])
    elif name.endswith("weight"):
        values = 1 + 0.2 * unit
    else:
        values = 0.2 * unit
    return torch.from_numpy(values.astype(np.float32).astype(np.float64).reshape(shape))


# Models


def vanilla_model(vocab, context):
    config = GPTNeoXConfig(
        vocab_size=vocab,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * HIDDEN,
        max_position_embeddings=context,
        rotary_pct=ROTARY,
        layer_norm_eps=EPS,
        hidden_act="gelu",
        tie_word_embeddings=False,
    )
    model = GPTNeoXForCausalLM(config).to(torch.float64).eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            published = name.replace("lm_head", "embed_out")
            parameter.copy_(weight(published, tuple(parameter.shape)))
    return model


class BlockModel:
    """Lookup embedder, block decoder, token decoder behind two prefix vectors."""

    def __init__(self, vocab):
        self.vocab = vocab
        self.known = {}

    def w(self, name, *shape):
        if name not in self.known:
            self.known[name] = weight(name, shape)
        return self.known[name]

    def linear(self, x, name, wide):
        width = x.shape[-1]
        return x @ self.w(name + ".weight", wide, width).T + self.w(name + ".bias", wide)

    def norm(self, x, name):
        x = x - x.mean(-1, keepdim=True)
        x = x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS)
        return x * self.w(name + ".weight", x.shape[-1]) + self.w(name + ".bias", x.shape[-1])

    def stack(self, x, name):
        """A GPT-NeoX stack over x [rows, time, HIDDEN], causal, positions from 0."""
        rows, time, width = x.shape
        head = width // HEADS
        rotated = int(head * ROTARY)
        powers = torch.arange(0, rotated, 2, dtype=torch.float32) / rotated
        angles = torch.arange(time, dtype=torch.float32)[:, None] * (1 / 10000**powers)[None]
        cos, sin = angles.cos().double(), angles.sin().double()
        hidden = torch.ones(time, time, dtype=torch.bool).triu(1)

        def rotate(t):
            a, b, rest = t.split([rotated // 2, rotated // 2, head - rotated], -1)
            return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)

        for i in range(LAYERS):
            layer = f"{name}.layers.{i}."
            qkv = self.linear(
                self.norm(x, layer + "input_layernorm"), layer + "attention.query_key_value", 3 * width
            )
            q, k, v = qkv.view(rows, time, HEADS, 3, head).permute(3, 0, 2, 1, 4)
            scores = rotate(q) @ rotate(k).transpose(-1, -2) / math.sqrt(head)
            seen = scores.masked_fill(hidden, -math.inf).softmax(-1) @ v
            attended = self.linear(
                seen.transpose(1, 2).reshape(rows, time, width), layer + "attention.dense", width
            )
            fed = self.linear(
                self.norm(x, layer + "post_attention_layernorm"), layer + "mlp.dense_h_to_4h", 4 * width
            )
            fed = fed * 0.5 * (1 + torch.erf(fed / math.sqrt(2)))
            x = x + attended + self.linear(fed, layer + "mlp.dense_4h_to_h", width)
        return self.norm(x, name + ".final_layer_norm")

    def log_probs(self, context, continuation):
        """Log-probabilities [len(continuation), vocab]. The context is padded on the left to end at
        a block boundary; the continuation starts a block."""
        context = [PAD] * (-len(context) % BLOCK) + context
        padded = continuation + [PAD] * (-len(continuation) % BLOCK)
        ids = torch.tensor(context + padded).view(-1, BLOCK)
        table = self.w("embedder.embeddings.weight", self.vocab, HIDDEN // BLOCK)
        blocks = table[ids].reshape(1, -1, HIDDEN)
        contexts = self.stack(blocks, "block_decoder.gpt_neox")[0]
        first = len(context) // BLOCK
        contexts, ids = contexts[first - 1 : -1], ids[first:]
        expand = self.w("token_decoder.expansion_layer.weight", HIDDEN * PREFIX, HIDDEN, 1)[..., 0]
        bias = self.w("token_decoder.expansion_layer.bias", HIDDEN * PREFIX)
        prefix = (contexts @ expand.T + bias).view(-1, PREFIX, HIDDEN)
        tokens = self.w("token_decoder.gpt_neox.embed_in.weight", self.vocab, HIDDEN)[ids[:, :-1]]
        states = self.stack(torch.cat([prefix, tokens], 1), "token_decoder.gpt_neox")
        states = states[:, PREFIX - 1 :].reshape(-1, HIDDEN)[: len(continuation)]
        head = self.w("token_decoder.embed_out.weight", self.vocab, HIDDEN)
        return (states @ head.T).log_softmax(-1)


class BlockLM(HFLM):
    """The harness's model with token ids scored by a `BlockModel`."""

    block = None

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None):
        found = []
        for _, context, continuation in requests:
            count = len(continuation)
            ids = (context + continuation)[-(self.max_length + 1) :]
            scores = self.block.log_probs(ids[:-count], continuation)
            targets = torch.tensor(continuation)
            total = scores.gather(1, targets[:, None]).sum().item()
            found.append((total, bool((scores.argmax(-1) == targets).all())))
        return found


# Tasks

TASKS = {
    "hellaswag": ("hellaswag/hellaswag.yaml", "validation"),
    "piqa": ("piqa/piqa.yaml", "validation"),
    "arc-easy": ("arc/arc_easy.yaml", "test"),
    "lambada": ("lambada/lambada_openai.yaml", "test"),
    "wikitext": ("wikitext/wikitext.yaml", "test"),
    "winogrande": ("winogrande/default.yaml", "validation"),
    "sciq": ("sciq/sciq.yaml", "test"),
}


def rows(task, data):
    """The rows the harness would have downloaded."""
    read = lambda name: [json.loads(line) for line in (data / name).open(encoding="utf-8")]
    if task == "hellaswag":
        return read("hellaswag_val.jsonl")
    if task == "piqa":
        labels = (data / "piqa_valid-labels.lst").read_text().split()
        pairs = zip(read("piqa_valid.jsonl"), labels, strict=True)
        return [row | {"label": int(label)} for row, label in pairs]
    if task == "arc-easy":
        return [arc(row) for row in read("ARC-Easy-test.jsonl")]
    if task == "lambada":
        return read("lambada_test.jsonl")
    if task == "winogrande":
        return read("winogrande_xl_dev.jsonl")
    if task == "sciq":
        return json.loads((data / "sciq_test.json").read_text(encoding="utf-8"))
    # as EleutherAI/wikitext_document_level: a page ends where the next title stands
    pages, page = [], []
    for line in (data / "wiki.test.raw").read_text(encoding="utf-8").split("\n"):
        heading = line.replace("= = =", "===").replace("= =", "==").strip()
        if heading.startswith("= ") and heading.endswith(" ="):
            pages, page = pages + ["\n".join(page)], []
        page.append(line)
    pages = [page for page in pages if page.strip()] + ["\n".join(page)]
    return [{"page": page} for page in pages]


def arc(row):
    if isinstance(row["question"], dict):
        choices = row["question"]["choices"]
        texts, labels = [c["text"] for c in choices], [c["label"] for c in choices]
        return {
            "question": row["question"]["stem"],
            "choices": {"text": texts, "label": labels},
            "answerKey": row["answerKey"],
        }
    labels = "ABCDE"[: len(row["choices"])]
    return {
        "question": row["question"],
        "choices": {"text": row["choices"], "label": list(labels)},
        "answerKey": labels[row["gold"]],
    }


def evaluate(lm, task, data, limit):
    """The harness's scores, and what it found for each item."""
    path, split = TASKS[task]
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(task, data)))
        config |= {
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {split: str(file)}},
            "training_split": None,
            "validation_split": split if split == "validation" else None,
            "test_split": split if split == "test" else None,
        }
        results = lm_eval.simple_evaluate(
            lm, tasks=[config], limit=limit, log_samples=True, num_fewshot=0
        )
    name = config["task"]
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    found = {"items": len(samples), "scores": {}, "log_likelihoods": []}
    for key, value in results["results"][name].items():
        if key.endswith(",none") and key != "sample_len,none":
            key = key.removesuffix(",none")
            found["scores"][key] = value if isinstance(value, float) else None
    for sample in samples:
        kept = sample["filtered_resps"]
        totals = kept if task == "wikitext" else [total for total, _ in kept]
        found["log_likelihoods"].append([round(total, 7) for total in totals])
    if task == "lambada":
        found["greedy"] = [sample["filtered_resps"][0][1] for sample in samples]
    return found, samples


def models_of(tokenizer, vocab, context):
    vanilla = vanilla_model(vocab, context)
    settings = dict(tokenizer=tokenizer, max_length=context, batch_size=4, device="cpu")
    block = BlockLM(pretrained=vanilla, **settings)
    block.block = BlockModel(vocab)
    return {"vanilla": HFLM(pretrained=vanilla, **settings), "block": block}


def byte_tokenizer():
    """Byte b is id b + 2."""
    marks = [b for b in range(256) if chr(b).isprintable() and chr(b) not in " \xa0\xad"]
    others = iter(range(256, 512))
    letters = [chr(b) if b in marks else chr(next(others)) for b in range(256)]
    vocab = {"<|endoftext|>": EOS, "<|padding|>": PAD}
    vocab |= {letter: byte + 2 for byte, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    assert tokenizer.encode("a é\n").ids == [byte + 2 for byte in "a é\n".encode()]
    return fast(tokenizer_object=tokenizer)


def fast(**source):
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(bos_token=end, eos_token=end, unk_token=end, **source)


def write(name, value):
    text = json.dumps(value, indent=None, ensure_ascii=False)
    # an item a line
    for bracket in ('"log_likelihoods": [', '"prompts": [', '"scores": {', '"greedy": ['):
        text = text.replace(bracket, "\n" + bracket)
    (HERE / name).write_text(text.replace("], [", "],\n[") + "\n", encoding="utf-8")


def main():
    torch.set_num_threads(2)
    # versions that produced the recorded values
    versions = {"lm_eval": lm_eval.__version__, "torch": torch.__version__}
    match sys.argv[1:]:
        case ["made-up"]:
            context, vocab = 96, 260
            lms = models_of(byte_tokenizer(), vocab, context)
            found = {"versions": versions, "context": context, "vocab": vocab, "tasks": {}}
            for task in TASKS:
                entry = {}
                for family, lm in lms.items():
                    entry[family], samples = evaluate(lm, task, HERE / "made-up", None)
                prompts = [
                    [list(arguments) for arguments in sample["arguments"]] for sample in samples
                ]
                entry["prompts"] = prompts
                found["tasks"][task] = entry
            write("made-up.json", found)
        case ["tasks", data, tokenizer, *only]:
            context, vocab = 512, 50304
            lms = models_of(fast(tokenizer_file=tokenizer), vocab, context)
            for task in only or TASKS:
                limit = None if task == "wikitext" else 200
                found = {"versions": versions, "context": context, "vocab": vocab}
                for family, lm in lms.items():
                    found[family], _ = evaluate(lm, task, Path(data), limit)
                write(f"{task}.json", found)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
