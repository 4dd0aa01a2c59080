"""Many requests at a time: each answer equals the answer to the same request alone.

Prompts have 1 to 1500 tokens; some requests are greedy, others sampled; some are streams; some clients close their
stream in the middle, others are processes that are killed. At the end, no slot is in use. The memory of the server is
printed, and must not grow after the first third of the time. The load goes to a server of this machine, which this
script starts, and ends after --minutes."""

import asyncio
import json
import random
import signal
import sys
import time

import aiohttp

import served

# Growth of the resident memory in the last two thirds of the time, beyond which it is not flat: pages of the allocator.
GROWTH = 32 << 20
# a client process that opens a stream and then waits to be killed
CLIENT = """
import socket, sys, time
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
body = sys.argv[2].encode()
connection.sendall(b"POST /v1/completions HTTP/1.1\\r\\nHost: a\\r\\nContent-Type: application/json\\r\\n"
                   b"Content-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
connection.recv(100)
print("streams", flush=True)
time.sleep(60)
"""


def questions(count, contexts, dice):
    """Requests of all kinds."""
    for i in range(count):
        model = dice.choice(sorted(contexts))
        length = dice.choice([dice.randrange(1, 20), dice.randrange(20, 300), dice.randrange(300, 1501)])
        room = min(contexts[model] - length - 8, 300)
        fields = {
            "model": model,
            # ids of bytes and of pairs of letters; every tokenizer has them
            "prompt": [dice.randrange(2, 250) for _ in range(length)],
            "max_tokens": dice.randrange(1, room),
            "seed": i,
            "temperature": dice.choice([0, 0, 0.7, 1]),
        }
        options = {
            "ignore_eos": True, "n": 2, "logprobs": 2, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "stop": ["e", "qu"],
            "presence_penalty": 0.5, "frequency_penalty": 0.3, "logit_bias": {"40": 2.0},
        }
        for key in dice.sample(sorted(options), dice.randrange(4)):
            fields[key] = options[key]
        kind = dice.choice(["plain", "plain", "plain", "prefix", "score"])
        if kind == "prefix":
            # one of three, whose caches are kept
            fields["prefix"] = [2 + (j * j + i % 3) % 248 for j in range(200)]
            fields["prompt"], fields["max_tokens"] = fields["prompt"][:1000], min(fields["max_tokens"], 200)
        elif kind == "score":
            fields |= {"echo": True, "logprobs": 1, "temperature": 0, "max_tokens": dice.choice([0, 1])}
        yield fields


def essence(answer):
    return [(choice["text"], choice["finish_reason"], choice.get("logprobs")) for choice in answer["choices"]]


class Soak:
    """A server under load, and what it must answer."""

    def __init__(self, server, session, dice):
        self.server, self.session, self.dice = server, session, dice
        self.url = f"{server.url}/v1/completions"
        self.counts = {}
        self.expected = []

    async def ask(self, fields):
        async with self.session.post(self.url, json=fields) as response:
            assert response.status == 200, (response.status, await response.text())
            return essence(await response.json())

    async def stream(self, fields, chunks=None):
        """The texts of a stream, or of its first chunks, after which the connection is closed."""
        texts = [""] * fields.get("n", 1)
        async with self.session.post(self.url, json=fields | {"stream": True}) as response:
            assert response.status == 200, (response.status, await response.text())
            async for line in response.content:
                if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                    continue
                chunk = json.loads(line[6:])
                assert "error" not in chunk, chunk
                for choice in chunk["choices"]:
                    texts[choice["index"]] += choice["text"]
                if chunks is not None:
                    chunks -= 1
                    if chunks <= 0:
                        response.close()
                        break
        return texts

    async def kill_a_client(self, fields):
        body = json.dumps(fields | {"stream": True})
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, str(self.server.port), body, stdout=asyncio.subprocess.PIPE
        )
        await client.stdout.readline()
        client.send_signal(signal.SIGKILL)
        await client.wait()

    async def work(self, until, killer):
        """Sends one request after the other."""
        while time.monotonic() < until:
            fields, expected = self.dice.choice(self.expected)
            texts = [text for text, *_ in expected]
            action = "kill" if killer else self.dice.choices(["ask", "stream", "close"], [5, 3, 2])[0]
            if action == "ask":
                found = await self.ask(fields)
                assert found == expected, f"{fields}: {found}, alone {expected}"
            elif action == "stream":
                found = await self.stream(fields)
                assert found == texts, f"{fields}: {found}, alone {texts}"
            elif action == "close":
                found = await self.stream(fields, self.dice.randrange(1, 12))
                same = all(text.startswith(part) for text, part in zip(texts, found, strict=True))
                assert same, f"{fields}: {found}, alone {texts}"
            else:
                await self.kill_a_client(fields)
                await asyncio.sleep(1)
            self.counts[action] = self.counts.get(action, 0) + 1

    async def watch(self, start, until):
        """The resident memory over the time."""
        memory, shown = [], start
        while time.monotonic() < until:
            await asyncio.sleep(min(2, max(0.1, until - time.monotonic())))
            now = time.monotonic()
            memory.append((now - start, self.server.resident()))
            if now - shown >= 60:
                shown = now
                print(f"{(now - start) / 60:.1f} min: {memory[-1][1] >> 20} MiB, {self.counts}", flush=True)
        return memory


async def soak(server, contexts, options):
    dice = random.Random(options.seed)
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        test = Soak(server, session, dice)
        for fields in questions(options.questions, contexts, dice):
            test.expected.append((fields, await test.ask(fields)))
        print(f"{len(test.expected)} answers of requests alone; {server.resident() >> 20} MiB", flush=True)
        start = time.monotonic()
        until = start + 60 * options.minutes
        killers = max(1, options.concurrent // 50)
        tasks = [test.work(until, i < killers) for i in range(options.concurrent)]
        memory, *_ = await asyncio.gather(test.watch(start, until), *tasks)
        seconds = time.monotonic() - start
        # the last request alone, closed in the middle
        fields = {"model": sorted(contexts)[0], "prompt": [40], "max_tokens": 1500, "ignore_eos": True}
        await test.stream(fields, 2)
        closed = time.monotonic()
        while server.metric("vllm:num_requests_running"):
            assert time.monotonic() - closed < 5, "a slot is in use after its client has gone"
            await asyncio.sleep(0.002)
        print(f"the slot of a closed stream is free after {1000 * (time.monotonic() - closed):.0f} ms")
    total = sum(test.counts.values())
    print(f"{options.concurrent} requests at a time for {seconds:.0f} s: {total} requests, {test.counts}; all as alone")
    third = memory[-1][0] / 3
    early = max(size for at, size in memory if at <= third)
    late = max(size for at, size in memory if at > third)
    print(f"resident memory: at most {early >> 20} MiB in the first third, {late >> 20} MiB after it")
    assert late <= early + GROWTH, "the memory grows"
    assert server.metric("vllm:num_requests_waiting") == 0


def main():
    arguments = served.parser(__doc__)
    arguments.add_argument("--minutes", type=float, default=0.5, help="[default: 0.5]")
    arguments.add_argument("--concurrent", type=int, default=200, help="requests at a time [default: 200]")
    arguments.add_argument("--questions", type=int, default=60, help="different requests [default: 60]")
    arguments.add_argument("--seed", type=int, default=0, help="seed of the requests [default: 0]")
    options = arguments.parse_args()
    with served.checkpoints(options) as checkpoints, served.Server(options.binary, checkpoints) as server:
        models = json.loads(server.get("/v1/models"))["data"]
        asyncio.run(soak(server, {model["id"]: model["max_model_len"] for model in models}, options))


if __name__ == "__main__":
    main()
