"""How fast the code sandbox is: programs of 16 small stdin tests a second, against one Firejail (or one bare python)
per test.

    python benchmarks/sandbox_throughput.py            # table, batch of 1,024, figures/sandbox_throughput.png; 4 min
    python benchmarks/sandbox_throughput.py --quick    # shorter rounds, batch of 128
    python benchmarks/sandbox_throughput.py --leaks    # 10,000 executions in one process: memory and descriptors

The ways are interleaved in rounds on the same machine, so that its other load hits all of them; the ratios are those of
the medians. As root and as an ordinary user. "one Firejail per test" is what the released system does: `firejail
--quiet --noprofile
--net=none python prog.py`, the program importing numpy first."""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import sandbox  # noqa: E402  (the root is known only now)

TESTS = 16
PROGRAM = "n = int(input())\nprint(sum(map(int, input().split())) * n)\n"
CASES = {"inputs": [f"{i}\n{i} 2 3\n" for i in range(TESTS)], "outputs": [f"{(i + 5) * i}\n" for i in range(TESTS)]}
NUMPY = "import numpy\n" + PROGRAM
HANG = "while True: pass\n"


def one_program(job: tuple[str, str]) -> list[str]:
    code, outer = job
    results = sandbox.run_tests(code, CASES, timeout_s=2, early_stop="timeout", outer=outer)
    return [r.status for r in results]


def programs_per_second(pool, workers: int, programs: int, outer: str, code: str = PROGRAM) -> float:
    start = time.perf_counter()
    if workers == 1:
        statuses = [one_program((code, outer)) for _ in range(programs)]
    else:
        statuses = pool.map(one_program, [(code, outer)] * programs, chunksize=1)
    elapsed = time.perf_counter() - start
    assert all(s == ["ok"] * TESTS for s in statuses), "a benchmark program failed"
    return programs / elapsed


def one_process_per_test(command: list[str], tests: int) -> float:
    """Programs a second when each test starts its own process, WORKERS at once (`tests` are run)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "program.py")
        path.write_text(NUMPY)
        start = time.perf_counter()
        running = []
        for i in range(tests):
            process = subprocess.Popen([*command, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       env={"OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"})
            running.append((process, i % TESTS))
            if len(running) == WORKERS or i == tests - 1:
                for process, case in running:
                    assert process.communicate(CASES["inputs"][case].encode())[0].decode() == CASES["outputs"][case]
                running = []
        return tests / TESTS / (time.perf_counter() - start)


WORKERS = 2


def rounds(pool, count: int, programs: int) -> dict[str, list[float]]:
    python = [sys.executable, "-I"]
    firejail = ["firejail", "--quiet", "--noprofile", "--net=none", *python]
    in_pool = lambda *args: programs_per_second(pool, WORKERS, WORKERS * programs, *args)
    ways = {
        "sandbox, 1 worker": lambda: programs_per_second(pool, 1, programs, ""),
        f"sandbox, {WORKERS} workers": lambda: in_pool(""),
        f"sandbox, program imports numpy, {WORKERS} workers": lambda: in_pool("", NUMPY),
        f"sandbox in Firejail, {WORKERS} workers": lambda: in_pool("firejail"),
        "bare python + numpy per test (no isolation)": lambda: one_process_per_test(python, TESTS),
        "one Firejail + python + numpy per test": lambda: one_process_per_test(firejail, TESTS),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()  # warm
    for _ in range(count):
        for name, way in ways.items():
            speeds[name].append(way())
    return speeds


def hanging_batch(pool, programs: int, single: float) -> tuple[float, float]:
    """(seconds, ideal seconds) of a batch of which 5 % hang. Ideal: the work (2 CPU seconds a hang) spread evenly, no
    loss."""
    hangs = programs // 20
    jobs = [(HANG if i % 20 == 7 else PROGRAM, "") for i in range(programs)]
    hangs = sum(code == HANG for code, _ in jobs)
    start = time.perf_counter()
    statuses = pool.map(one_program, jobs, chunksize=1)
    elapsed = time.perf_counter() - start
    assert sum(s[0] == "timeout" for s in statuses) == hangs and sum(s == ["ok"] * TESTS for s in statuses) == programs - hangs
    return elapsed, (hangs * 2 + (programs - hangs) / single) / WORKERS


def leaks(executions: int = 10_000) -> None:
    import psutil

    codes = [PROGRAM, "1 / 0", "import os\nos._exit(1)", "print('x' * 10 ** 5)",
             "import threading\nthreading.Thread(target=print).start()"]
    family = lambda: [psutil.Process(), *psutil.Process().children(recursive=True)]
    for i in range(executions + 1):
        if i % (executions // 10) == 0:
            sandbox.run("print(1)")
            rss = "  ".join(f"{p.memory_info().rss / 2**20:.1f}" for p in family())
            zombies = sum(p.status() == "zombie" for p in family())
            print(f"{i:6d} executions: MB {rss}; descriptors {len(os.listdir('/proc/self/fd'))}; "
                  f"processes {len(family())}, zombies {zombies}", flush=True)
        sandbox.run(codes[i % len(codes)], "1\n2 3\n")


def figure(medians: dict[str, float], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.figure(figsize=(8, 2.6))
    bars = plt.barh(list(medians)[::-1], list(medians.values())[::-1])
    plt.bar_label(bars, fmt="%.1f", padding=3)
    plt.margins(x=0.1)
    plt.xlabel(f"programs of {TESTS} tests a second")
    plt.tight_layout()
    plt.savefig(path, dpi=120)
    print(f"\n{path.relative_to(ROOT)} written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--leaks", action="store_true")
    options = parser.parse_args()
    if options.leaks:
        leaks()
        return
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        speeds = rounds(pool, *((3, 20) if options.quick else (7, 60)))
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        slowest = medians["one Firejail + python + numpy per test"]
        print(f"\nuid {os.getuid()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
              f"all layers: {sandbox.capabilities()['full']}\n\n"
              "| way | programs/s | ms a test | times one Firejail per test |\n|---|---|---|---|")
        for name, speed in medians.items():
            print(f"| {name} | {speed:.2f} | {1000 / speed / TESTS:.2f} | {speed / slowest:.1f} |")
        one, two = speeds["sandbox, 1 worker"], speeds[f"sandbox, {WORKERS} workers"]
        scaling = statistics.median(b / a for a, b in zip(one, two))
        print(f"\nscaling 1 -> {WORKERS} workers: {scaling:.2f} (best round {max(b / a for a, b in zip(one, two)):.2f})")
        programs = 128 if options.quick else 1024
        elapsed, ideal = hanging_batch(pool, programs, medians["sandbox, 1 worker"])
        print(f"batch of {programs}, 5 % hang: {elapsed:.1f} s, ideal {ideal:.1f} s, {elapsed / ideal:.2f} times")
    figure(medians, ROOT / "figures" / "sandbox_throughput.png")


if __name__ == "__main__":
    main()
