"""Schemathesis sends requests made from /openapi.json: no server error, and no answer that never comes.

The documented answer 501 (chat) is no error. The load goes to a server of this machine, which this script
starts, and ends after --minutes."""

import subprocess
import sys
import tempfile
from pathlib import Path

import served

# Seconds that an answer may take.
HANG = 60
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501]
"""
CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance"


def main():
    arguments = served.parser(__doc__)
    arguments.add_argument("--minutes", type=float, default=1, help="[default: 1]")
    arguments.add_argument("--seed", type=int, default=0, help="seed of the requests [default: 0]")
    options = arguments.parse_args()
    seconds = max(1, round(60 * options.minutes))
    with served.checkpoints(options) as checkpoints, served.Server(options.binary, checkpoints) as server:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "schemathesis.toml")
            config.write_text(CONFIG)
            command = [Path(sys.executable).with_name("schemathesis"), "--no-color", "--config-file", config, "run"]
            command += [f"{server.url}/openapi.json", "--url", server.url, "--checks", CHECKS, "--workers", "4"]
            # links between answers tell little here, and would take half of the time
            command += ["--phases", "coverage,fuzzing"]
            command += ["--max-time", str(seconds), "--request-timeout", str(HANG), "--seed", str(options.seed)]
            # a client that stops at its own time, or at the latest here
            done = subprocess.run(command, cwd=folder, timeout=3 * seconds + 300)
        prefixes = server.metric("block_transformer_prefix_bytes")
        print(f"memory of the server: {server.resident() >> 20} MiB, of which {int(prefixes) >> 20} MiB for prefixes")
        assert done.returncode == 0, "schemathesis found failures"
        served.until(lambda: server.metric("vllm:num_requests_running") == 0, 30, "requests are left")
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 1})["choices"]


if __name__ == "__main__":
    main()
