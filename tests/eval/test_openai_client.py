"""Evaluation by a server: a real one, which completes with the lab's own engine, and one that fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from text_models import native_text_engine
from tiny_runs import starting, tiny_config

from cppo_lab.eval.local_engine import LocalTextEngine
from cppo_lab.eval.openai_client import OpenAIClient
from cppo_lab.eval.protocols import Prompt
from cppo_lab.eval.text_engine import Decoding, Request

pytest.importorskip("openai", reason="the OpenAI client is not installed")

Invoke = Callable[..., tuple[int, str, str]]
GREEDY = Decoding(max_new_tokens=18, temperature=0.0, top_p=1.0, seed=0)


class CompletionServer:
    """Speaks the completions API; `asked` holds what it was asked. With `broken` it answers nothing but errors."""

    def __init__(self, engine: LocalTextEngine, broken: bool = False) -> None:
        self.asked: list[dict[str, Any]] = []
        lock, asked = threading.Lock(), self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    asked.append(body | {"path": self.path})
                    status, answer = (
                        (400, {"error": {"message": "no such model"}}) if broken else (200, complete(body))
                    )
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        def complete(body: dict[str, Any]) -> dict[str, Any]:
            request = Request(0, 0, Prompt(body["prompt"]), tuple(body.get("stop") or ()))
            decoding = Decoding(body["max_tokens"], body["temperature"], body["top_p"], 0)
            response = engine.generate([request], decoding)[0]
            reason = "stop" if response.finished else "length"
            choice = {"index": 0, "text": response.text, "finish_reason": reason, "logprobs": None}
            usage = {
                "prompt_tokens": 1,
                "completion_tokens": response.tokens,
                "total_tokens": 1 + response.tokens,
            }
            return {
                "id": "1", "object": "text_completion", "created": 0, "model": body["model"],
                "choices": [choice], "usage": usage,
            }  # fmt: skip

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def native(output: Path) -> LocalTextEngine:
    return native_text_engine(starting(tiny_config(output)), batch_size=8)


@pytest.fixture
def server(native: LocalTextEngine) -> Iterator[CompletionServer]:
    made = CompletionServer(native)
    yield made
    made.close()


def test_a_server_s_responses_are_those_of_the_model_behind_it(
    server: CompletionServer, native: LocalTextEngine, output: Path
) -> None:
    problems = tiny_config(output).task.build().heldout_problems()[:6]
    requests = [Request(i, 0, Prompt(p.prompt), (">>",)) for i, p in enumerate(problems)]
    engine = OpenAIClient(server.url, "tiny", concurrency=3)
    assert engine.generate(requests, GREEDY) == native.generate(requests, GREEDY)
    engine.close()
    assert {body["path"] for body in server.asked} == {"/v1/completions"}
    assert all(body["stop"] == [">>"] and body["model"] == "tiny" for body in server.asked)
    assert len({body["seed"] for body in server.asked}) == len(requests)


def test_the_command_evaluates_what_a_server_serves(
    server: CompletionServer, invoke: Invoke, tmp_path: Path
) -> None:
    arguments = [
        "eval",
        "chain",
        "--steps",
        "1",
        "--limit",
        "8",
        "--max-new-tokens",
        "18",
        "--no-track",
        "--json",
    ]
    arguments += ["--engine", "openai", "--base-url", server.url, "--model", "tiny", "-o", str(tmp_path)]
    code, out, _ = invoke(*arguments)
    assert code == 0
    result = json.loads(out)
    assert result["n"] == 8
    assert result["engine"] == {"engine": "openai", "base_url": server.url}
    asked = len(server.asked)
    assert asked == 8
    assert invoke(*arguments)[0] == 0
    assert len(server.asked) == asked, "what was sampled is not sampled again"


def test_a_server_that_fails_is_one_sentence(native: LocalTextEngine, invoke: Invoke, tmp_path: Path) -> None:
    broken = CompletionServer(native, broken=True)
    code, _, err = invoke(
        *("eval", "chain", "--limit", "4", "--engine", "openai", "--base-url", broken.url),
        *("--model", "tiny", "--no-track", "-o", str(tmp_path)),
    )
    broken.close()
    assert code == 2
    assert broken.url in err
    assert "no such model" in err
    assert "Traceback" not in err
