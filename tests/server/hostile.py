"""Hostile requests: after each kind of them, and after all together, the server still answers.

Fuzzed JSON, bytes that are no text, no HTTP or too much of it, bodies that are too large or never end, slow headers,
sockets that are closed, half closed or never read. All of it goes to a server of this machine, which this script starts;
the number of requests is that of the arguments, and each socket is closed after some seconds."""

import concurrent.futures
import json
import random
import socket
import struct
import time

import served

# seconds after which a socket is closed, whatever the server does
PATIENCE = 10
# connections that are open all the time, and have sent a part of a request
HELD = 200
# growth of the resident memory that is no leak: caches of prefixes, and temporary memory of large requests
GROWTH = 400 << 20
WAIT = 0.3
KINDS = {}


def kind(share):
    """Registers a kind of request; `share` is its part of all."""
    return lambda function: KINDS.setdefault(function, share) and function


def exchange(port, data, half_close=False, read=True, linger=None):
    """Sends bytes, and returns the status of the answer; `None` if there is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        if linger is not None:
            # the connection is reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while read and b"\r\n" not in answer:
                part = connection.recv(4096)
                if not part:
                    break
                answer += part
        except TimeoutError:
            return "timeout"
        except OSError:
            return None
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 2 and words[1].isdigit() else None


def request(body, path=b"/v1/completions", headers=b"Content-Type: application/json\r\n", length=None):
    length = len(body) if length is None else length
    return b"POST %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%sContent-Length: %d\r\n\r\n%s" % (path, headers, length, body)


VALUES = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**64, -(2**63), 1e308, -1e-308, 0.5, "", "a", "\ud800", "\0", [], [[]], [None], ["a", 1],
    [[1], "a"], [-1], [2**32], {}, {"a": {}}, "x" * 5000, ["stop"] * 300, [[0]] * 1025, {"50": 1e9}, {"-1": 1}, {"x": "y"},
]
FIELDS = [
    "model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "n", "best_of", "seed", "stop", "logprobs",
    "stop_token_ids", "echo", "stream", "stream_options", "logit_bias", "presence_penalty", "frequency_penalty", "suffix",
    "user", "ignore_eos", "prefix", "unknown",
]


@kind(8)
def wrong_fields(port, dice):
    body = {"prompt": "a", "max_tokens": 2}
    for field in dice.sample(FIELDS, dice.randrange(1, 4)):
        body[field] = dice.choice(VALUES)
    return exchange(port, request(json.dumps(body).encode("utf-8", "surrogatepass")))


@kind(6)
def changed_bytes(port, dice):
    body = bytearray(json.dumps({"prompt": ["a", "b"], "max_tokens": 2, "logprobs": 1, "stop": ["c"]}).encode())
    for _ in range(dice.randrange(1, 6)):
        body[dice.randrange(len(body))] = dice.randrange(256)
    return exchange(port, request(bytes(body)))


@kind(2)
def deep_json(port, dice):
    depth = dice.choice([100, 1000, 50_000])
    return exchange(port, request(dice.choice([b"[", b'{"a":', b'{"prompt":[']) * depth))


@kind(2)
def invalid_utf8(port, dice):
    return exchange(port, request(b'{"prompt": "' + dice.randbytes(50) + b'\xff\xc0\x80"}'))


@kind(4)
def no_http(port, dice):
    return exchange(port, dice.randbytes(dice.randrange(1, 400)), half_close=True)


@kind(4)
def wrong_http(port, dice):
    lines = [
        b"GET / HTTP/9.9\r\n\r\n", b"GET  HTTP/1.1\r\n\r\n", b"\r\n\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /%00%ff HTTP/1.1\r\nHost: a\r\n\r\n", b"DELETE /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    return exchange(port, dice.choice(lines), half_close=True)


@kind(2)
def large_headers(port, dice):
    many = b"".join(b"X-%d: %s\r\n" % (i, b"a" * 100) for i in range(dice.choice([200, 2000])))
    headers = dice.choice([many, b"X: " + b"a" * 1_000_000 + b"\r\n"])
    return exchange(port, b"GET / HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")


@kind(1)
def large_body(port, dice):
    body = b'{"prompt": "' + b"a " * 2_000_000 + b'"}'
    return exchange(port, request(body))


@kind(1)
def long_text(port, dice):
    """Below the largest body, but far too long for a sequence."""
    text = dice.choice(["a", "a ", "\n", "\u00e9", "the engine "])
    field = dice.choice(["prompt", "prefix"])
    body = {"prompt": "a", "max_tokens": 1} | {field: text * (1_900_000 // len(text.encode()))}
    return exchange(port, request(json.dumps(body, ensure_ascii=False).encode()))


@kind(1)
def long_lists(port, dice):
    """As long as a body can be, of little each."""
    lists = dice.choice([b"[5],", b"[],", b"5,", b'"",', b'"a",'])
    return exchange(port, request(b'{"max_tokens": 1, "prompt": [%s[]]}' % (lists * (1_900_000 // len(lists)))))


@kind(2)
def promised_body(port, dice):
    """A length that never comes, or more than promised."""
    return exchange(port, request(b'{"prompt": "a"}', length=dice.choice([3, 100, 2**40, 2**64 - 1])), half_close=True)


@kind(1)
def slow_headers(port, dice):
    """A byte at a time, and then nothing more."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        for byte in b"GET /health"[: dice.randrange(1, 11)]:
            connection.sendall(bytes([byte]))
            time.sleep(WAIT / 10)
    return None


@kind(1)
def slow_body(port, dice):
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(request(b'{"prompt"', length=1000))
        time.sleep(WAIT)
    return None


@kind(3)
def half_closed(port, dice):
    body = json.dumps({"prompt": "a", "max_tokens": 4, "stream": dice.random() < 0.5}).encode()
    return exchange(port, request(body), half_close=True)


@kind(3)
def reset(port, dice):
    """A client that is gone as soon as it has asked."""
    body = json.dumps({"prompt": "a", "max_tokens": 200, "stream": dice.random() < 0.5, "ignore_eos": True}).encode()
    return exchange(port, request(body), read=False, linger=0)


@kind(1)
def not_read(port, dice):
    """A stream that nobody reads."""
    body = json.dumps({"prompt": "a", "max_tokens": 300, "stream": True, "ignore_eos": True, "n": 2}).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.sendall(request(body))
        time.sleep(WAIT)
    return None


@kind(2)
def other_paths(port, dice):
    path = dice.choice([b"/tokenize", b"/detokenize", b"/v1/chat/completions", b"/v1/models", b"/metrics", b"/nothing"])
    body = json.dumps({dice.choice(["prompt", "tokens", "messages"]): dice.choice(VALUES)}).encode("utf-8", "surrogatepass")
    headers = dice.choice([b"Content-Type: application/json\r\n", b"Content-Type: text/plain\r\n", b"Content-Encoding: gzip\r\n", b""])
    return exchange(port, request(body, path, headers))


def main():
    arguments = served.parser(__doc__)
    arguments.add_argument("--count", type=int, default=1000, help="number of requests [default: 1000]")
    arguments.add_argument("--seed", type=int, default=0, help="seed of the requests [default: 0]")
    options = arguments.parse_args()
    dice = random.Random(options.seed)
    kinds = dice.choices(list(KINDS), list(KINDS.values()), k=options.count)
    question = {"prompt": "The engine", "max_tokens": 20, "temperature": 0}
    with served.checkpoints(options) as checkpoints, served.Server(options.binary, checkpoints) as server:
        expected = server.post("/v1/completions", question)["choices"]
        answers, started, before = {}, time.monotonic(), server.resident()
        held = [socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) for _ in range(HELD)]
        for i, connection in enumerate(held):
            connection.sendall(request(b'{"prompt"', length=1000)[: 20 * (i % 8)])
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            jobs = {pool.submit(call, server.port, random.Random(dice.random())): call.__name__ for call in kinds}
            for i, job in enumerate(concurrent.futures.as_completed(jobs)):
                found = answers.setdefault(jobs[job], {})
                status = job.result()
                found[status] = found.get(status, 0) + 1
                if i % 1000 == 999:
                    assert server.post("/v1/completions", question)["choices"] == expected
        seconds = time.monotonic() - started
        for connection in held:
            connection.close()
        for name, found in sorted(answers.items()):
            counts = ", ".join(f"{status or 'closed'}: {count}" for status, count in sorted(found.items(), key=str))
            print(f"{name}: {counts}")
        statuses = {status for found in answers.values() for status in found}
        assert not [status for status in statuses if isinstance(status, int) and status >= 500 and status != 501], answers
        assert "timeout" not in statuses, f"a request had no answer within {PATIENCE} s: {answers}"
        assert server.post("/v1/completions", question)["choices"] == expected
        idle = lambda: server.metric("vllm:num_requests_running") + server.metric("vllm:num_requests_waiting") == 0
        served.until(idle, 30, "no request may be left")
        after = server.resident()
        memory = f"{before >> 20} to {after >> 20} MiB"
        assert after - before < GROWTH, f"memory: {memory}"
        print(f"{options.count} hostile requests in {seconds:.1f} s, memory {memory}; the server answers as before")


if __name__ == "__main__":
    main()
