"""The stock `openai` client: completions, streams, log-probabilities, errors and their retries."""

import contextlib
import sys
import threading
import time
import unittest

import openai

import served

PROMPT = "The engine decodes many sequences that"
KEY = "a-key-of-the-tests"


def client(server, statuses=None, **settings):
    """A client; `statuses` gets the status of every answer, those of retries too."""
    record = (lambda response: statuses.append(response.status_code)) if statuses is not None else lambda _: None
    http = openai.DefaultHttpxClient(event_hooks={"response": [record]}, timeout=120)
    settings = {"api_key": "none", "max_retries": 0, **settings}
    return openai.OpenAI(base_url=f"{server.url}/v1", http_client=http, **settings)


class Test(unittest.TestCase):
    """Tests of a server of both models."""

    server = checkpoints = binary = None

    def setUp(self):
        self.openai = client(self.server)
        self.addCleanup(self.openai.close)

    def complete(self, prompt=PROMPT, **fields):
        fields = {"model": "block", "max_tokens": 24, "seed": 7, **fields}
        return self.openai.completions.create(prompt=prompt, **fields)

    def test_models_are_listed_and_found_by_name(self):
        self.assertEqual([model.id for model in self.openai.models.list()], ["block", "vanilla"])
        self.assertEqual(self.openai.models.retrieve("vanilla").id, "vanilla")
        with self.assertRaises(openai.NotFoundError):
            self.openai.models.retrieve("nothing")

    def test_a_completion_has_text_and_usage_and_depends_on_the_seed(self):
        for model in ("block", "vanilla"):
            answer = self.complete(model=model, extra_body={"ignore_eos": True})
            self.assertEqual((answer.object, answer.model, len(answer.choices)), ("text_completion", model, 1))
            self.assertEqual(answer.choices[0].finish_reason, "length")
            self.assertEqual(answer.usage.completion_tokens, 24)
            self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + 24)
            same, other = self.complete(model=model, extra_body={"ignore_eos": True}), self.complete(model=model, seed=8)
            self.assertEqual(answer.choices[0].text, same.choices[0].text)
            self.assertNotEqual(answer.choices[0].text, other.choices[0].text)

    def test_requests_without_a_seed_differ(self):
        self.assertNotEqual(*(self.complete(seed=None).choices[0].text for _ in range(2)))

    def test_several_prompts_and_choices_come_in_order(self):
        prompts = [PROMPT, "pub fn", "# Title"]
        answer = self.complete(prompts, n=2)
        self.assertEqual([choice.index for choice in answer.choices], list(range(6)))
        texts = [choice.text for choice in answer.choices]
        self.assertEqual(len(set(texts)), 6)
        # greedy choices of one prompt are equal, and those of a prompt are the same alone
        greedy = [choice.text for choice in self.complete(prompts, n=2, temperature=0).choices]
        self.assertEqual(greedy[::2], greedy[1::2])
        for prompt, text in zip(prompts, greedy[::2], strict=True):
            self.assertEqual(self.complete(prompt, temperature=0).choices[0].text, text)

    def test_token_ids_are_a_prompt(self):
        tokens = self.server.post("/tokenize", {"prompt": PROMPT, "add_special_tokens": False})["tokens"]
        self.assertEqual(self.server.post("/detokenize", {"tokens": tokens})["prompt"], PROMPT)
        text = self.complete().choices[0].text
        self.assertEqual(self.complete(tokens).choices[0].text, text)
        self.assertEqual([choice.text for choice in self.complete([tokens, tokens]).choices][0], text)

    def test_a_stream_has_the_same_text(self):
        for model in ("block", "vanilla"):
            whole = self.complete(model=model, n=2, max_tokens=50)
            usage = {"include_usage": True}
            texts, reasons, last = ["", ""], [None, None], None
            for chunk in self.complete(model=model, n=2, max_tokens=50, stream=True, stream_options=usage):
                self.assertIsNone(last, "usage is in the last chunk")
                for choice in chunk.choices:
                    texts[choice.index] += choice.text
                    reasons[choice.index] = choice.finish_reason or reasons[choice.index]
                last = None if chunk.choices else chunk.usage
            self.assertEqual(texts, [choice.text for choice in whole.choices])
            self.assertEqual(reasons, [choice.finish_reason for choice in whole.choices])
            self.assertEqual(last, whole.usage)

    def test_a_stop_string_ends_the_text_before_it(self):
        text = self.complete(max_tokens=60).choices[0].text
        # more than four are allowed
        stop = ["\0", "\1", "\2", "\3", text[20:24]]
        choice = self.complete(max_tokens=60, stop=stop).choices[0]
        self.assertEqual((choice.finish_reason, choice.text), ("stop", text[: text.index(stop[-1])]))
        joined = "".join(chunk.choices[0].text for chunk in self.complete(max_tokens=60, stop=stop, stream=True))
        self.assertEqual(joined, choice.text)

    def test_log_probabilities_belong_to_the_text(self):
        for model in ("block", "vanilla"):
            choice = self.complete(model=model, logprobs=3, temperature=0).choices[0]
            found = choice.logprobs
            self.assertEqual("".join(found.tokens), choice.text)
            self.assertEqual(len({len(found.tokens), len(found.token_logprobs), len(found.top_logprobs)}), 1)
            offset = 0
            for token, at, value, top in zip(
                found.tokens, found.text_offset, found.token_logprobs, found.top_logprobs, strict=True
            ):
                self.assertEqual(at, offset)
                offset += len(token)
                self.assertLessEqual(value, 0)
                # the greedy choice is the most likely token
                self.assertEqual(value, max(top.values()))
                self.assertIn(len(top), (1, 2, 3, 4))

    def test_an_echo_scores_the_prompt_as_the_harness_asks(self):
        tokens = self.server.post("/tokenize", {"prompt": PROMPT})["tokens"]
        scored = self.complete(echo=True, max_tokens=0, logprobs=1).choices[0]
        self.assertEqual((scored.text, len(scored.logprobs.tokens)), (PROMPT, len(tokens)))
        more = self.complete(tokens, echo=True, max_tokens=1, logprobs=1, temperature=0).choices[0]
        self.assertEqual(len(more.logprobs.token_logprobs), len(tokens) + 1)
        self.assertTrue(more.text.startswith(PROMPT))
        for found in (scored, more):
            first, *rest = found.logprobs.token_logprobs
            self.assertIsNone(first)
            self.assertTrue(all(value <= 0 for value in rest))
        self.assertEqual(scored.logprobs.token_logprobs, more.logprobs.token_logprobs[:-1])

    def test_wrong_requests_are_errors_of_the_client(self):
        wrong = [
            dict(temperature=-1), dict(top_p=2), dict(n=0), dict(max_tokens=-1), dict(logprobs=1000), dict(stop=[""]),
            dict(logit_bias={"x": 1}), dict(max_tokens="many"),
        ]
        for fields in wrong:
            with self.assertRaises(openai.BadRequestError, msg=fields) as raised:
                self.complete(**fields)
            self.assertEqual(raised.exception.body["param"], next(iter(fields)), fields)
            self.assertTrue(raised.exception.body["message"], fields)
        with self.assertRaises(openai.BadRequestError) as raised:
            self.complete(max_tokens=1_000_000)
        self.assertEqual(raised.exception.code, "context_length_exceeded")
        with self.assertRaises(openai.NotFoundError):
            self.complete(model="nothing")
        with self.assertRaises(openai.APIStatusError) as raised:
            self.openai.chat.completions.create(model="block", messages=[{"role": "user", "content": "Hello"}])
        self.assertEqual(raised.exception.status_code, 501)

    def test_a_closed_stream_frees_its_slot(self):
        for model in ("block", "vanilla"):
            # seconds of work, so that it is not done when the client looks
            long = dict(n=32, max_tokens=2000, stream=True, extra_body={"ignore_eos": True})
            with self.complete(model=model, **long) as stream:
                next(iter(stream))
                self.assertGreater(self.server.metric("vllm:num_requests_running", model_name=model), 0)
            idle = lambda: self.server.metric("vllm:num_requests_running", model_name=model) == 0
            served.until(idle, 5, "the slot must be free")

    def test_a_key_is_asked_for(self):
        with served.Server(self.binary, {"block": self.checkpoints["block"]}, env={served.KEY: KEY}) as server:
            for key in ("none", KEY + "x", KEY[:-1]):
                with self.assertRaises(openai.AuthenticationError):
                    client(server, api_key=key).completions.create(model="block", prompt="a")
            client(server, api_key=KEY).completions.create(model="block", prompt="a", max_tokens=1)

    def test_the_client_tries_again_when_the_queue_is_full(self):
        flags = ["--sequences", "1", "--queue", "0"]
        with served.Server(self.binary, {"vanilla": self.checkpoints["vanilla"]}, *flags) as server:
            statuses = []
            fields = dict(model="vanilla", prompt="a", max_tokens=2)
            with contextlib.ExitStack() as stack:
                long = dict(fields, n=4, max_tokens=2000, stream=True, extra_body={"ignore_eos": True})
                stream = client(server).completions.create(**long)
                stack.enter_context(contextlib.closing(stream))
                next(iter(stream))
                with self.assertRaises(openai.RateLimitError) as raised:
                    client(server).completions.create(**fields)
                self.assertGreaterEqual(int(raised.exception.response.headers["retry-after"]), 1)
                # the slot becomes free while the client waits
                timer = threading.Timer(0.3, stream.close)
                stack.callback(timer.join)
                timer.start()
                answer = client(server, statuses, max_retries=5).completions.create(**fields)
            self.assertEqual(len(answer.choices), 1)
            self.assertEqual((statuses[0], statuses[-1]), (429, 200))


def main():
    options = served.parser(__doc__).parse_args()
    with served.checkpoints(options) as checkpoints, served.Server(options.binary, checkpoints) as server:
        Test.server, Test.checkpoints, Test.binary = server, checkpoints, options.binary
        started = time.monotonic()
        result = unittest.main(argv=sys.argv[:1], exit=False, verbosity=2, warnings="ignore").result
        print(f"openai client: {result.testsRun} tests in {time.monotonic() - started:.1f} s")
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
