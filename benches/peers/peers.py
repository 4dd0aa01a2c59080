#!/usr/bin/env python3
"""Measures this project, CTranslate2, llama.cpp and PyTorch with transformers in turn, with the same weights."""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from model import Model, prompts, token

HERE = Path(__file__).resolve().parent
OURS = "this project"
NAMES = {OURS: OURS, "ctranslate2": "CTranslate2", "llama.cpp": "llama.cpp", "torch": "PyTorch"}
SETTINGS = ("CT2_", "GGML_", "GOMP_", "KMP_", "OMP_", "ONEDNN_", "MKL_", "TORCH_")  # environment variables
GREEDY = {"kind": "greedy", "weights": "f32", "prompt": 128, "new": 32, "batch": 1}


def cases(quick):
    """Returns the measured cases."""

    def case(kind, weights, prompt, new, batch):
        work = {
            "decode": f"decoding at about {prompt + new // 2} tokens of context",
            "whole": f"{prompt} tokens in, {new} out",
            "first": f"first token after {prompt} tokens",
        }[kind]
        name = f"{weights}, {work}, batch {batch}"
        return {"kind": kind, "weights": weights, "prompt": prompt, "new": new, "batch": batch, "name": name}

    if quick:
        return [
            case("decode", "f32", 128, 64, 1),
            case("decode", "f32", 128, 64, 4),
            case("whole", "f32", 32, 8, 2),
            case("first", "f32", 128, 1, 1),
            case("decode", "int8", 128, 64, 1),
        ]
    return [
        *(case("decode", "f32", 128, 64, batch) for batch in [1, 16, 64]),
        *(case("whole", "f32", 128, 64, batch) for batch in [1, 16]),
        *(case("first", "f32", prompt, 1, 1) for prompt in [128, 1024]),
        case("decode", "int8", 128, 64, 1),
        case("whole", "int8", 128, 64, 1),
        case("first", "int8", 128, 1, 1),
    ]


class Failure(Exception):
    """An engine that cannot be measured."""


class Ours:
    """The program of this project, which is started for each measurement."""

    def __init__(self, model, threads):
        self.model, self.environment = model, os.environ | {"RAYON_NUM_THREADS": str(threads)}
        self.version = self.run("--version").strip()

    def run(self, *arguments):
        command = [self.model.binary, *map(str, arguments)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=self.environment)
        if done.returncode != 0:
            raise Failure((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
        return done.stdout

    def measure(self, case):
        work = ["--lengths", f"{case['prompt']}:{case['new']}"]
        if case["kind"] == "decode":
            # these two commands decode after the same numbers of tokens: the first step is not timed
            work = ["--at", case["prompt"]]
        with tempfile.TemporaryDirectory() as out:
            self.run(
                "bench", "decode", "--checkpoint", self.model.checkpoint, *work, "--whole", "--rounds", 1,
                "--batch", case["batch"], "--weights", case["weights"], "--out", out,
            )  # fmt: skip
            row = json.loads((Path(out) / "results.json").read_text())["rows"][0]
        return row["first_token" if case["kind"] == "first" else "rate"]["median"]

    def greedy(self, case):
        text = " ".join(token(index) for index in prompts(1, case["prompt"], self.model.config["vocab_size"])[0])
        printed = self.run(
            "generate", "--checkpoint", self.model.checkpoint, "--prompt", text, "--greedy", "--ignore-eos",
            "--max-tokens", case["new"], "--weights", case["weights"],
        )  # fmt: skip
        return [int(word.removeprefix("t")) for word in printed.split()]


class Peer:
    """Another engine. Each weight format has a process that loads the model once and then waits for requests."""

    def __init__(self, engine, model, threads, options):
        self.engine, self.model, self.threads, self.options = engine, model, threads, options
        self.workers, self.version = {}, None
        self.worker("f32")

    def worker(self, weights):
        if weights not in self.workers:
            path = {
                "ctranslate2": self.model.ctranslate2,
                "llama.cpp": lambda: self.model.gguf(weights),
                "torch": lambda: self.model.exported,
            }[self.engine]()
            threads = {name: str(self.threads) for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS"]}
            self.workers[weights] = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | threads | {"HF_HUB_OFFLINE": "1"},
            )
            request = {"engine": self.engine, "path": str(path), "weights": weights, "threads": self.threads}
            self.version = self.ask(weights, request | self.options)["version"]
        return self.workers[weights]

    def ask(self, weights, request):
        worker = self.worker(weights)
        try:
            worker.stdin.write(json.dumps(request) + "\n")
            worker.stdin.flush()
            answer = json.loads(worker.stdout.readline() or '{"error": "the process ended"}')
        except BrokenPipeError:
            answer = {"error": "the process ended"}
        if "error" in answer:
            raise Failure(answer["error"].splitlines()[0])
        return answer

    def measure(self, case):
        if self.engine == "torch" and case["weights"] != "f32":
            return None
        return self.ask(case["weights"], {"case": case, "vocab": self.model.config["vocab_size"]})["value"]

    def greedy(self, case):
        return self.ask("f32", {"case": case, "vocab": self.model.config["vocab_size"]})["tokens"][0]

    def close(self):
        for worker in self.workers.values():
            worker.stdin.close()
            worker.wait()


def start(arguments, model):
    """Returns the engines that can be used, and prints a line for each other one."""
    engines = {OURS: Ours(model, arguments.threads)}
    options = {"modules": str(arguments.modules), "cache": arguments.llama_cache}
    for engine in arguments.engines:
        try:
            engines[engine] = Peer(engine, model, arguments.threads, options)
        except Exception as error:  # the other engines are still measured
            reason = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
            print(f"{NAMES[engine]} is not measured: {reason}".splitlines()[0])
    return engines


def agreement(engines):
    """Returns whether all greedy tokens are those of this project, and one line per engine."""
    expected, lines, all_agree = engines[OURS].greedy(GREEDY), [], True
    for name, engine in engines.items():
        if name == OURS:
            continue
        try:
            found = engine.greedy(GREEDY)
        except Failure as error:
            lines.append(f"{NAMES[name]}: no greedy tokens: {error}")
            all_agree = False
            continue
        same = next((i for i, pair in enumerate(zip(expected, found)) if pair[0] != pair[1]), len(expected))
        verdict = "agrees" if found == expected else "DIFFERS"
        all_agree &= found == expected
        lines.append(f"{NAMES[name]}: {verdict}; the first {same} of {len(expected)} greedy tokens are the same")
    lines.append(f"The {len(expected)} tokens of this project have {len(set(expected))} different ids.")
    return all_agree, lines


def rounds(arguments, engines, selected, begin, save):
    """Measures every case in every engine in turn. Returns the values by case and engine, one per round.

    Calls `save` with the values after each round, so that a run that is ended early leaves results."""
    values = {case["name"]: {name: [] for name in engines} for case in selected}
    failed, order, longest = set(), list(engines), 0.0
    for number in range(1, arguments.rounds + 1):
        started = time.monotonic()
        if arguments.minutes and number > 1 and started - begin + longest > 60 * arguments.minutes:
            print(f"stopped after {number - 1} rounds because of --minutes {arguments.minutes:g}", file=sys.stderr)
            break
        for case in selected:
            for name in order:
                if (case["name"], name) in failed:
                    continue
                try:
                    value = engines[name].measure(case)
                except Failure as error:
                    failed.add((case["name"], name))
                    print(f"{NAMES[name]}, {case['name']}: {error}")
                    continue
                if value is None:
                    failed.add((case["name"], name))
                    continue
                values[case["name"]][name].append(value)
                print(f"round {number}, {case['name']}, {NAMES[name]}: {value:.4g}", file=sys.stderr)
        order = order[1:] + order[:1]  # no engine always follows the same one
        longest = max(longest, time.monotonic() - started)
        save(values)
    return values


def table(engines, selected, values):
    """Returns the medians, and the ratios to this project, as a Markdown table."""
    lines = [
        "| case | unit | " + " | ".join(NAMES[name] for name in engines) + " |",
        "|---" * (2 + len(engines)) + "|",
    ]
    for case in selected:
        measured = values[case["name"]]
        first = case["kind"] == "first"
        cells = []
        for name in engines:
            mine, theirs = measured[OURS], measured[name]
            if not theirs:
                cells.append("-")
                continue
            text = f"{statistics.median(theirs) * (1000 if first else 1):.4g}"
            if name != OURS and len(mine) == len(theirs):
                pairs = zip(theirs, mine) if first else zip(mine, theirs)
                text += f" ({statistics.median(a / b for a, b in pairs):.2f})"
            cells.append(text)
        lines.append(f"| {case['name']} | {'ms' if first else 'tokens/s'} | " + " | ".join(cells) + " |")
    return lines


def processor():
    """Returns the name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} logical cores"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} logical cores"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    peers = [name for name in NAMES if name != OURS]
    parser.add_argument("--binary", required=True, help="program of this project")
    parser.add_argument("--folder", default=HERE.parents[1] / "target/peers", type=Path, help="folder of the models")
    parser.add_argument("--modules", default=HERE / "node_modules", type=Path, help="folder node_modules")
    parser.add_argument("--preset", help="vanilla preset [default: vanilla-160m, or vanilla-31m with --quick]")
    parser.add_argument("--engines", default=peers, type=lambda text: text.split(","), help=",".join(peers))
    parser.add_argument("--threads", default=2, type=int, help="threads of each engine [default: 2]")
    parser.add_argument("--rounds", type=int, help="[default: 5, or 2 with --quick]")
    parser.add_argument("--minutes", type=float, help="begin no further round that would end later than this")
    parser.add_argument("--batch", type=int, action="append", help="measure these batch sizes only")
    parser.add_argument("--llama-cache", default="f32", choices=["f32", "f16"], help="[default: f32]")
    parser.add_argument("--out", type=Path, help="JSON file with every measurement, written after each round")
    parser.add_argument("--quick", action="store_true", help="smoke test: a small model and few tokens")
    arguments = parser.parse_args()
    for name in arguments.engines:
        if name not in peers:
            parser.error(f"--engines {name}: choose from {','.join(peers)}")
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 5)
    preset = arguments.preset or ("vanilla-31m" if arguments.quick else "vanilla-160m")
    selected = [case for case in cases(arguments.quick) if not arguments.batch or case["batch"] in arguments.batch]

    if not selected:
        parser.error("--batch: no case has these batch sizes")

    try:
        sys.exit(run(arguments, preset, selected))
    except Failure as error:
        sys.exit(f"{arguments.binary}: {error}")


def run(arguments, preset, selected):
    """Checks and measures the engines. Returns the exit status: 1 if greedy tokens differ."""
    begin = time.monotonic()
    model = Model(arguments.folder, arguments.binary, preset)
    model.prepare()
    engines = start(arguments, model)
    facts = [
        f"{preset}, {arguments.threads} threads, {processor()}, {datetime.date.today().isoformat()}",
        *(f"{NAMES[name]}: {engine.version}" for name, engine in engines.items()),
        *(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(SETTINGS)),
    ]
    all_agree, agreed = agreement(engines)
    print("\n".join(facts + ["", "Greedy tokens in f32, compared with this project:", *agreed, ""]), flush=True)

    def save(values):
        if arguments.out:
            results = {"facts": facts, "greedy": agreed, "values": values}
            arguments.out.write_text(json.dumps(results, indent=2) + "\n")

    values = rounds(arguments, engines, selected, begin, save)
    counts = {len(series) for case in values.values() for series in case.values() if series}
    print(f"Medians; measurements per entry: {', '.join(map(str, sorted(counts)))}. In parentheses: how many times as")
    print("fast this project is, the median of the ratios of the rounds.\n")
    print("\n".join(table(engines, selected, values)))
    for engine in engines.values():
        if isinstance(engine, Peer):
            engine.close()
    return 0 if all_agree else 1


if __name__ == "__main__":
    main()
