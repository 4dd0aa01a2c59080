"""Two replicas behind nginx with docs/nginx.conf: both work, and one after the other is exchanged without a failed request."""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import served

# requests at a time
CLIENTS = 16
# Seconds between two exchanges: nginx sends nothing for a second to a replica that has refused a connection.
PAUSE = 2


def nginx():
    """The program: the one of the system, or the one that setup.sh has put beside the Python environment."""
    own = Path(sys.prefix, "nginx", "usr", "sbin", "nginx")
    return str(own) if own.exists() else shutil.which("nginx")


class Balancer:
    """nginx over replicas, on free ports."""

    def __init__(self, program, replicas):
        self.port = served.free_port()
        text = (served.ROOT / "docs/nginx.conf").read_text()
        ports = {8000: self.port, 8001: replicas[0].port, 8002: replicas[1].port}
        text = re.sub(r"127\.0\.0\.1:(\d+)", lambda match: f"127.0.0.1:{ports[int(match[1])]}", text)
        self.folder = tempfile.TemporaryDirectory()
        config = Path(self.folder.name, "nginx.conf")
        config.write_text(text)
        command = [program, "-c", str(config), "-p", self.folder.name]
        if os.getuid() == 0:
            # its workers do not run as another user, who could not write to the folder
            command += ["-g", "user root;"]
        self.log = tempfile.TemporaryFile("a+b")
        self.process = subprocess.Popen(command, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.terminate()
        self.process.wait(30)
        if kind:
            self.log.seek(0)
            print(f"output of nginx:\n{self.log.read().decode()[-5000:]}", file=sys.stderr)
        self.log.close()
        self.folder.cleanup()


def main():
    arguments = served.parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=10, help="time of the load [default: 10]")
    options = arguments.parse_args()
    program = nginx()
    if program is None:
        print("skipped: there is no nginx; tests/server/setup.sh gets it")
        return
    with served.checkpoints(options) as checkpoints:
        model = {"block": checkpoints["block"]}
        first, second = (served.Server(options.binary, model) for _ in range(2))
        with first, second, Balancer(program, [first, second]) as balancer:
            run(options, model, [first, second], balancer)


def run(options, model, replicas, balancer):
    url = f"http://127.0.0.1:{balancer.port}"
    served.until(lambda: answers(url), 30, "nginx does not answer")
    question = lambda i: {"prompt": f"The engine {i % 40}", "max_tokens": 40, "seed": i % 40, "ignore_eos": True}
    expected = [served.post(url, "/v1/completions", question(i))["choices"] for i in range(40)]
    ends = time.monotonic() + options.seconds
    counts = []

    def client(number):
        done = 0
        while time.monotonic() < ends:
            i = number + CLIENTS * done
            found = served.post(url, "/v1/completions", question(i))["choices"]
            assert found == expected[i % 40], (i, found)
            done += 1
        counts.append(done)

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        time.sleep(PAUSE)
        worked = [replica.metric("vllm:generation_tokens_total") for replica in replicas]
        for replica in replicas:
            replica.restart()
            time.sleep(PAUSE)
        for job in clients:
            job.result()
    assert min(worked) > max(worked) / 4, f"the replicas share the work: {worked}"
    after = [replica.metric("vllm:generation_tokens_total") for replica in replicas]
    assert min(after) > 0, f"both work again: {after}"
    print(f"{sum(counts)} requests over two replicas, {worked} tokens by each before both were exchanged; none failed")


def answers(url):
    try:
        return served.get(url, "/ready") is not None
    except OSError:
        return False


if __name__ == "__main__":
    main()
