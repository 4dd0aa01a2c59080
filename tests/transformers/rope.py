"""Records outputs with scaled rotary positions: of GPT-NeoX of transformers, and of the published block decoder.

    python rope.py GOLDEN PUBLISHED > rope.json

GOLDEN is tests/golden, PUBLISHED a checkout of itsnamgyu/block-transformer. Needs torch, safetensors and transformers
4.39.3. The base of the recorded kind `dynamic` with the factor 2 depends on the length. Here, the length is 1.5 times
`max_position_embeddings`, and the base is that of `ntk` with the factor 2 * 1.5 - 1 = 2.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

KEEP = [1, 40, 63, 64, 95]


def config(given, positions, scaling):
    """Returns the configuration of a stack of a golden case."""
    return GPTNeoXConfig(
        vocab_size=96,
        hidden_size=given["hidden_size"],
        num_hidden_layers=given["num_hidden_layers"],
        num_attention_heads=given["num_attention_heads"],
        intermediate_size=4 * given["hidden_size"],
        max_position_embeddings=positions,
        bos_token_id=0,
        eos_token_id=0,
        rope_scaling=scaling,
        attn_implementation="eager",
    )


def rows(values, keep):
    return [[round(v, 6) for v in values[at].tolist()] for at in keep]


def main():
    golden = Path(sys.argv[1])
    sys.path.insert(0, sys.argv[2])
    from model.block_decoder.gpt_neo_x import GPTNeoXBlockDecoder

    ids = [(i * 7919 + 17) % 96 for i in range(96)]
    out = {"versions": {"transformers": transformers.__version__, "torch": torch.__version__}, "ids": ids}
    linear, dynamic = {"type": "linear", "factor": 4.0}, {"type": "dynamic", "factor": 2.0}
    vanilla = json.loads((golden / "vanilla.json").read_text())
    block = json.loads((golden / "lookup_prefix.json").read_text())
    weights = load_file(golden / "lookup_prefix.model.safetensors")
    # 24 blocks of 4 tokens, whose embeddings are side by side
    embedded = weights["embedder.embeddings.weight"][torch.tensor(ids)].reshape(1, 24, -1)
    for name, scaling in [("linear", linear), ("ntk", dynamic), ("none", None)]:
        model = GPTNeoXForCausalLM(config(vanilla, 64, scaling)).eval()
        model.load_state_dict(load_file(golden / "vanilla.model.safetensors"), strict=False)
        # 24 blocks are 1.5 times 16, as 96 tokens are 1.5 times 64
        decoder = GPTNeoXBlockDecoder(config(block["block_decoder"], 16, scaling), n_embedding_tokens=1).eval()
        inside = {key[len("block_decoder.") :]: value for key, value in weights.items() if key.startswith("block_decoder.")}
        decoder.load_state_dict(inside, strict=False)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
            states = decoder(inputs_embeds=embedded, block_attention_mask=torch.ones(1, 24, dtype=torch.long), return_dict=True)
        keep = [at // 4 for at in KEEP]
        out[name] = {"logits": rows(logits, KEEP), "contexts": rows(states.hidden_states[0], keep)}
    out["positions"] = KEEP
    print(json.dumps(out))


main()
