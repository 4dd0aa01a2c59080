"""Loads exported folders with the transformers library and compares logits.

    python check.py FOLDER LOGITS.json     compare with logits of this project
    python check.py FOLDER --ids 5,7,9     print the logits as JSON

Needs torch and transformers. LOGITS.json has "ids" (one row of token ids) and "logits" (a row per position).
"""

import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    folder, given = sys.argv[1], sys.argv[2:]
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    model = model.float().eval()
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[problem], (problem, info[problem])
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    if given[0] == "--ids":
        ids, expected = [int(i) for i in given[1].split(",")], None
    else:
        case = json.load(open(given[0]))
        ids, expected = case["ids"], torch.tensor(case["logits"])
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    if expected is None:
        rows = [[round(v, 6) for v in row] for row in logits.tolist()]
        print(json.dumps({"versions": versions, "ids": ids, "logits": rows}))
        return
    largest = (logits - expected).abs().max().item()
    print(f"{versions}: largest difference {largest:.2e}")
    assert largest <= 1e-4
    if json.load(open(f"{folder}/tokenizer.json")).get("type") == "bytes":
        print("tokenizer: bytes, which have no equal in transformers; not checked")
        return
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "Round and round the ragged rock\n  the ragged rascal ran."
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text, tokenizer.decode(ids)
    print(f"tokenizer: {len(ids)} ids, decoded to the same text; eos {tokenizer.eos_token_id}, pad {tokenizer.pad_token_id}")
    continued = model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)
    print(f"generate: {tokenizer.decode(continued[0][len(ids):])!r}")


main()
