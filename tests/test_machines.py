"""Two machines under the launch command of the README: two network namespaces on this host, joined by a veth pair, CPU and gloo.
They share the file system, as the machines of a cluster do."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import forked
import runs
import toy

ROOT = Path(__file__).parent.parent
STEPS = 4
pytestmark = [pytest.mark.slow, pytest.mark.needs("time", "root", "ip", "namespaces")]
# Times, and the only figure that shows the rounding of another number of threads (1e-7; a rank alone on its machine has more).
LEFT_OUT = {"rollout_s", "reward_s", "train_s", "sync_s", "step_s", "rollout_logprob_diff"}
FLAGS = ["--rollout", "hf", "--steps", STEPS, "--prompts_per_step", 8, "--responses_per_prompt", 4, "--minibatch_prompts", 2, "--max_response_tokens", 32,
         "--reward_workers", 1, "--lr", "3e-4", "--warmup_steps", 0, "--no_think_end", 0.5, "--no_think_start", -0.5, "--save_every", 1,
         "--eval_file=", "--keep_checkpoints", 10]


def ip(*args) -> str:
    done = subprocess.run(["ip", *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(map(str, args))}: {done.stderr}"
    return done.stdout


@pytest.fixture
def machines():
    """Names of two network namespaces, 10.77.0.1 and 10.77.0.2; whatever runs in them ends with the test."""
    names = [f"rl{os.getpid()}{letter}" for letter in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "veth0", "netns", names[0], "type", "veth", "peer", "name", "veth0", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "veth0")
            for device in ("lo", "veth0"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            if name in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.split():
                kill_machine(name)
                ip("netns", "del", name)


def kill_machine(name: str) -> None:
    """kill -9 of everything that runs on it."""
    while pids := ip("netns", "pids", name).split():
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)


def launch(rank: int, machines: list[str], log: Path, flags: list, prelude: str = "", stage: str = "rl_gppo.py") -> subprocess.Popen:
    """The launch command on one machine of two; the output goes to a file."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", 2, "--num_processes", 2, "--mixed_precision", "no",
               "--dynamo_backend", "no", "--machine_rank", rank, "--main_process_ip", "10.77.0.1", "--main_process_port", 29500, ROOT / stage, *flags]
    inside = ["ip", "netns", "exec", machines[rank], "sh", "-c", prelude + 'exec "$@"', "sh"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "veth0", "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        return subprocess.Popen([*inside, *map(str, command)], env=environment, stdout=file, stderr=subprocess.STDOUT, cwd=log.parent)


class Started:
    """`launch` without the launcher, which sets these variables; three times as fast."""

    def __init__(self, rank: int, machines: list[str], log: Path, flags: list, stage: str = "rl_gppo.py"):
        env = forked.world(rank, 2, 29500) | {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "10.77.0.1", "GLOO_SOCKET_IFNAME": "veth0"}
        network = f"/run/netns/{machines[rank]}"
        self.process = forked.start(stage.removesuffix(".py"), *flags, out=log, cwd=log.parent, env=env, network=network)

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode


def run(machines: list[str], folder: Path, flags: list, stage: str = "rl_gppo.py") -> None:
    """A run on both machines, to its end."""
    processes = [Started(rank, machines, folder / f"machine{rank}.log", flags, stage) for rank in range(2)]
    assert [process.wait(180) for process in processes] == [0, 0], "".join((folder / f"machine{rank}.log").read_text()[-3000:] for rank in range(2))


def metrics_of(out: Path) -> list[dict]:
    rows = runs.read_jsonl(out / "metrics.jsonl")
    assert all(row["rollout_logprob_diff"] < 1e-6 for row in rows)
    return [{key: value for key, value in row.items() if key not in LEFT_OUT} for row in rows]


def alike(rows: list[dict]) -> list:
    """The launcher's ranks compute on all cores of their machine, and other numbers of threads round otherwise."""
    return [pytest.approx(row, rel=1e-4, abs=1e-6) for row in rows]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in toy.rl_rows("math", 64)))
    return toy.make_model(str(folder / "toy"))


def flags_of(model: str, out: Path) -> list:
    return ["--model", model, "--train_file", Path(model).with_name("train.jsonl"), "--output_dir", out, *FLAGS]


@pytest.fixture(scope="module")
def one_machine(model, tmp_path_factory) -> list[dict]:
    """Metrics of two ranks on one machine."""
    folder = tmp_path_factory.mktemp("one_machine")
    forked.run("rl_gppo", *flags_of(model, folder / "run"), ranks=2)
    metrics = metrics_of(folder / "run")
    assert [row["step"] for row in metrics] == list(range(1, STEPS + 1)) and sum(row.get("updates", 0) for row in metrics) > STEPS
    return metrics


def test_two_machines_give_the_metrics_of_one(machines, model, one_machine, tmp_path):
    run(machines, tmp_path, flags_of(model, tmp_path / "run"))  # by the launch command: the next test
    assert metrics_of(tmp_path / "run") == alike(one_machine)
    assert "2 rank(s)" in (tmp_path / "machine0.log").read_text() and "rank(s)" not in (tmp_path / "machine1.log").read_text()


@pytest.mark.parametrize("lost, how, launch", [(0, "killed", launch), (1, "unplugged", Started)])
def test_a_machine_that_dies_ends_the_other_and_a_restart_resumes(machines, model, one_machine, tmp_path, lost, how, launch):
    """A killed machine closes its connections; one that is unplugged says nothing, and rank_timeout_s ends the wait for it."""
    flags, limit = flags_of(model, tmp_path / "run"), 20
    logs = [tmp_path / f"machine{rank}.log" for rank in range(2)]
    processes = [launch(rank, machines, logs[rank], [*flags, "--rank_timeout_s", limit]) for rank in range(2)]
    deadline = time.monotonic() + 600
    while not runs.checkpoints(tmp_path / "run"):
        assert all(process.poll() is None for process in processes) and time.monotonic() < deadline, "".join(log.read_text()[-3000:] for log in logs)
        time.sleep(0.01)
    time.sleep(0.2)  # in the middle of a step
    begun = time.monotonic()
    if how == "unplugged":
        ip("-n", machines[lost], "link", "set", "veth0", "down")
    else:
        kill_machine(machines[lost])
    assert processes[1 - lost].wait(600) != 0
    print(f"ended after {time.monotonic() - begun:.1f} s")
    took, output = time.monotonic() - begun, logs[1 - lost].read_text()
    assert took < limit + 60, f"{took:.0f} s"
    messages = [line for line in output.replace("\r", "\n").split("\n") if line.startswith("rl_gppo.py: ")]
    assert len(messages) == 1 and f"rank {1 - lost}" in messages[0] and "checkpoint-" in messages[0], output[-4000:]
    assert f'"{ROOT / "rl_gppo.py"}", line' not in output, "a traceback of the stage"
    kill_machine(machines[lost])
    done = runs.checkpoints(tmp_path / "run")[-1]
    assert int(done.name.split("-")[1]) < STEPS, "the run had ended before its machine died"
    if how == "unplugged":
        ip("-n", machines[lost], "link", "set", "veth0", "up")
    again = tmp_path / "again"
    again.mkdir()
    run(machines, again, flags)
    assert f"step {done.name.split('-')[1]} of {STEPS}" in (again / "machine0.log").read_text()
    assert metrics_of(tmp_path / "run") == alike(one_machine)


def test_sft_on_two_machines_ends_with_one_and_resumes(machines, model, tmp_path):
    flags = ["--model", model, "--train_file", tmp_path / "train.jsonl", "--output_dir", tmp_path / "run", "--epochs", 1, "--global_batch", 4,
             "--save_every", 1, "--max_tokens", 512, "--token_budget", 512]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in toy.sft_rows("math", 160)))
    logs = [tmp_path / f"machine{rank}.log" for rank in range(2)]
    processes = [Started(rank, machines, logs[rank], flags, stage="sft.py") for rank in range(2)]
    deadline = time.monotonic() + 600
    while not runs.checkpoints(tmp_path / "run"):
        assert all(process.poll() is None for process in processes) and time.monotonic() < deadline, "".join(log.read_text()[-3000:] for log in logs)
        time.sleep(0.01)
    kill_machine(machines[1])
    assert processes[0].wait(600) != 0
    output = logs[0].read_text()
    (message,) = [line for line in output.replace("\r", "\n").split("\n") if line.startswith("sft.py: ")]
    assert "rank 0 lost another rank" in message and "checkpoint-" in message and f'"{ROOT / "sft.py"}", line' not in output, output[-4000:]
    done = runs.checkpoints(tmp_path / "run")[-1]
    run(machines, tmp_path, [*flags, "--save_every", 50], "sft.py")
    assert [row["step"] for row in runs.read_jsonl(tmp_path / "run" / "metrics.jsonl")] == list(range(1, 41)) and 1 <= int(done.name.split("-")[1]) < 40
    assert (tmp_path / "run" / "final" / "model.safetensors").exists()


def test_machines_without_a_shared_folder_are_told(machines, model, tmp_path):
    (tmp_path / "shared").mkdir()
    flags = flags_of(model, tmp_path / "shared" / "run")
    processes = [launch(0, machines, tmp_path / "machine0.log", flags),
                 launch(1, machines, tmp_path / "machine1.log", flags, f"mount -t tmpfs tmpfs {tmp_path / 'shared'}; ")]
    assert processes[0].wait(600) != 0
    output = (tmp_path / "machine0.log").read_text()
    messages = [line for line in output.split("\n") if line.startswith("rl_gppo.py: ")]
    assert len(messages) == 1 and "output_dir" in messages[0] and "rank 1" in messages[0], output[-4000:]
