"""The stock EleutherAI harness over HTTP finds what `eval --alignment published` finds.

Both score the same items, and the log-likelihoods of each item must agree within 1e-5, the greedy choices and the
accuracies exactly. By default on the made-up items of crates/evaluation/tests/reference; with --data on the task files
of a folder (named as there), of which the first --limit items of each task are used."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lm_eval.tasks.hellaswag.utils import preprocess

import served

TASKS = ["hellaswag", "piqa", "arc-easy", "lambada"]
HERE = Path(__file__).parent
MADE_UP = served.ROOT / "crates/evaluation/tests/reference/made-up"
# The server writes the log-probability of each token as f32, with an error of about 5e-7 for those near -10.
TOLERANCE = 1e-5


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(task, data):
    """The rows that the tasks beside this file read."""
    if task == "hellaswag":
        for row in lines(data / "hellaswag_val.jsonl"):
            context = f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
            yield {
                "query": preprocess(f"{row['activity_label']}: {context}"),
                "choices": [preprocess(ending) for ending in row["endings"]],
                "gold": int(row["label"]),
            }
    elif task == "piqa":
        labels = (data / "piqa_valid-labels.lst").read_text().split()
        for row, label in zip(lines(data / "piqa_valid.jsonl"), labels, strict=True):
            yield row | {"label": int(label)}
    elif task == "arc-easy":
        for row in lines(data / "ARC-Easy-test.jsonl"):
            row.pop("id", None)
            yield row if isinstance(row["question"], str) else published_arc(row)
    else:
        yield from lines(data / "lambada_test.jsonl")


def published_arc(row):
    """A row of the form in which ARC was published."""
    choices, right = row["question"]["choices"], row["answerKey"]
    gold = next(i for i, choice in enumerate(choices) if choice["label"] == right)
    return {"question": row["question"]["stem"], "choices": [choice["text"] for choice in choices], "gold": gold}


def prepare(data, folder, limit):
    """Writes the first rows of each task to `folder`."""
    for task in TASKS:
        chosen = list(rows(task, data))[:limit]
        text = "".join(json.dumps(row) + "\n" for row in chosen)
        (folder / f"{task}.jsonl").write_text(text, encoding="utf-8")


def of_eval(binary, name, checkpoint, data, limit, folder):
    """The items and the accuracies of `eval`."""
    items, out = folder / "items.jsonl", folder / "eval"
    command = [binary, "eval", "--checkpoint", checkpoint, "--tasks", ",".join(TASKS), "--data", data]
    command += ["--items", items, "--out", out, *(["--limit", str(limit)] if limit else [])]
    # a model without blocks has no alignment
    command += ["--alignment", "published"] if name == "block" else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"eval: {done.stderr}")
    found = {task: [] for task in TASKS}
    for item in lines(items):
        found[item["task"]].append(item)
    return found, json.loads((out / "results.json").read_text())["tasks"]


def of_harness(server, name, context, folder, concurrent):
    """The samples and the accuracies of the harness."""
    out = folder / "harness"
    settings = {
        "model": name,
        "base_url": f"{server.url}/v1/completions",
        "num_concurrent": concurrent,
        "max_length": context,
    }
    command = [sys.executable, "-m", "lm_eval", "--model", "local-completions", "--log_samples"]
    command += ["--model_args", ",".join(f"{key}={value}" for key, value in settings.items())]
    command += ["--tasks", ",".join(f"local_{task}" for task in TASKS), "--include_path", str(HERE / "tasks")]
    command += ["--output_path", str(out)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    # the data files of the tasks are relative to the working folder
    done = subprocess.run(command, cwd=folder, env={**os.environ, **offline}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stdout[-2000:]}\n{done.stderr[-5000:]}")
    scores = json.loads(next(out.rglob("results_*.json")).read_text())["results"]
    found = {}
    for task in TASKS:
        samples = lines(next(out.rglob(f"samples_local_{task}_*.jsonl")))
        found[task] = sorted(samples, key=lambda sample: sample["doc_id"])
    return found, {task: scores[f"local_{task}"] for task in TASKS}


def compare(name, ours, theirs, our_scores, their_scores):
    """Prints the largest difference of each task, and ends the program if one is too large."""
    for task in TASKS:
        items, samples = ours[task], theirs[task]
        assert items and len(items) == len(samples), f"{task}: {len(items)} items, {len(samples)} samples"
        largest, count = 0.0, 0
        for item, sample in zip(items, samples, strict=True):
            pairs = [(float(score), str(greedy) == "True") for score, greedy in sample["filtered_resps"]]
            assert len(pairs) == len(item["log_likelihoods"]), f"{task}, item {item['item']}"
            for (score, greedy), expected, as_greedy in zip(pairs, item["log_likelihoods"], item["greedy"], strict=True):
                largest, count = max(largest, abs(score - expected)), count + 1
                assert greedy == as_greedy, f"{name}, {task}, item {item['item']}: greedy {greedy}, eval says {as_greedy}"
        assert largest <= TOLERANCE, f"{name}, {task}: log-likelihoods differ by {largest}"
        for metric in ("acc", "acc_norm"):
            key = f"{metric},none"
            assert (metric in our_scores[task]) == (key in their_scores[task]), f"{name}, {task}: {metric}"
            if key in their_scores[task]:
                ours_is, theirs_is = our_scores[task][metric], their_scores[task][key]
                assert abs(ours_is - theirs_is) < 1e-9, f"{name}, {task}: {metric} {theirs_is}, eval says {ours_is}"
        accuracy = their_scores[task]["acc,none"]
        print(f"{name}, {task}: {len(items)} items, {count} scores within {largest:.1e}, acc {accuracy:.4f} by both", flush=True)


def main():
    arguments = served.parser(__doc__)
    arguments.add_argument("--data", type=Path, default=MADE_UP, help="folder of task files")
    arguments.add_argument("--limit", type=int, help="items of each task [default: all]")
    arguments.add_argument("--concurrent", type=int, default=8, help="requests at a time")
    options = arguments.parse_args()
    data = options.data.resolve()
    with served.checkpoints(options) as checkpoints:
        for name, checkpoint in checkpoints.items():
            with tempfile.TemporaryDirectory() as folder:
                folder = Path(folder)
                prepare(data, folder, options.limit)
                ours, our_scores = of_eval(options.binary, name, checkpoint, data, options.limit, folder)
                # one model for each server: the harness asks for the tokenizer without a name
                with served.Server(options.binary, {name: checkpoint}) as server:
                    context = json.loads(server.get("/v1/models"))["data"][0]["max_model_len"]
                    theirs, their_scores = of_harness(server, name, context, folder, options.concurrent)
                compare(name, ours, theirs, our_scores, their_scores)


if __name__ == "__main__":
    main()
