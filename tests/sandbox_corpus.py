"""Programs for the sandbox's tests: hostile and legitimate ones with the status each must get, and reward hacks that must all fail.

    python tests/sandbox_corpus.py [firejail]   # runs all programs and prints one JSON line {name: [status, stdout]}
"""

import json
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
import sandbox

SECRET = "planted-secret-5d1f"  # in the environment, a file and the command line of the process that calls the sandbox


class Case(NamedTuple):
    name: str
    code: str
    status: str = "ok"
    stdout: str | None = None  # None: not looked at
    stdin: str = ""
    options: dict = {}


def held(body: str) -> str:
    """An attack: `attack(f, *args)` prints what got through; an attack that was held off prints nothing but `held`."""
    return f"""
import os, sys, ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
won = []
def attack(f, *args, what=None):
    try:
        result = f(*args)
    except (OSError, ValueError, KeyError, ImportError, AttributeError, MemoryError):
        return
    if result not in (-1, None, b"", "", []):
        won.append((what or getattr(f, "__name__", "?"), args, str(result)[:80]))
{body}
print(won or "held")
"""


HELD = "held\n"
SHORT = dict(timeout_s=0.4)
SLEEP = dict(timeout_s=0.4, wall_s=1.0)
SYSCALLS = {  # number on x86_64, on aarch64
    "ptrace": (101, 117), "mount": (165, 40), "umount2": (166, 39), "unshare": (272, 97), "setns": (308, 268), "pivot_root": (155, 41),
    "chroot": (161, 51), "bpf": (321, 280), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "perf_event_open": (298, 241), "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "memfd_create": (319, 279), "init_module": (175, 105), "kexec_load": (246, 104), "reboot": (169, 142),
    "sethostname": (170, 161), "mknodat": (259, 33), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "syslog": (103, 116),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "open_tree": (428, 428), "fsopen": (430, 430),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "clone3": (435, 435), "landlock_create_ruleset": (444, 444), "seccomp": (317, 277),
    "setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "personality": (135, 92),
    "settimeofday": (164, 170), "swapon": (167, 224), "acct": (163, 89), "quotactl": (179, 60), "inotify_init1": (294, 26),
}

HOSTILE = [
    Case("loop", "while True: pass", "timeout", options=SHORT),
    Case("loop that ignores signals", "import signal\nfor n in range(1, 60):\n    try: signal.signal(n, signal.SIG_IGN)\n"
         "    except (OSError, ValueError): pass\nwhile True:\n    try:\n        while True: pass\n    except BaseException: pass",
         "timeout", options=SHORT),
    Case("loop in a C call: power", "x = 7 ** (10 ** 9)", "timeout", options=SHORT),
    Case("loop in a C call: regex", "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')", "timeout", options=SHORT),
    Case("loop in a C call: sum", "sum(range(10 ** 12))", "timeout", options=SHORT),
    Case("sleep", "import time\ntime.sleep(10 ** 6)", "timeout", options=SLEEP),
    Case("deadlock", "import threading\na = threading.Lock()\na.acquire()\na.acquire()", "timeout", options=SLEEP),
    Case("endless thread after the end", "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()\nprint(1)",
         "timeout", options=SHORT),
    Case("endless atexit", "import atexit\n@atexit.register\ndef f():\n    while True: pass\nprint(1)", "timeout", options=SHORT),
    Case("fork bomb", "import os\nwhile True: os.fork()", "error"),
    Case("fork bomb, catching", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", "timeout", options=SHORT),
    Case("fork bomb, forks allowed", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", "timeout",
         options=dict(timeout_s=0.4, wall_s=3.0, processes=8)),
    Case("thread bomb", "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()", "error"),
    Case("memory: list", "x = []\nwhile True: x.append([0] * 10 ** 6)", "memory"),
    Case("memory: numpy", "import numpy\nx = [numpy.ones(10 ** 7) for _ in range(1000)]", "memory"),
    Case("memory: string", "x = 'a'\nwhile True: x += x", "memory"),
    Case("memory: one request", "x = bytearray(10 ** 13)", "memory"),
    Case("memory: mmap", "import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 1 << 28))", "error"),
    Case("descriptors", "x = []\nwhile True: x.append(open('/dev/null'))", "error"),
    Case("pipes", "import os\nx = []\nwhile True: x.append(os.pipe())", "error"),
    Case("endless output", "while True: print('x' * 10 ** 5)", "output_limit"),
    Case("endless output, unbuffered, catching", "import os\nwhile True:\n    try: os.write(1, b'x' * 10 ** 6)\n    except OSError: break",
         "output_limit"),
    Case("endless stderr", "import sys\nwhile True: print('x' * 10 ** 5, file=sys.stderr)", "output_limit"),
    Case("huge traceback", "raise ValueError('x' * 10 ** 8)", "output_limit"),
    Case("deep recursion", "def f(n): return f(n + 1)\nf(0)", "error"),
    Case("deep recursion through C", "import sys\nsys.setrecursionlimit(10 ** 9)\nclass A:\n    def __repr__(self): return repr(self)\nrepr(A())",
         "error", options=dict(memory_mb=4096)),
    Case("crash", "import ctypes\nctypes.string_at(0)", "error"),
    Case("abort", "import os\nos.abort()", "error"),
    Case("syntax error", "def f(:\n", "error"),
    Case("parser bomb: brackets", "(" * 200_000, "error"),
    Case("parser bomb: minus", "x = " + "-" * 500_000 + "1", "memory"),
    Case("parser bomb: null byte", "print(1)\0", "error"),
    Case("exit code", "import sys\nsys.exit(3)", "error"),
    Case("exit message", "import sys\nsys.exit('bye')", "error"),
    Case("daemon that outlives its parent", """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(10 ** 6)
    os._exit(0)
print("left")""", "ok", "left\n", options=dict(processes=8)),
    Case("kill all", held("attack(os.kill, -1, 9, what='kill')"), "ok", HELD),
    Case("kill all, forks allowed", "import os\nos.kill(-1, 9)\nprint(1)", "error", options=dict(processes=8)),
    Case("kill the group, forks allowed", "import os\nos.kill(0, 19)\nos.kill(0, 9)\nprint('alone')", "ok", "alone\n", options=dict(processes=8)),
    Case("kill the parent", "import os\nos.kill(os.getppid(), 9)", "error"),
    Case("kill by number", held("for pid in range(2, 5000): attack(os.kill, pid, 0, what='kill')"), "ok", HELD),
    Case("dangerous system calls", held(f"""
import platform
column = {{"x86_64": 0, "aarch64": 1}}[platform.machine()]
page = ctypes.create_string_buffer(4096)
for name, numbers in {SYSCALLS!r}.items():
    for args in ((0, 0, 0, 0, 0), (ctypes.addressof(page), ctypes.addressof(page), 0, 0, 0), (0x10000000, 0, 0, 0, 0), (1, 1, 1, 1, 1)):
        attack(libc.syscall, numbers[column], *map(ctypes.c_long, args), what=name)"""), "ok", HELD),
    Case("x32 system calls", held("""
import platform
if platform.machine() == "x86_64":
    for number in (39, 41, 57, 101): attack(libc.syscall, 0x40000000 + number, 0, 0, 0, what="x32")"""), "ok", HELD),
    Case("32-bit system calls", """
import ctypes, mmap, platform
if platform.machine() != "x86_64": raise SystemExit(1)
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, getpid of i386; int 0x80; ret
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())""", "error", ""),
    Case("namespaces by clone", held("""
for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000): attack(libc.unshare, flag, what="unshare")
import _thread; attack(libc.fork, what="fork")"""), "ok", HELD),
    Case("namespaces by clone, forks allowed", held("""
import platform
number = {"x86_64": 56, "aarch64": 220}[platform.machine()]
for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000): attack(libc.syscall, number, flag | 17, 0, 0, 0, 0, what="clone")
"""), "ok", HELD, options=dict(processes=8)),
    Case("become root", held("""
for f in (os.setuid, os.setgid, os.seteuid, os.setegid): attack(lambda: (f(0), 1)[1], what=f.__name__)
attack(lambda: (os.setgroups([0]), 1)[1], what="setgroups")
won += [os.getuid()] * (os.getuid() == 0 or os.geteuid() == 0)"""), "ok", HELD),
    Case("raise the limits", held("""
import resource
for name in ("CPU", "AS", "NPROC", "NOFILE", "FSIZE"):
    attack(lambda: (resource.setrlimit(getattr(resource, "RLIMIT_" + name), (-1, -1)), 1)[1], what=name)
attack(lambda: resource.prlimit(1, resource.RLIMIT_CPU, (1, 1)), what="prlimit of PID 1")
attack(lambda: resource.prlimit(os.getppid() or 2, resource.RLIMIT_CPU), what="prlimit of another")"""), "ok", HELD),
    Case("execute", held("""
import subprocess
for f in (lambda: os.execv(sys.executable, [sys.executable]), lambda: os.system("true") == 0 or None, lambda: subprocess.run(["/bin/true"]),
          lambda: os.posix_spawn(sys.executable, [sys.executable, "-c", "1"], {})): attack(f)"""), "ok", HELD),
    Case("sockets of every family", held("""
import socket
for family in range(46):
    for kind in (1, 2, 3, 5):
        attack(socket.socket, family, kind, 0, what="socket")
for address in [("127.0.0.1", PORT), ("::1", PORT)]: attack(socket.create_connection, address, 1)"""), "ok", HELD),
    Case("names", held("""
import socket
for name in ("localhost", "example.com"):
    attack(socket.getaddrinfo, name, 80, what="getaddrinfo")
    attack(socket.gethostbyname, name, what="gethostbyname") if name != "localhost" else None"""), "ok", HELD),
    Case("password file", held("""
for path in ("/etc/passwd", "/etc/shadow", "/etc/hosts", "/etc/hostname", "/.host/etc/passwd", "/box/../etc/passwd", "/proc/1/root/etc/passwd"):
    attack(lambda: open(path).read(), what=path)
import pwd; attack(lambda: pwd.getpwall(), what="getpwall")"""), "ok", HELD),
    Case("home folders", held("""
for folder in ("/root", "/home", "/mnt", "/srv", "/opt", "/var", "/run"):
    for path, folders, files in os.walk(folder):
        if path in (sys.prefix, sys.base_prefix): folders.clear()
        else: won.extend(files)
attack(lambda: open("SECRET_FILE").read(), what="secret file")"""), "ok", HELD),
    Case("environment", held(f"""
for key, value in os.environ.items(): won.append((key, value))
environ = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
i = 0
while environ and environ[i]:
    if b"{SECRET[:11]}" in environ[i]: won.append(environ[i])
    i += 1
won += [a for a in sys.orig_argv if "{SECRET[:11]}" in a]"""), "ok", HELD),
    Case("/proc", held("""
for path in ("/proc", "/proc/self", "/proc/1", "/sys", "/proc/self/fd", "/sys/kernel", "/dev/mem", "/dev/kmsg", "/dev/pts", "/dev/tty"):
    attack(os.listdir, path, what=path); attack(os.open, path, os.O_RDONLY, what=path)"""), "ok", HELD),
    Case("leave a file", "open('/box/tmp/left', 'w').write('x')\nopen('/tmp/left', 'w').write('x')\nprint(1)", "ok", "1\n"),
    Case("other sandboxes' files", held("""
own = [os.path.realpath(p) for p in (sys.prefix, sys.base_prefix)]  # in /tmp, where Python itself lies there
for root in ("/box", "/tmp", "/dev/shm"):
    for path, folders, files in os.walk(root):
        if os.path.realpath(path) in own: folders.clear()
        else: won += [os.path.join(path, f) for f in files]"""), "ok", HELD),
    Case("write elsewhere", held("""
for folder in ("/", "/etc", "/usr", "/usr/lib", "/root", "/home", "/dev", "/var/tmp", "/work", os.path.dirname(os.__file__), *sys.path[1:]):
    attack(lambda: open(os.path.join(folder, "pwned"), "w"), what=folder); attack(lambda: (os.mkdir(os.path.join(folder, "pwned")), 1)[1], what=folder)
import numpy
for path in (os.__file__, numpy.__file__, sys.executable, "/lib/x86_64-linux-gnu/libc.so.6"):
    attack(lambda: open(path, "r+b"), what=path); attack(lambda: (os.unlink(path), 1)[1], what=path)
    attack(lambda: (os.chmod(path, 0o777), 1)[1], what=path); attack(lambda: (os.utime(path), 1)[1], what=path)
    attack(lambda: (os.rename(path, path + "x"), 1)[1], what=path); attack(lambda: (os.truncate(path, 0), 1)[1], what=path)"""), "ok", HELD),
    Case("fill the disk", "n = 0\nwhile True:\n    open(f'f{n}', 'wb').write(b'x' * 10 ** 7)\n    n += 1", "error"),
    Case("fill the inodes", "n = 0\nwhile True:\n    open(f'f{n}', 'wb').close()\n    n += 1", "error"),
    Case("symlinks and hard links", held("""
os.symlink("/etc/passwd", "a"); attack(lambda: open("a").read(), what="symlink")
os.symlink("SECRET_FILE", "b"); attack(lambda: open("b").read(), what="symlink")
os.symlink("../" * 20 + "etc/shadow", "c"); attack(lambda: open("c").read(), what="symlink")
for path in (os.__file__, "/dev/zero", "/etc/ld.so.cache"): attack(lambda: (os.link(path, "d"), 1)[1], what="link")
os.symlink(os.path.dirname(os.__file__), "e"); attack(lambda: open("e/pwned", "w"), what="through a symlink")
for name in ("fifo", "socket", "device"):
    attack(lambda: (os.mkfifo("f"), 1)[1], what="fifo"); attack(lambda: (os.mknod("g", 0o60666, 0x103), 1)[1], what="device")"""), "ok", HELD),
    Case("inherited descriptors", held("""
for fd in range(3, 4096):
    attack(os.fstat, fd, what="open"); attack(os.write, fd, b"1", what="write")"""), "ok", HELD),
    Case("memory of the trainer by frames", held(f"""
import gc
frame = sys._getframe()
while frame:
    if any("{SECRET[:11]}" in repr(v)[:10000] for k, v in list(frame.f_locals.items()) if k not in ("source", "program", "compiled", "frame")
           and frame.f_code.co_filename != "solution.py"): won.append(frame.f_code.co_name)
    frame = frame.f_back"""), "ok", HELD),
    Case("endless /dev/zero", "open('/dev/zero', 'rb').read()", "memory"),
    Case("signals to itself", "import os, signal\nfor n in (signal.SIGTERM, signal.SIGSTOP, signal.SIGTSTP): os.kill(os.getpid(), n)\nprint('still')",
         "ok", "still\n"),
]

LEGITIMATE = [
    Case("hello", "print('hello')", stdout="hello\n"),
    Case("big stack in a thread", """
import sys, threading
sys.setrecursionlimit(2 ** 20)
threading.stack_size(2 ** 27)
def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
def main(): print(depth(200_000))
t = threading.Thread(target=main); t.start(); t.join()""", stdout="200000\n"),
    Case("big recursion limit", "import sys\nsys.setrecursionlimit(10 ** 7)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(100_000))",
         stdout="100000\n"),
    Case("recursion through lru_cache", "import sys, functools\nsys.setrecursionlimit(10 ** 6)\n@functools.lru_cache(None)\n"
         "def f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(30_000))", stdout="30000\n"),
    Case("numpy", "import numpy as np\nprint(round(np.linalg.det(np.eye(3) * 2)), (np.ones((200, 200)) @ np.ones((200, 200))).sum())",
         stdout="8 8000000.0\n"),
    Case("stdin.buffer", "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))", stdout="6\n", stdin="1 2\n3"),
    Case("open(0)", "print(sum(map(int, open(0).read().split())))", stdout="6\n", stdin="1 2\n3\n"),
    Case("os.read(0)", "import os\nprint(os.read(0, 100).decode().upper(), end='')", stdout="ABC\n", stdin="abc\n"),
    Case("/dev/stdin", "print(open('/dev/stdin').read()[::-1])", stdout="cba\n", stdin="abc"),
    Case("lines until the end", "import sys\nprint([line.rstrip() for line in sys.stdin])", stdout="['a', 'b']\n", stdin="a\nb"),
    Case("input until EOFError", "n = 0\nwhile True:\n    try: n += int(input())\n    except EOFError: break\nprint(n)", stdout="3\n", stdin="1\n2\n"),
    Case("main guard", "def main(): print('main')\nif __name__ == '__main__':\n    main()", stdout="main\n"),
    Case("class Solution with main", "class Solution:\n    def f(self, x): return x + 1\nprint(Solution().f(int(input())))", stdout="2\n", stdin="1"),
    Case("unicode", "s = input()\nprint(s[::-1], len(s), '\\u20ac', chr(0x1F600))", stdout="öß\u00e9漢 4 \u20ac \U0001F600\n", stdin="漢\u00e9ßö\n"),
    Case("10 MB of input", "import sys\nd = sys.stdin.read().split()\nprint(len(d), sum(map(int, d)))", stdout="1250000 12500000000000\n",
         stdin="10000000\n" * 1_250_000, options=dict(memory_mb=1024)),
    Case("1 MB of output", "print('y' * 10 ** 6)", stdout="y" * 10 ** 6 + "\n"),
    Case("many prints", "for i in range(100_000): print(i)", stdout="".join(f"{i}\n" for i in range(100_000))),
    Case("binary output", "import sys\nsys.stdout.buffer.write(b'42\\n')\nsys.stdout.flush()", stdout="42\n"),
    Case("output without a flush", "import sys\nsys.stdout.write('end')\nsys.exit()", stdout="end"),
    Case("output at exit", "import atexit\nout = []\natexit.register(lambda: print('\\n'.join(out)))\nout.append('7')", stdout="7\n"),
    Case("replaced stdout", "import io, os, sys\nsys.stdout = io.StringIO()\nprint(5)\nos.write(1, sys.stdout.getvalue().encode())", stdout="5\n"),
    Case("a big integer", "print(len(str(7 ** 20_000)))", stdout="16902\n"),
    Case("scratch file", "open('a.txt', 'w').write('hi')\nimport os, tempfile\nwith tempfile.NamedTemporaryFile() as f: f.write(b'1')\n"
         "print(open('a.txt').read(), os.listdir('.'))", stdout="hi ['a.txt']\n"),
    Case("dataclass and pickle", "import pickle\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
         "print(pickle.loads(pickle.dumps(P(3))))", stdout="P(x=3)\n"),
    Case("threads", "import threading\nr = []\nts = [threading.Thread(target=r.append, args=(i,)) for i in range(20)]\n"
         "[t.start() for t in ts]; [t.join() for t in ts]\nprint(sum(r))", stdout="190\n"),
    Case("asyncio", "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n    return 3\nprint(asyncio.run(f()))", stdout="3\n"),
    Case("alarm with a handler", "import signal, time\ndef f(*_): raise TimeoutError\nsignal.signal(signal.SIGALRM, f)\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\n"
         "try: time.sleep(5)\nexcept TimeoutError: print('rang')", stdout="rang\n"),
    Case("forks allowed", "import os\nr, w = os.pipe()\nif os.fork() == 0:\n    os.write(w, b'child')\n    os._exit(0)\nos.wait()\nprint(os.read(r, 9).decode())",
         stdout="child\n", options=dict(processes=4)),
    Case("subprocess allowed", "import subprocess, sys\nprint(subprocess.run([sys.executable, '-I', '-c', 'print(6 * 7)'], capture_output=True, text=True).stdout)",
         stdout="42\n\n", options=dict(processes=4)),
    Case("modules", "import bisect, cmath, decimal, fractions, hashlib, heapq, itertools, json, queue, random, re, statistics, string, time, typing\n"
         "print(decimal.Decimal('0.1') + 1, fractions.Fraction(1, 3), hashlib.md5(b'').hexdigest()[:4], time.time() > 1e9)",
         stdout="1.1 1/3 d41d True\n"),
    Case("time and randomness", "import time, random, os\nrandom.seed(1)\nprint(random.random() > 0, len(os.urandom(4)), time.perf_counter() > 0)",
         stdout="True 4 True\n"),
    Case("eval and exec", "exec('x = 3')\nprint(eval('x + 1'), globals()['__name__'])", stdout="4 __main__\n"),
    Case("half a second of work", "s = 0\nfor i in range(3_000_000): s += i\nprint(s)", stdout="4499998500000\n"),
]

CASES = HOSTILE + LEGITIMATE
NEEDS_FULL = {"leave a file", "symlinks and hard links", "endless /dev/zero", "signals to itself", "scratch file"}  # a scratch folder, devices, PID 1


def run_all(outer: str = "", full: bool = True, chosen=lambda case: True) -> dict[str, list]:
    """{name: [status, stdout]} of every case, or of those chosen, with a real listener on loopback and a secret in the environment, a file and a local."""
    os.environ["SANDBOX_SECRET"] = SECRET
    with tempfile.TemporaryDirectory() as folder, socket.socket() as listener:
        os.chmod(folder, 0o755)
        secret = Path(folder, "secret")
        secret.write_text(SECRET)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        accepted = []
        threading.Thread(target=lambda: accepted.append(listener.accept()), daemon=True).start()
        results = {}
        for case in CASES:
            if not chosen(case) or not full and (case.name in NEEDS_FULL or case.options.get("processes", 1) > 1):
                continue
            code = case.code.replace("PORT", str(listener.getsockname()[1])).replace("SECRET_FILE", str(secret))
            result = sandbox.run(code, case.stdin, outer=outer, **({"timeout_s": 5} | case.options))
            results[case.name] = [result.status, result.stdout[:2_000_000], result.stderr[-300:]]
        assert secret.read_text() == SECRET and not accepted
        sandbox.close()
    return results


def wrong(results: dict[str, list]) -> list[str]:
    """What differs from what must be."""
    return [f"{case.name}: {results[case.name][0]} instead of {case.status}, {results[case.name][1][:300]!r} {results[case.name][2]!r}"
            for case in CASES if case.name in results and (results[case.name][0] != case.status or case.stdout not in (None, results[case.name][1]))]


if __name__ == "__main__":
    print(json.dumps({"wrong": wrong(run_all(*sys.argv[1:])), "cases": len(CASES), "user": os.getuid()}))
