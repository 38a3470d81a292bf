"""Checkpoint and resume: a run that is killed, stopped, or that meets a full disk goes on and ends with the bits of a run that was
never interrupted; whatever the moment, `resume: auto` finds a whole checkpoint or starts anew."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from klear import folders
import forked
from klear import ranks
import rl_gppo
import runs
import toy
from rewards import Reward

ROOT = Path(__file__).parent.parent
STEPS = 6
ENV = {**{k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}, "OMP_NUM_THREADS": "1"}
SMALL = ["--rollout", "hf", "--steps", STEPS, "--prompts_per_step", 4, "--responses_per_prompt", 4, "--minibatch_prompts", 2, "--max_response_tokens", 16,
         "--reward_workers", 1, "--lr", "3e-4", "--warmup_steps", 0, "--no_think_end", 0.5, "--no_think_start", -0.5, "--save_every", 2, "--eval_every", 3,
         "--token_budget", 120, "--rollout_batch", 8]  # several micro-batches in an update, two chunks in a rollout


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with model/, train.jsonl and eval.jsonl."""
    folder = tmp_path_factory.mktemp("data")
    toy.make_model(str(folder / "model"))
    for name, count in (("train", 64), ("eval", 8)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in toy.rl_rows("math", count, 0, split=name)))
    return folder


def flags_of(data: Path, out: Path, *more) -> list[str]:
    return [*map(str, ["--model", data / "model", "--train_file", data / "train.jsonl", "--eval_file", data / "eval.jsonl", "--output_dir", out,
                       *SMALL, *more])]


@pytest.fixture(scope="module")
def whole(data) -> Path:
    """The uninterrupted run, in a process of its own."""
    finish(flags_of(data, data / "whole"), data / "log")
    metrics = lines_of(data / "whole", "metrics.jsonl")
    assert [m["step"] for m in metrics] == list(range(1, STEPS + 1)) and sum(m.get("updates", 0) for m in metrics) >= STEPS
    return data / "whole"


def lines_of(out: Path, name: str) -> list[dict]:
    """Rows of a JSONL file without the times in them."""
    rows = [json.loads(line) for line in (out / name).read_text().split("\n")[:-1]]
    return [{k: v for k, v in row.items() if not k.endswith("_s")} for row in rows]


def same_end(out: Path, whole: Path) -> None:
    """Identical metrics, samples, evaluations and checkpoint names, and the same bits in the final weights."""
    for name in ("metrics.jsonl", "rewards.jsonl", "samples.jsonl", "eval.jsonl"):
        assert lines_of(out, name) == lines_of(whole, name), name
    a, b = (load_file(run / "final" / "model.safetensors") for run in (out, whole))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert [p.name for p in runs.checkpoints(out)] == [p.name for p in runs.checkpoints(whole)]
    assert {p.name for p in out.iterdir()} == {p.name for p in whole.iterdir()}  # nothing left lying about


def stage(flags: list[str], log: str, before=None, *args) -> None:
    """The stage in a forked process, its output in a file."""
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)
    forked.no_figures()
    if before:
        before(*args)
    rl_gppo.main(flags)


def fork(flags: list[str], log: Path, before=None, *args) -> multiprocessing.Process:
    process = forked.FORK.Process(target=stage, args=(flags, str(log), before, *args))
    process.start()
    return process


def finish(flags: list[str], log: Path, before=None, *args, code: int = 0) -> str:
    """Runs a forked stage to its end; returns its output."""
    process = fork(flags, log, before, *args)
    process.join(300)
    assert process.exitcode == code, log.read_text()[-4000:]
    return log.read_text()


def mistakes(output: str) -> list[str]:
    """The lines that the stage itself wrote about an error; there must be no traceback beside them."""
    assert "Traceback" not in output, output[-4000:]
    return [line for line in output.replace("\r", "\n").split("\n") if line.startswith("rl_gppo.py: ")]


# ----------------------------------------------------------------------------------------------------------------- kill -9
def wait_for_steps(steps: int, out: Path, alive, said) -> None:
    """Until a run has made that many."""
    deadline = time.time() + 300  # only a hang takes that long
    while not ((out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text().count("\n") >= steps):
        assert alive() and time.time() < deadline, said()[-4000:]
        time.sleep(0.005)


def run_until(steps: int, sent: int, command: list, out: Path, all_processes: bool = True) -> str:
    """Starts a command and, once its run has made that many steps, sends a signal to all its processes (as Slurm does) or to
    the first one; returns the output."""
    process = subprocess.Popen(list(map(str, command)), env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        wait_for_steps(steps, out, lambda: process.poll() is None, lambda: process.communicate()[0])
        os.killpg(process.pid, sent) if all_processes else process.send_signal(sent)
        return process.communicate(timeout=300)[0]  # until the last process has closed it
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.needs("time")
@pytest.mark.slow
def test_killed_after_three_steps(data, whole):
    out = data / "killed"
    process = fork(flags_of(data, out), data / "log")
    wait_for_steps(3, out, process.is_alive, (data / "log").read_text)
    process.kill()
    process.join()
    assert 3 <= len(lines_of(out, "metrics.jsonl")) < STEPS and not (out / "final").exists()
    assert f"step 0 of {STEPS}" not in finish(flags_of(data, out), data / "log")
    same_end(out, whole)
    before = {p: p.stat().st_mtime_ns for p in out.glob("checkpoint-*/**/*")}
    assert finish(flags_of(data, out), data / "log").count(f"step {STEPS} of {STEPS}") == 1  # once more: nothing left to do
    same_end(out, whole)
    assert before == {p: p.stat().st_mtime_ns for p in out.glob("checkpoint-*/**/*")}


@pytest.mark.needs("time")
@pytest.mark.slow
def test_killed_at_ten_random_moments(data, whole):
    """Each run goes on where the one before was killed; the moments fall into loading, rollout, update, evaluation and saving.
    At least two of them after a checkpoint, however slow the machine is."""
    rng, kills, finished, resumed, out = random.Random(1), 0, 0, 0, data / "random"
    begun = time.monotonic()
    finish(flags_of(data, data / "timed"), data / "log")
    duration = time.monotonic() - begun
    while kills < 10 or resumed < 2:
        process = fork(flags_of(data, out), data / "log")
        process.join(rng.uniform(0, duration))
        process.kill()
        process.join()
        output = (data / "log").read_text()
        resumed += any(f"step {step} of {STEPS}" in output for step in range(2, STEPS))
        if process.exitcode == -signal.SIGKILL:
            kills += 1
        else:  # it had ended by itself
            assert process.exitcode == 0, output[-4000:]
            same_end(out, whole)
            finished, out = finished + 1, data / f"random{finished}"
    finish(flags_of(data, out), data / "log")
    same_end(out, whole)


def kill_at(folder: str, count: int, event_name: str = "", file: str = "") -> None:
    """Kills this process at its count-th operation on a file whose path holds `folder` (and the event and file name given)."""
    left = [count]

    def hook(event: str, args: tuple) -> None:
        named = any(folder in str(arg) and file in str(arg) for arg in args[:2])
        inside = event in ("os.remove", "os.rmdir") and args[1] != -1  # rmtree names them relative to their open folder
        if event.startswith(event_name or ("open", "os.", "shutil.")) and (named or inside):
            left[0] -= 1
            if left[0] == 0:
                if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR) and not args[2] & os.O_APPEND:
                    os.open(args[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)  # opened, nothing written yet
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_written(data, whole):
    """While the tensors of checkpoint-4 are written, before it gets its name, and while the oldest one is deleted."""
    out = data / "saving"
    for point in (("saving/checkpoint-4", 1, "open", ".distcp"), ("saving/checkpoint-4", 1, "os.rename"), ("saving/checkpoint-2", 1, "shutil.rmtree")):
        process = fork(flags_of(data, out), data / "log", kill_at, *point)
        process.join(300)
        assert process.exitcode == -signal.SIGKILL, (point, (data / "log").read_text()[-4000:])
    finish(flags_of(data, out), data / "log")
    same_end(out, whole)


def killed_everywhere(flags: list[str], report: str) -> None:
    """Kills save_checkpoint() and start() at each of their file operations in turn, in a forked process, and looks whether
    the folder can be resumed from. Writes {what: number of operations} and what went wrong."""
    torch.set_num_threads(1)
    cfg = rl_gppo.parse(flags)
    out, spare = Path(cfg.output_dir), Path(cfg.output_dir).with_name("spare")
    run, _, train, held_out, *_ = rl_gppo.start(cfg)
    rl_gppo.load_policy, rl_gppo.load_tokenizer = lambda *_: run.bare.lm, lambda *_: run.tokenizer
    prompts = {"train_file": train, "eval_file": held_out}
    rl_gppo.load_prompts = lambda spec, knob, *_: prompts[knob]
    weight = run.bare.lm.get_input_embeddings().weight
    counts, wrong = {}, []

    def add(value: float) -> None:
        with torch.no_grad():
            weight.add_(value)

    def each(what: str, action, before, allowed: dict) -> None:
        for count in range(1, 1000):
            shutil.rmtree(out, ignore_errors=True)
            if before:
                shutil.copytree(before, out)
            pid = os.fork()
            if pid == 0:
                kill_at(str(out), count)
                try:
                    action()
                finally:
                    os._exit(0)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
                counts[what] = count - 1
                return
            try:
                found = folders.open_output(cfg, rl_gppo.MAY_CHANGE)
                if (found.name if found else None) not in allowed:
                    wrong.append(f"{what}, {count}: {found}")
                kept = weight.detach().clone()
                for folder in runs.checkpoints(out):  # the older ones too
                    if ranks.load_checkpoint(folder, run)[0]["step"] != int(folder.name[-1]) or weight[0, 0].item() != allowed[folder.name]:
                        wrong.append(f"{what}, {count}: {folder.name} holds other weights")
                    if {p.name for p in folder.rglob("*")} != {p.name for p in (spare / "checkpoint-1").rglob("*")}:
                        wrong.append(f"{what}, {count}: {folder.name} has lost files")
                with torch.no_grad():
                    weight.copy_(kept)
                if before:
                    for file in ("metrics.jsonl", "rewards.jsonl", "samples.jsonl", "eval.jsonl"):
                        if [row["step"] for row in runs.read_jsonl(out / file)][:1] != [1]:
                            wrong.append(f"{what}, {count}: {file} lost its rows")
            except (SystemExit, Exception) as error:
                wrong.append(f"{what}, {count}: {error!r}")

    first = weight[0, 0].item()
    each("first start", lambda: rl_gppo.start(cfg), None, {None: 0})
    shutil.rmtree(out, ignore_errors=True)
    rl_gppo.start(cfg)
    ranks.save_checkpoint(out / "checkpoint-1", {"step": 1, "cursor": 4, "best": None}, run)
    for name in ("metrics", "rewards", "samples", "eval"):
        runs.append_jsonl(out / f"{name}.jsonl", [{"step": 1}, {"step": 2}])
    shutil.copytree(out, spare)
    each("second start", lambda: rl_gppo.start(cfg), spare, {"checkpoint-1": first})
    add(1.0)
    second = weight[0, 0].item()
    each("checkpoint", lambda: ranks.save_checkpoint(out / "checkpoint-2", {"step": 2, "cursor": 8, "best": None}, run), spare,
         {"checkpoint-1": first, "checkpoint-2": second})
    Path(report).write_text(json.dumps({"counts": counts, "wrong": wrong}))


@pytest.mark.needs("time")
@pytest.mark.slow
def test_killed_at_every_file_operation(data):
    process = forked.FORK.Process(target=killed_everywhere, args=(flags_of(data, data / "everywhere", "--keep_checkpoints", 1), str(data / "report.json")))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    report = json.loads((data / "report.json").read_text())
    assert report["counts"]["first start"] >= 8 and report["counts"]["second start"] >= 8 and report["counts"]["checkpoint"] >= 20, report["counts"]
    assert not report["wrong"], report["wrong"]


@pytest.mark.parametrize("torn", [b'{"step": 7, "prompt": "a}', '{"step": 7, "prompt": "é'.encode()[:-1], b'{"step": 7', b'{"step": 1}'])
def test_a_line_cut_by_a_crash_is_left_out(tmp_path, torn):
    rows = [{"step": 1, "response": "\u2028 and \x85 end no line"}, {"step": 2, "response": "}"}]
    runs.append_jsonl(tmp_path / "samples.jsonl", rows)
    with (tmp_path / "samples.jsonl").open("ab") as file:
        file.write(torn)
    assert runs.read_jsonl(tmp_path / "samples.jsonl") == rows


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named(data, whole):
    out = data / "damaged"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "final")
    for name in ("weights/__0_0.distcp", "rng_0.pt", "state.json"):
        file = out / "checkpoint-6" / "trainer" / name
        content = file.read_bytes()
        file.write_bytes(content[:len(content) // 2])
        (message,) = mistakes(finish(flags_of(data, out), data / "log", code=2))
        assert "checkpoint-6 cannot be read" in message and "delete it" in message, name
        file.write_bytes(content)
    shutil.rmtree(out / "checkpoint-6")
    finish(flags_of(data, out), data / "log")
    same_end(out, whole)


@pytest.mark.slow
@pytest.mark.needs("time", "vllm")
def test_the_real_engine_goes_on_with_the_same_bits(data):
    """vLLM too: its samples depend on their seeds and on the weights alone."""
    flags = ["--rollout", "vllm", "--eval_file=", "--steps", 4]
    finish(flags_of(data, data / "engine", *flags), data / "log")
    shutil.copytree(data / "engine", data / "engine_resumed")
    for name in ("checkpoint-4", "final"):
        shutil.rmtree(data / "engine_resumed" / name)
    assert "rollout by VLLMRollout, step 2 of 4" in finish(flags_of(data, data / "engine_resumed", *flags), data / "log")
    same_end(data / "engine_resumed", data / "engine")


@pytest.mark.needs("time")
@pytest.mark.slow
def test_resume_from_a_path(data, whole):
    """Into a new folder, where the same command goes on from that folder's own checkpoints later; and not into one that holds
    later checkpoints, which a later `resume: auto` would take for its own."""
    path, out = ["--resume", whole / "checkpoint-4"], data / "branch"
    assert f"step 4 of {STEPS}" in finish(flags_of(data, out, *path), data / "log", kill_at, f"{out}/checkpoint-6", 1, code=-signal.SIGKILL)
    assert "step 4 of 5" in finish(flags_of(data, out, *path, "--steps", 5), data / "log")
    assert f"step 5 of {STEPS}" in finish(flags_of(data, out, *path), data / "log")
    before = {p: p.stat().st_mtime_ns for p in out.glob("checkpoint-*/**/*")}
    assert f"step {STEPS} of {STEPS}" in finish(flags_of(data, out, *path), data / "log")
    assert before == {p: p.stat().st_mtime_ns for p in out.glob("checkpoint-*/**/*")}
    a, b = (load_file(run / "final" / "model.safetensors") for run in (out, whole))
    assert all(torch.equal(a[name], b[name]) for name in a)
    (message,) = mistakes(finish(flags_of(data, whole, *path), data / "log", code=2))
    assert "checkpoint-6" in message and "--output_dir" in message


@pytest.mark.slow
def test_fewer_steps_than_were_made_are_refused(data, whole):
    """In one line, and the folder stays as it is."""
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in whole.rglob("*")}
    (message,) = mistakes(finish(flags_of(data, whole, "--steps", 2), data / "log", code=2))
    assert "steps 2" in message and "checkpoint-6 is at step 6 already" in message
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in whole.rglob("*")}


# ----------------------------------------------------------------------------------------------------------------- signals
def signal_at(place: str, step: int, count: int, number: int) -> None:
    """Sends this process a signal at its count-th token (place: train or eval) or micro-batch (update) of a step, and prints a
    line for each that was begun after it."""
    where, left = [None, None], [count]

    def watched(function, enter=None):
        def call(*args):
            if enter:
                where[:] = enter(*args)
            elif where == [place, step]:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), number)
                elif left[0] < 0:
                    print(f"LATE {-left[0]}", flush=True)
            return function(*args)

        return call

    rl_gppo.collect = watched(rl_gppo.collect, lambda engine, prompts, n, key, *_: key[1:3])
    rl_gppo.update_policy = watched(rl_gppo.update_policy, lambda samples, step, *_: ("update", step))
    rl_gppo.micro_loss, rl_gppo.SeededSampler.draw = map(watched, (rl_gppo.micro_loss, rl_gppo.SeededSampler.draw))


@pytest.mark.needs("time")
@pytest.mark.slow
def test_a_signal_at_any_moment_stops_at_once_and_costs_no_bit(data, whole):
    """One run, stopped eight times: in rollouts, updates (twice in the same step) and evaluations. No further token or
    micro-batch is begun, one line says from where the same command goes on, and in the end nothing shows of it."""
    out = data / "stopped_often"
    for place, step, count, number, after, start in [
            ("eval", 0, 3, signal.SIGTERM, 0, "the beginning"),
            ("update", 1, 1, signal.SIGINT, 0, "checkpoint-0-unfinished"),  # before the optimizer has made a step
            ("update", 1, 3, signal.SIGTERM, 0, "checkpoint-0-unfinished"),  # the second update
            ("train", 2, 5, signal.SIGINT, 1, "checkpoint-1"),
            ("update", 3, 1, signal.SIGTERM, 2, "checkpoint-2-unfinished"),
            ("eval", 3, 4, signal.SIGINT, 3, "checkpoint-3"),
            ("train", 5, 20, signal.SIGTERM, 4, "checkpoint-4"),  # the second chunk
            ("eval", 6, 2, signal.SIGINT, 6, "checkpoint-6")]:
        output = finish(flags_of(data, out), data / "log", signal_at, place, step, count, number)
        start = start if start == "the beginning" else out / start
        line = f"{signal.Signals(number).name}: stopped after step {after}; the same command goes on from {start}"
        assert output.rstrip().endswith("\n" + line) and output.count("stopped after") == 1, output[-2000:]
        assert "LATE" not in output and not mistakes(output) and not (out / "final").exists()
        assert start == "the beginning" or runs.checkpoints(out)[-1] == start
    finish(flags_of(data, out), data / "log")
    same_end(out, whole)


@pytest.mark.slow
def test_an_unfinished_step_keeps_its_micro_batches(data, whole):
    """Resumed with what a user changes who ran out of memory: the old log-probabilities belong to the micro-batches of before,
    and recomputed layers give the same bits."""
    out = data / "another_budget"
    finish(flags_of(data, out), data / "log", signal_at, "update", 1, 3, signal.SIGTERM)
    smaller = ["--token_budget", 10**6, "--gradient_checkpointing", "true"]
    finish(flags_of(data, out, *smaller, "--steps", 1), data / "log")
    assert lines_of(out, "metrics.jsonl") == lines_of(whole, "metrics.jsonl")[:1]
    finish(flags_of(data, out, *smaller, "--logit_chunk", 7, "--vllm_tensor_parallel", 1, "--steps", 2), data / "log")
    assert len(lines_of(out, "metrics.jsonl")) == 2


@pytest.mark.slow
def test_the_best_checkpoint_is_not_overwritten_by_an_unfinished_step(data):
    """checkpoint-2 is the best and the newest when step 3 is interrupted."""
    out = data / "best_kept"
    flags = flags_of(data, out, "--eval_every", 2, "--save_every", 1, "--keep_checkpoints", 1)
    finish(flags, data / "log", best_then_signal)
    assert [p.name for p in runs.checkpoints(out)] == ["checkpoint-2", "checkpoint-2-unfinished"]
    before = (out / "checkpoint-2" / "model.safetensors").read_bytes()
    finish([*flags, "--steps", "4"], data / "log", set_accuracies, [0])
    assert [p.name for p in runs.checkpoints(out)] == ["checkpoint-2", "checkpoint-4"]
    assert (out / "checkpoint-2" / "model.safetensors").read_bytes() == before


def best_then_signal() -> None:
    set_accuracies([0, 5])
    signal_at("update", 3, 1, signal.SIGTERM)


@pytest.mark.slow
def test_an_evaluation_that_is_made_again_stands_there_once(data):
    """Stopped in the evaluation of step 3, which then has a checkpoint without it; resumed, evaluated, killed; resumed."""
    out = data / "evaluated_twice"
    finish(flags_of(data, out), data / "log", signal_at, "eval", 3, 1, signal.SIGTERM)
    finish(flags_of(data, out), data / "log", kill_at, f"{out}/checkpoint-4", 1, code=-signal.SIGKILL)
    assert [row["step"] for row in runs.read_jsonl(out / "eval.jsonl")] == [0, 3]
    finish(flags_of(data, out), data / "log")
    assert [row["step"] for row in runs.read_jsonl(out / "eval.jsonl")] == [0, 3, 6]


def never_judged() -> None:
    """A reward of step 2 never comes: the signal has killed the worker that owes it."""
    wait, calls = ranks.Run.wait, []

    def waiting(run, futures):
        calls.append(len(calls))
        if len(calls) == 3:  # after the evaluation of step 0 and step 1
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
            futures = [*futures, Future()]
        wait(run, futures)

    ranks.Run.wait = waiting


@pytest.mark.slow
def test_a_signal_ends_the_wait_for_rewards(data, whole):
    out = data / "never_judged"
    output = finish(flags_of(data, out, "--resume", "never"), data / "log", never_judged)
    line = f"SIGTERM: stopped after step 1; the same command with --resume auto goes on from {out}/checkpoint-1"
    assert output.rstrip().endswith("\n" + line), output[-2000:]
    finish(flags_of(data, out), data / "log")
    for name in ("metrics.jsonl", "rewards.jsonl", "samples.jsonl", "eval.jsonl"):
        assert lines_of(out, name) == lines_of(whole, name), name


def interrupted_twice() -> None:
    """Ctrl-C in an update, and again while the run is still busy with its micro-batch."""
    micro_loss = rl_gppo.micro_loss

    def slow(*args):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.1)
        return micro_loss(*args)

    rl_gppo.micro_loss = slow


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_run_without_saving(data):
    output = finish(flags_of(data, data / "twice"), data / "log", interrupted_twice, code=130)
    assert "Traceback" not in output and not runs.checkpoints(data / "twice")


@pytest.mark.needs("time")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_run(data, whole, number):
    """As Slurm and a terminal send it, to the reward workers too, whenever it comes; every step is saved and nothing is lost."""
    out = data / f"all_{number}"
    process = forked.start("rl_gppo", *flags_of(data, out, "--save_every", 0), out=data / f"log_{number}", session=True)
    wait_for_steps(2, out, process.is_alive, (data / f"log_{number}").read_text)
    os.killpg(process.pid, number)
    process.join(300)
    code, output = process.exitcode, (data / f"log_{number}").read_text()
    steps = len(lines_of(out, "metrics.jsonl"))
    assert code == 0 and "Traceback" not in output and 2 <= steps < STEPS and len(runs.checkpoints(out)) == 1, output[-4000:]
    (newest,) = runs.checkpoints(out)
    line = f"{number.name}: stopped after step {steps}; the same command goes on from {newest}"
    assert newest.name.split("-")[1] == str(steps) and output.count(line + "\n") == output.count("stopped after") == 1, output[-2000:]
    finish(flags_of(data, out), data / "log")
    for name in ("metrics.jsonl", "rewards.jsonl", "samples.jsonl", "eval.jsonl"):
        assert lines_of(out, name) == lines_of(whole, name), name
    a, b = (load_file(run / "final" / "model.safetensors") for run in (out, whole))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.needs("time")
@pytest.mark.slow
def test_a_launcher_that_is_killed_stops_its_run(data, whole):
    """SIGKILL of `accelerate launch`, which cannot pass anything on: the trainer saves and ends."""
    out = data / "orphan"
    one_thread = f"LOCAL_WORLD_SIZE={os.cpu_count()}"  # as `whole` has; under a launcher a rank takes all of its cores
    command = ["env", one_thread, sys.executable, "-m", "accelerate.commands.launch", "--num_machines", 1, "--num_processes", 1, "--mixed_precision", "no",
               "--dynamo_backend", "no", "--cpu", ROOT / "rl_gppo.py", *flags_of(data, out, "--save_every", 0)]
    output = run_until(2, signal.SIGKILL, command, out, all_processes=False)  # returns when the trainer has closed its output
    steps = len(lines_of(out, "metrics.jsonl"))
    assert output.count(f"SIGTERM: stopped after step {steps};") == 1 and "Traceback" not in output and 2 <= steps < STEPS, output[-4000:]
    finish(flags_of(data, out), data / "log")
    a, b = (load_file(run / "final" / "model.safetensors") for run in (out, whole))
    assert all(torch.equal(a[name], b[name]) for name in a) and lines_of(out, "metrics.jsonl") == lines_of(whole, "metrics.jsonl")


@pytest.mark.needs("time")
@pytest.mark.slow
def test_sigterm_stops_two_ranks_after_the_same_step(data):
    """Whenever it reaches the launcher and each of its ranks; and one rank alone goes on from there."""
    out = data / "stopped_two"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = ["env", "ACCELERATE_USE_CPU=true", sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", 1,
               "--mixed_precision", "no", "--dynamo_backend", "no", "--num_processes", 2, "--main_process_port", port,
               ROOT / "rl_gppo.py", *flags_of(data, out, "--save_every", 0)]
    output = run_until(1, signal.SIGTERM, command, out)
    steps = len(lines_of(out, "metrics.jsonl"))
    (newest,) = runs.checkpoints(out)
    assert output.count(f"SIGTERM: stopped after step {steps}; the same command goes on from {newest}") == 1 and 1 <= steps < STEPS
    assert {p.name for p in (newest / "trainer").iterdir()} == {"weights", "state.json", "rng_0.pt", "rng_1.pt"}
    assert f"step {steps} of {STEPS}" in finish(flags_of(data, out), data / "log")


# --------------------------------------------------------------------------------------------------------- disk, old and best
def leave_free(disk: str, free: int) -> None:
    """Somebody else's file fills the disk."""
    with open(f"{disk}/filler", "wb") as file:
        room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - free
        os.posix_fallocate(file.fileno(), 0, room)


def fill_before(function: str, disk: str, free: int) -> None:
    module = ranks if function == "save_pretrained" else rl_gppo
    original = getattr(module, function)

    def filling(*args):
        if function != "save_pretrained" or args[0].name.startswith("final"):
            leave_free(disk, free)
        return original(*args)

    setattr(module, function, filling)


def on_a_small_disk(data: str) -> None:
    """In a forked process with mounts of its own, so that nothing stays mounted whatever happens."""
    forked.own_mounts()
    forked.redirect(f"{data}/disk.log", f"{data}/disk.log")
    data, disk = Path(data), Path(data) / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", disk], check=True)
    out, log, flags = disk / "run", data / "log", flags_of(data, disk / "run")
    finish(flags, log, kill_at, f"{out}/checkpoint-4", 1, code=-signal.SIGKILL)  # two steps are saved
    for function, free, step in (("rollout", 0, 2), ("rollout", 10**6, 2), ("rollout", 7 * 10**6, 2), ("save_pretrained", 10**6, 6)):
        (message,) = mistakes(finish(flags, log, fill_before, function, str(disk), free, code=2))
        assert "No space left" in message or "Disk full?" in message, message
        (disk / "filler").unlink()
        assert runs.checkpoints(out)[-1].name == f"checkpoint-{step}" and not list(out.glob("checkpoint-*.partial")), message
        print(message)
    for free, expected in ((0, "No space left on device"), (5 * 10**6, "a checkpoint takes")):  # before anything was trained
        leave_free(str(disk), free)
        output = finish(flags_of(data, disk / "late"), log, code=2)
        (message,) = mistakes(output)
        assert expected in message and "output_dir" in message and "step 0 of" not in output, message
        (disk / "filler").unlink()
        print(message)
    finish(flags, log)
    same_end(out, data / "whole")
    subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
    (message,) = mistakes(finish(flags_of(data, disk / "later"), log, code=2))
    assert "output_dir" in message and "Read-only file system" in message
    print(message)


@pytest.mark.slow
@pytest.mark.needs("time", "namespaces")
def test_full_disk(data, whole):
    """One line each; the checkpoint before stays whole, and with room again the run ends with the same bits."""
    forked.call(on_a_small_disk, str(data))
    assert (data / "disk.log").read_text().count("rl_gppo.py: ") == 7


def set_accuracies(right: list[int]) -> None:
    """The k-th evaluation of the run finds right[k] of its eight problems solved."""
    collect, left = rl_gppo.collect, iter(right)

    def judged(engine, prompts, n, key, *args):
        samples = collect(engine, prompts, n, key, *args)
        if key[1] == "eval":
            count = next(left)
            for i, sample in enumerate(samples):
                sample.reward = Reward(1.0, i < count, "correct" if i < count else "wrong")
        return samples

    rl_gppo.collect = judged


@pytest.mark.slow
@pytest.mark.parametrize("save_every, keep, expected", [(1, 2, [2, 5, 6]), (5, 1, [2, 6]), (0, 2, [6])])
def test_the_last_and_the_best_are_kept(data, save_every, keep, expected):
    """Evaluations at 0, 2, 4, 6; the best is that of step 2, which is saved for that even where save_every would not."""
    out = data / f"kept_{save_every}_{keep}"
    flags = flags_of(data, out, "--save_every", save_every, "--keep_checkpoints", keep, "--eval_every", 2)
    finish(flags, data / "log", set_accuracies, [1, 5, 3, 4])
    assert [p.name for p in runs.checkpoints(out)] == [f"checkpoint-{n}" for n in expected]
    best = json.loads((out / "checkpoint-6" / "trainer" / "state.json").read_text())["best"]
    assert (best["step"], best["accuracy"]) == (2, 0.625)
    assert yaml.safe_load((out / "config.yaml").read_text())["keep_checkpoints"] == keep
