"""Runs a stage as its command line does, in a process forked from one that has imported torch, transformers and the rest
already: what a test pays for is the run, not the seconds of importing."""

import ctypes
import importlib.util
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from subprocess import CompletedProcess

ROOT = Path(__file__).resolve().parent.parent
PRELOAD = """torch.distributed.checkpoint torch.distributed.fsdp transformers.models.qwen3.modeling_qwen3
transformers.models.auto.modeling_auto transformers.generation.utils accelerate datasets matplotlib.pyplot math_verify pebble
rl_gppo sft eval""".split()
ENGINE = "vllm vllm.v1.engine.core vllm.v1.worker.cpu_worker vllm.model_executor.models.qwen3".split()
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(PRELOAD)


def preload_engine() -> None:
    """Has effect before the first process is started."""
    if importlib.util.find_spec("vllm"):
        FORK.set_forkserver_preload([*PRELOAD, *ENGINE])


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def world(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What a launcher tells each of several CPU ranks on one machine."""
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}


def redirect(out: str, err: str) -> None:
    for number, name in ((1, out), (2, err)):
        os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)


def no_figures() -> None:
    """Figures are empty files from here on; drawing them is a third of a short run."""
    from matplotlib.figure import Figure

    Figure.savefig = lambda self, path, **_: Path(path).touch()


def _stage(script: str, flags: list[str], out: str, err: str, env: dict[str, str], cwd: str, figures: bool,
           network: str | None, session: bool) -> None:
    import torch

    if session:
        os.setsid()
    redirect(out, err)
    if network and ctypes.CDLL(None, use_errno=True).setns(os.open(network, os.O_RDONLY), 0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), f"setns {network}")
    for name in world(0, 0, 0):
        os.environ.pop(name, None)
    os.environ.update(env)
    os.chdir(cwd)
    torch.set_num_threads(1)
    if not figures:
        no_figures()
    for name, module in list(sys.modules.items()):  # ours are imported anew, since they look at the environment then
        folder = os.path.dirname(getattr(module, "__file__", None) or "")
        if folder == str(ROOT) or name.split(".")[0] == "klear":
            del sys.modules[name]
    sys.argv = [f"{ROOT}/{script}.py", *flags]
    sys.path.insert(0, str(ROOT))
    runpy.run_path(sys.argv[0], run_name="__main__")


def start(script: str, *flags, out, err=None, env: dict[str, str] | None = None, cwd=None,
          figures: bool = False, network: str | None = None, session: bool = False) -> multiprocessing.Process:
    """`python SCRIPT.py FLAGS`, its output in files. `network`: the file of a network namespace; `session`: in a process
    group of its own."""
    return start_function(_stage, script, list(map(str, flags)), str(out), str(err or out), env or {}, str(cwd or os.getcwd()),
                          figures, network, session)


def run(script: str, *flags, ranks: int = 1, check: bool = True, env: dict[str, str] | None = None, cwd=None,
        figures: bool = False, timeout: float = 300) -> CompletedProcess:
    """The stage to its end; the output is that of all ranks."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        environments = [(env or {}) | (world(rank, ranks, port) if ranks > 1 else {}) for rank in range(ranks)]
        processes = [start(script, *flags, out=out, err=err, cwd=cwd, env=one, figures=figures) for one in environments]
        codes = wait(processes, timeout)
        done = CompletedProcess([script, *flags], max(codes, key=abs), out.read_text(), err.read_text())
    assert not check or done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-4000:]}"
    return done


def wait(processes: list, timeout: float = 300) -> list[int]:
    """Exit codes; what still runs by then is killed."""
    for process in processes:
        process.join(timeout)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def _rank(function, rank: int, ranks: int, port: int, arguments: tuple) -> None:
    os.environ.update(world(rank, ranks, port))
    import runs
    import torch

    runs.RANK = rank
    torch.set_num_threads(1)
    no_figures()
    function(rank, *arguments)
    if torch.distributed.is_initialized():
        time.sleep(0.5)  # gloo's thread lets go of the last gather, see ranks.Run.leave
        torch.distributed.destroy_process_group()


def own_mounts() -> None:
    """From here on what this process mounts is seen by it and by what it forks alone; also as an ordinary user."""
    global FORK
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000 | (0x10000000 if uid else 0)):  # CLONE_NEWNS, CLONE_NEWUSER
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")) if uid else ():
        Path("/proc/self", name).write_text(text)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    FORK = multiprocessing.get_context("fork")


def start_function(function, *arguments) -> multiprocessing.Process:
    process = FORK.Process(target=function, args=arguments)
    process.start()
    return process


def call(function, *arguments) -> None:
    """function(*arguments) in a process of its own."""
    assert wait([start_function(function, *arguments)]) == [0], f"{function.__name__} failed; its traceback is above"


def spawn(function, *arguments, ranks: int = 2) -> None:
    """function(rank, *arguments) in a process of its own for each of several ranks."""
    port = free_port()
    processes = [FORK.Process(target=_rank, args=(function, rank, ranks, port, arguments)) for rank in range(ranks)]
    for process in processes:
        process.start()
    assert wait(processes) == [0] * ranks, "a rank failed; its traceback is above"
