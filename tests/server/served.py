"""Small checkpoints, and a server that serves them, for the scripts beside this file.

    served.py FOLDER    makes the checkpoints FOLDER/block and FOLDER/vanilla"""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# seconds for a server to load its models, and to end
START, END = 120, 60
# tokens of a sequence
CONTEXT = 2048
# the environment variable of the API key
KEY = "BLOCK_TRANSFORMER_API_KEY"


def parser(description):
    """The arguments of every script."""
    formatter = argparse.RawDescriptionHelpFormatter
    arguments = argparse.ArgumentParser(description=description, formatter_class=formatter)
    arguments.add_argument(
        "--binary",
        type=lambda path: Path(path).resolve(),
        default=os.path.join(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "debug", "block-transformer"),
        help="the built command",
    )
    arguments.add_argument("--block", type=Path, help="checkpoint of a block model [default: a small one is made]")
    arguments.add_argument("--vanilla", type=Path, help="checkpoint of a vanilla model [default: a small one is made]")
    return arguments


@contextlib.contextmanager
def checkpoints(options):
    """The checkpoints of the arguments by name; those that are not given are trained for a few steps."""
    given = {"block": options.block, "vanilla": options.vanilla}
    with tempfile.TemporaryDirectory(prefix="served-") as folder:
        if None in given.values():
            made = make(options.binary, Path(folder))
            given = {name: path or made[name] for name, path in given.items()}
        yield given


def make(binary, folder):
    """Trains a small model of each family in the folder, and returns the folders of their runs by name."""
    write_corpus(folder / "text.txt")
    return {family: train(binary, family, folder) for family in ("block", "vanilla")}


def write_corpus(path):
    """The documents and the code of this repository, about a megabyte."""
    sources = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("crates/*/src/**/*.rs")])
    path.write_text("".join(source.read_text(encoding="utf-8") for source in sources), encoding="utf-8")


def train(binary, family, folder):
    """Trains a model of `CONTEXT` tokens of context for a few steps, and returns the folder of its run."""
    command = f"train --preset debug-{family} --corpus text.txt --context {CONTEXT} --batch 1 --steps 30 --plain --out {family}"
    done = subprocess.run([binary, *command.split()], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}: {done.stderr}")
    return folder / family


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def get(url, path):
    with urllib.request.urlopen(url + path, timeout=60) as response:
        return response.read().decode()


def post(url, path, body):
    """The answer to a JSON body; the status of an error is in the exception."""
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.load(response)


class Server:
    """A running server; the end of the `with` block stops it, and checks that it ended well."""

    def __init__(self, binary, checkpoints, *flags, env=None):
        """`checkpoints` are folders by the names under which they are served."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [binary, "serve", "--port", str(self.port), "--name", ",".join(checkpoints)]
        for path in checkpoints.values():
            self.command += ["--checkpoint", path]
        # the context that the small models were trained with is longer than that of their preset
        self.command += ["--max-tokens", str(CONTEXT), *flags]
        self.environment = {**os.environ, **(env or {})}
        self.log = tempfile.TemporaryFile("a+b")
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, env=self.environment)

    def __enter__(self):
        try:
            self.wait_until_ready()
        except BaseException:
            self.process.kill()
            self.process.wait()
            self.log.close()
            raise
        return self

    def wait_until_ready(self):
        until = time.monotonic() + START
        while True:
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended with {self.process.returncode}:\n{self.output()}")
            try:
                get(self.url, "/ready")
                return
            except OSError:
                pass
            if time.monotonic() > until:
                raise SystemExit(f"the server was not ready after {START} s:\n{self.output()}")
            time.sleep(0.1)

    def restart(self):
        """Ends the server, which answers what it has, and starts it again."""
        code = self.stop()
        assert code == 0, f"{code}: {self.output()}"
        self.start()
        self.wait_until_ready()

    def stop(self):
        """Ends the server with SIGTERM, and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def __exit__(self, kind, *_):
        code = self.stop()
        if code or kind:
            print(f"output of the server, which ended with {code}:\n{self.output()}", file=sys.stderr)
        self.log.close()
        if kind is None:
            assert code == 0, "the server must end with 0 after SIGTERM"

    def output(self):
        """What the server has written, at most the last part of it."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-5000:]

    def get(self, path):
        return get(self.url, path)

    def post(self, path, body):
        return post(self.url, path, body)

    def metric(self, name, **labels):
        """The sum of the samples of a metric that have these labels."""
        found = None
        for line in self.get("/metrics").splitlines():
            match = re.fullmatch(rf"{re.escape(name)}(\{{.*\}})? (\S+)", line)
            if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
                found = (found or 0.0) + float(match[2])
        assert found is not None, f"there is no metric {name} {labels}"
        return found

    def resident(self):
        """Bytes of memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) * 1024


def until(condition, seconds, message):
    """Waits until `condition` returns something true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message
        time.sleep(0.02)


if __name__ == "__main__":
    # makes the checkpoints in a folder, so that several scripts can use them
    arguments = parser("Trains the small models of the tests.")
    arguments.add_argument("folder", type=Path)
    chosen = arguments.parse_args()
    make(chosen.binary, chosen.folder)
