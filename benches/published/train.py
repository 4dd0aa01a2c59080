#!/usr/bin/env python3
"""Trains a preset of this project with the published PyTorch code, on contiguous windows of a prepared corpus."""

import argparse
import json
import math
import struct
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import GPTNeoXConfig

EOS, PAD = 0, 1


def stream(path):
    """Returns the tokens of a token file (datasets/src/token_file), with EOS after each document."""
    data = Path(path).read_bytes()
    width, tokens, documents = struct.unpack_from("<I", data, 12)[0], *struct.unpack_from("<QQ", data, 24)
    ids = np.frombuffer(data, f"<u{width}", tokens, 64)
    ends_at = (64 + width * tokens + 7) // 8 * 8
    ends = np.frombuffer(data, "<u8", documents, ends_at).astype(np.int64)
    return np.insert(ids.astype(np.int64), ends, EOS)


def windows(ids, context):
    """Returns the windows `[count, context]`."""
    count = len(ids) // context
    return torch.from_numpy(ids[: count * context].reshape(count, context))


def neox(config, vocab_size, positions, **more):
    """Returns the configuration for transformers of a stack of GPT-NeoX layers."""
    keys = ["hidden_size", "num_hidden_layers", "num_attention_heads", "rotary_pct", "rotary_emb_base", "layer_norm_eps"]
    settings = {key: config[key] for key in keys if key in config}
    return GPTNeoXConfig(
        vocab_size=vocab_size,
        max_position_embeddings=positions,
        intermediate_size=4 * config["hidden_size"],
        bos_token_id=EOS,
        eos_token_id=EOS,
        attn_implementation="eager",
        **settings,
        **more,
    )


def published_model(config):
    """Returns the published model with its own initial weights."""
    from model.block_decoder.gpt_neo_x import GPTNeoXBlockDecoder
    from model.block_transformer import BlockTransformer
    from model.embedder.lookup import LookupConfig, LookupEmbedder
    from model.token_decoder.gpt_neo_x import GPTNeoXTokenDecoder

    embedder, context, tokens = (config[key] for key in ("embedder", "block_decoder", "token_decoder"))
    if embedder["cls"] != "lookup" or tokens.get("decoding_strategy") != "prefix":
        sys.exit("--config: only block models with a lookup embedder and a prefix")
    length, vocab, width = config["block_length"], config["vocab_size"], context["hidden_size"]
    positions = config["max_position_embeddings"]
    lookup = LookupConfig(eos_token_id=EOS, vocab_size=vocab, hidden_size=embedder["hidden_size"])
    return BlockTransformer(
        LookupEmbedder(
            lookup,
            block_length=length,
            n_embedding_tokens=1,
            projection_method=embedder["projection_method"],
            projection_hidden_size=width,
        ),
        # the published code makes a token table for the block decoder, which nothing uses
        GPTNeoXBlockDecoder(neox(context, vocab, positions), n_embedding_tokens=1),
        GPTNeoXTokenDecoder(
            neox(tokens, vocab, positions),
            block_length=length,
            n_embedding_tokens=1,
            projection_hidden_size=width,
            expansion_method="expansion_layer",
            expansion_ratio=tokens["expansion_ratio"],
            decoding_strategy="prefix",
        ),
        use_token_decoding_loss=True,
    )


def loss_of(model, ids, length):
    """Returns the mean loss of windows `[batch, context]`; padding is not predicted."""
    blocks = ids.reshape(len(ids), -1, length)
    mask = (blocks != PAD).long()
    outputs = model(input_ids=blocks, attention_mask=mask, block_attention_mask=mask.amax(-1), labels=blocks)
    return outputs["loss"]


def groups(model, decay, weight_decay):
    """Returns the parameters in groups of the same weight decay.

    The published training decays all parameters, because DeepSpeed makes its optimizer
    (`deepspeed_optim_sched` of transformers). Without DeepSpeed, transformers leaves out biases and norms.
    """
    plain, decayed = [], []
    for name, parameter in model.named_parameters():
        leave_out = decay == "matrices" and (name.endswith("bias") or "norm" in name.lower())
        (plain if leave_out else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def rate(step, arguments):
    """Returns the learning rate of a step, counted from 1: linear warm-up, then half a cosine (WarmupCosineLR)."""
    if step < arguments.warmup:
        return arguments.lr * step / arguments.warmup
    progress = (step - arguments.warmup) / (arguments.steps - arguments.warmup)
    return arguments.lr * (arguments.lr_end + (1 - arguments.lr_end) * 0.5 * (1 + math.cos(math.pi * progress)))


def print_statistics(model):
    """Prints mean and standard deviation of every initial tensor."""
    for name, parameter in model.named_parameters():
        values = parameter.detach().double()
        print(f"{name}\t{list(values.shape)}\t{values.mean():.6f}\t{values.std(unbiased=False):.6f}")


def load(model, path):
    """Loads weights that `export` of this project wrote."""
    from safetensors.torch import load_file

    missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    missing = [name for name in missing if "embed_in" not in name and ".bias" not in name.replace("masked_bias", ".bias")]
    if missing or unexpected:
        sys.exit(f"{path}: missing {missing}, unexpected {unexpected}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", required=True, help="checkout of itsnamgyu/block-transformer")
    parser.add_argument("--config", required=True, help="JSON that `presets --show` prints")
    parser.add_argument("--corpus", required=True, help="prepared folder with train.tok and validation.tok")
    parser.add_argument("--init", help="initial weights in place of the published ones: safetensors of `export`")
    parser.add_argument("--windows", help="windows in the order of training: file of the example `windows` of datasets")
    parser.add_argument("--statistics", action="store_true", help="only print statistics of the initial weights")
    parser.add_argument("--decay", choices=["all", "matrices"], default="all", help="what weight decay applies to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--lr-end", type=float, default=0.1)
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--validation-windows", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    sys.path.insert(0, arguments.published)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    config = json.loads(Path(arguments.config).read_text())
    vocab = json.loads((Path(arguments.corpus) / "tokenizer.json").read_text())["model"]["vocab"]
    config["vocab_size"] = (max(vocab.values()) + 64) // 64 * 64
    model, length = published_model(config), config["block_length"]
    model.token_decoder.config.pad_token_id = PAD
    if arguments.init:
        load(model, arguments.init)
    if arguments.statistics:
        return print_statistics(model)
    train, validation = (
        windows(stream(Path(arguments.corpus) / f"{split}.tok"), arguments.context) for split in ("train", "validation")
    )
    if arguments.windows:
        given = np.fromfile(arguments.windows, "<u4").astype(np.int64)
        train, order = windows(given, arguments.context), np.arange(len(given) // arguments.context)
    else:
        order = np.random.RandomState(arguments.seed).permutation(len(train))
    optimizer = torch.optim.AdamW(
        groups(model, arguments.decay, arguments.weight_decay), lr=arguments.lr, betas=(0.9, 0.95), eps=1e-8
    )
    losses, begun = [], time.time()
    for step in range(1, arguments.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, arguments)
        batch = order[np.arange((step - 1) * arguments.batch, step * arguments.batch) % len(order)]
        loss = loss_of(model, train[batch], length)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 20 == 0 or step == 1:
            print(f"step {step} loss {losses[-1]:.4f} norm {norm:.3f} {time.time() - begun:.0f} s", flush=True)
    model.eval()
    count = min(arguments.validation_windows, len(validation))
    held_out = validation[[i * len(validation) // count for i in range(count)]]
    with torch.no_grad():
        parts = [loss_of(model, part, length).item() * len(part) for part in held_out.split(arguments.batch)]
    print(f"seed {arguments.seed} training loss {np.mean(losses[-20:]):.4f} validation loss {sum(parts) / count:.4f}")


if __name__ == "__main__":
    main()
