"""Runs untrusted Python programs: `run` (one program, one input) and `run_tests` (one program, many tests).

    python sandbox.py                 # prints capabilities() of this machine
    python sandbox.py program.py <in  # runs one program and prints its RunResult

How it works. The caller keeps one warm zygote (and one with numpy, once a program uses it): a fresh interpreter (never
a fork of the caller, so no torch, no secrets) with the contest modules imported. It goes into its own user, mount,
network, IPC, UTS and PID namespaces and into a private root which holds only the interpreter and its libraries,
read-only: the host's files, /proc and /etc do not exist there, not even for the zygote. For each test it forks a child
(1 ms instead of 0.1 to 0.4 s for Firejail + python + numpy). The child is PID 1 of a PID namespace of its own, its
scratch a tmpfs that no program has touched; before a byte of the program runs it has rlimits, Landlock, no
capabilities, no_new_privs and a seccomp allowlist. Its death ends everything it started. Limits: CPU time (the verdict
does not depend on the machine's load), a looser wall limit for programs that sleep, address space, output, threads,
descriptors, scratch. Processes are refused unless `processes` > 1 is asked for, so the memory and CPU limits of one
process are those of the program.

Why the program cannot forge a verdict.
- stdin, stdout, stderr and the code travel as memory files that the caller makes and whose descriptors pass THROUGH the
  zygote unread: no input, output or expected value of any test is ever in the zygote's memory, so no child inherits
  one. Expected outputs stay with the caller, which compares after the program is dead.
- Function, class and pytest tests run in TWO children that share one socket (klear/judge). The verifier holds the
  test and its expected values; the program's child serves calls. Whatever a program does to its side (patched builtins,
  sys.exit, os._exit, writes to the socket, frame walks, gc searches, ctypes) changes only what it claims to have
  returned, and the verifier's exit code decides alone, after the whole test ran. The other design, test and program in
  one process, would give CPython's verdict for every test and nothing against a program that looks for the expected
  value or patches `assert`; so the split stayed, and was made identity-preserving instead: klear/judge says how,
  what is trusted, and what a forger could gain.
- A test that never called the program is no pass. What the program does to the verifier (endless answers, callbacks
  that never return) is the program's `timeout`; its wall clock runs only while the verifier waits for it.

Layers that a machine refuses are left out, `capabilities()` says which, one warning is given; `require="full"` raises
ValueError instead. The least that is accepted: seccomp, and a private root or Landlock. `outer="firejail"` puts
Firejail around the zygote.
"""

from __future__ import annotations

import _thread
import ast
import atexit
import builtins
import contextlib
import ctypes
import errno
import functools
import gc
import importlib.util
import io
import json
import marshal
import math
import os
import platform
import random
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
import time
import traceback
import types
import warnings
import weakref
from typing import Any, NamedTuple

if "--zygote" in sys.argv:  # python -P does not look beside this file
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
from klear.judge.channel import PASS, WRONG, Peer  # noqa: E402
from klear.judge.contents import content_kinds  # noqa: E402
from klear.judge.names import analyse, never_calls  # noqa: E402
from klear.judge.prelude import MODULES, prelude  # noqa: E402
from klear.judge.verifier import verify  # noqa: E402

LAYERS = ("user_namespace", "private_root", "pid_namespace", "network_namespace", "ipc_namespace", "uts_namespace",
          "seccomp", "landlock", "no_new_privs", "capabilities_dropped", "unprivileged_id", "rlimits",
          "parent_death_signal")
# these programs get a zygote with numpy; the others a smaller, faster one
NUMPY = re.compile(r"\bnp\b|numpy|scipy|pandas")
# what the text of a program says of its needs; the rest is not made, as each memory page touched costs a test 5 us
MENTIONS = {
    "dev_stdin": re.compile(r"/dev/(?!shm|null|zero|full|u?random)|/proc/self/fd"),  # it may name its own descriptors
    "home": re.compile(r"HOME|PATH|expanduser|home\(\)"),
    "self": re.compile(r"__file__|argv|inspect|linecache|traceback"),  # it may read its own text
    # something may be seen of the interpreter's end: finalizers, unflushed files
    "tells": re.compile(r"__del__|finally|with\b|yield|open|File|Writer|Wrapper|weakref|exec|eval|getattr|import_")}
NOBODY = 65534
STACK = 512 << 20  # room for the main thread's stack; deep recursion through C (lru_cache, sort keys) needs it
THREAD_STACK, MOST_STACK = 8 << 20, 256 << 20  # Python's own calls need none of it since 3.11, calls through C do
SCRATCH_MB = 64
HUGE, MADV_COLLAPSE = 2 << 20, 25
# the wall limit of a program that computes on an overloaded machine is this many times that of one that sleeps
STARVED = 10


class RunResult(NamedTuple):
    """`status`: ok (exit code 0), error, timeout, memory, output_limit, sandbox_error (the sandbox failed, not the
    program)."""

    status: str
    stdout: str
    stderr: str
    exit_code: int | None  # negative: killed by that signal
    wall_s: float
    cpu_s: float = 0.0


class TestResult(NamedTuple):
    """`status`: ok (passed), wrong, skipped (after an early stop), or one of RunResult's. Long texts are cut."""

    passed: bool
    status: str
    stdout: str = ""
    stderr: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0

    __test__ = False  # not a pytest class


class SandboxError(Exception):
    """The sandbox itself failed; the zygote is replaced."""


# ---------------------------------------------------------------------------------------------------- kernel interface
libc = ctypes.CDLL(None, use_errno=True)
fflush = libc.fflush
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOATIME, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 1024, 4096, 16384, 1 << 18, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
ARCH = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}.get(platform.machine())
# Syscalls a program may make: name, number on x86_64, number on aarch64 (-: does not exist there). All others give
# EPERM.
SYSCALLS = """
read 0 63, write 1 64, open 2 -, close 3 57, stat 4 -, fstat 5 80, lstat 6 -, poll 7 -, lseek 8 62, mmap 9 222,
mprotect 10 226, munmap 11 215, brk 12 214, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139,
pread64 17 67, pwrite64 18 68, readv 19 65, writev 20 66, access 21 -, pipe 22 -, select 23 -, sched_yield 24 124,
mremap 25 216, msync 26 227, mincore 27 232, madvise 28 233, dup 32 23, dup2 33 -, pause 34 -, nanosleep 35 101,
getitimer 36 102, alarm 37 -, setitimer 38 103, getpid 39 172, sendfile 40 71, sendto 44 206, recvfrom 45 207,
shutdown 48 210, getsockname 51 204, getpeername 52 205, socketpair 53 199, getsockopt 55 209, exit 60 93, wait4 61 260,
uname 63 160, fcntl 72 25, flock 73 32, fsync 74 82, fdatasync 75 83, truncate 76 45, ftruncate 77 46, getdents 78 -,
getcwd 79 17, chdir 80 49, fchdir 81 50, rename 82 -, mkdir 83 -, rmdir 84 -, creat 85 -, link 86 -, unlink 87 -,
symlink 88 -, readlink 89 -, chmod 90 -, fchmod 91 52, umask 95 166, gettimeofday 96 169, getrlimit 97 163,
getrusage 98 165, sysinfo 99 179, times 100 153, getuid 102 174, getgid 104 176, geteuid 107 175, getegid 108 177,
getppid 110 173, getpgrp 111 -, setsid 112 157, getgroups 115 158, getresuid 118 148, getresgid 120 150,
getpgid 121 155, getsid 124 156, rt_sigpending 127 136, rt_sigtimedwait 128 137, rt_sigsuspend 130 133,
sigaltstack 131 132, utime 132 -, statfs 137 43, fstatfs 138 44, getpriority 140 141, sched_getparam 143 121,
sched_getscheduler 145 120, sched_get_priority_max 146 125, sched_get_priority_min 147 126, arch_prctl 158 -,
setrlimit 160 164, gettid 186 178, time 201 -, futex 202 98, sched_getaffinity 204 123, getdents64 217 61,
set_tid_address 218 96, restart_syscall 219 128, fadvise64 221 223, clock_gettime 228 113, clock_getres 229 114,
clock_nanosleep 230 115, exit_group 231 94, epoll_wait 232 -, epoll_ctl 233 21, waitid 247 95, openat 257 56,
mkdirat 258 34, newfstatat 262 79, unlinkat 263 35, renameat 264 38, linkat 265 37, symlinkat 266 36, readlinkat 267 78,
fchmodat 268 53, faccessat 269 48, pselect6 270 72, ppoll 271 73, set_robust_list 273 99, get_robust_list 274 100,
utimensat 280 88, epoll_pwait 281 22, fallocate 285 47, eventfd2 290 19, epoll_create1 291 20, dup3 292 24,
pipe2 293 59, preadv 295 69, pwritev 296 70, getcpu 309 168, renameat2 316 276, getrandom 318 278, membarrier 324 283,
copy_file_range 326 285, preadv2 327 286, pwritev2 328 287, statx 332 291, rseq 334 293, close_range 436 436,
faccessat2 439 439, epoll_pwait2 441 441, ioctl 16 29, clone 56 220, fork 57 -, vfork 58 -, execve 59 221, kill 62 129,
prctl 157 167, tkill 200 130, tgkill 234 131, prlimit64 302 261, clone3 435 435
"""
NR = {row.split()[0]: (row.split() + ["-"])[1 + ARCH[0]] for row in SYSCALLS.split(",")} if ARCH else {}
NR = {name: int(number) for name, number in NR.items() if number != "-"}
# 444 create, 445 add rule, 446 restrict
PIVOT_ROOT, MOUNT_SETATTR, LANDLOCK = (155, 41)[ARCH[0]] if ARCH else 0, 442, 444
PROCESS_CALLS = "fork vfork execve".split()
PATH_CALLS = ("chmod fchmod fchmodat utime utimensat truncate rename renameat renameat2 link linkat symlink "
              "symlinkat").split()


def call(name: str, *args) -> int:
    """A libc function by name, or a system call by number ("syscall"); raises OSError."""
    result = getattr(libc, name)(*(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def attempt(name: str, *args) -> bool:
    try:
        call(name, *args)
    except OSError:
        return False
    return True


@functools.lru_cache(8)
def seccomp_filter(pid: int, processes: bool, private_root: bool) -> tuple[bytes, Any]:
    """A struct sock_fprog and the BPF program that it points to: an allowlist, EPERM for the rest.

    `pid` is the only process that may be signalled, unless `processes`."""
    code = lambda op, jt, jf, k: struct.pack("HBBI", op, jt, jf, k)
    load = lambda offset: code(0x20, 0, 0, offset)  # A = a 32-bit word of struct seccomp_data
    ret = lambda k: code(0x06, 0, 0, k)
    allow, refuse, arg0, arg1 = ret(0x7FFF0000), ret(0x00050000 | errno.EPERM), 16, 24
    one_of = lambda offset, *values: load(offset) + b"".join(code(0x15, 0, 1, v) + allow for v in values) + refuse
    spaces = NEWNS | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET | 0x02000000
    # CLONE_THREAD and no new namespace
    thread = load(arg0) + code(0x54, 0, 0, spaces | 0x10000) + code(0x15, 0, 1, 0x10000) + allow
    rules = {number: allow for number in NR.values()}
    # of ioctl: TCGETS, FIO(N)CLEX, FIONREAD, winsize, FIONBIO
    rules |= {NR["ioctl"]: one_of(arg1, 0x5401, 0x5450, 0x5451, 0x541B, 0x5413, 0x5421),
              # names; limits of oneself
              NR["prctl"]: one_of(arg0, 15, 16, 0x53564D41), NR["prlimit64"]: one_of(arg0, 0),
              NR["clone"]: thread + (code(0x15, 0, 1, 0) + allow if processes else b"") + refuse,
              # libc then falls back to clone, whose flags a filter can read
              NR["clone3"]: ret(0x00050000 | errno.ENOSYS)}
    if not processes:
        rules |= {NR[name]: one_of(arg0, pid) for name in ("kill", "tkill", "tgkill")}
    for name in ([] if processes else PROCESS_CALLS) + ([] if private_root else PATH_CALLS):
        rules.pop(NR.get(name), None)
    steps = [(0, rules.get(0, refuse))]  # (from this number on, what to do)
    for number in sorted({n + d for n in rules for d in (0, 1)} - {0}):
        if steps[-1][1] != rules.get(number, refuse):
            steps.append((number, rules.get(number, refuse)))

    def tree(steps: list) -> bytes:  # a binary search: installing costs the kernel one dry run a system call
        if len(steps) == 1:
            return steps[0][1]
        half = len(steps) // 2
        below = tree(steps[:half])
        return code(0x35, len(below) // 8, 0, steps[half][0]) + below + tree(steps[half:])

    program = load(4) + code(0x15, 1, 0, ARCH[1]) + ret(0x80000000) + load(0) + tree(steps)
    buffer = ctypes.create_string_buffer(program, len(program))
    return struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)), buffer


READ = 1 | 4 | 8  # Landlock's rights: execute, read a file, list a folder
LANDLOCK_FILES = lambda abi: (1 << 13) - 1 | (abi >= 2) << 13 | (abi >= 3) << 14 | (abi >= 5) << 15
# all, less making devices, sockets, fifos
WRITE = lambda abi: LANDLOCK_FILES(abi) & ~(1 << 6 | 1 << 9 | 1 << 10 | 1 << 11)


def landlock_abi() -> int:
    try:
        return call("syscall", LANDLOCK, None, 0, 1)
    except OSError:
        return 0


def landlock_rule(path: str, rights: int, abi: int) -> tuple[int, int]:
    """(descriptor, rights) for `install_landlock`; of a file only the rights that a file can have."""
    of_a_file = rights & (7 | (1 << 14 if abi >= 3 else 0))
    return os.open(path, os.O_PATH | os.O_CLOEXEC), rights if os.path.isdir(path) else of_a_file


def install_landlock(abi: int, rules: list[tuple[int, int]]) -> None:
    """Of files only what the rules allow. Network (ABI 4), signals and abstract sockets beyond this process (ABI 6):
    nothing."""
    attr = struct.pack("QQQ", LANDLOCK_FILES(abi), 3, 3)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = call("syscall", LANDLOCK, attr, len(attr), 0)
    for fd, rights in rules:
        call("syscall", LANDLOCK + 1, ruleset, 1, struct.pack("=Qi", rights, fd), 0)
    call("syscall", LANDLOCK + 2, ruleset, 0)


# ------------------------------------------------------------------------------------------- the zygote's namespaces
def package_folders() -> list[str]:
    """Where installed packages lie; not the project folders that editable installs (.pth) add to sys.path."""
    return [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages") and os.path.isdir(p)]


def library_paths() -> list[str]:
    """What a private root holds: the interpreter, its library, installed packages, the system's shared libraries."""
    paths = {sys.executable, os.path.join(sys.prefix, "pyvenv.cfg"), "/etc/ld.so.cache", "/etc/alternatives"}
    link = sys.executable
    while os.path.islink(link):
        link = os.path.join(os.path.dirname(link), os.readlink(link))
        paths.add(os.path.normpath(link))
    paths |= {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {p for p in (*package_folders(), "/lib", "/lib64", "/usr/lib", "/usr/lib64") if os.path.exists(p)}
    with open("/proc/self/maps") as f:
        paths |= {os.path.dirname(line.split(None, 5)[5].strip()) for line in f if ".so" in line}
    paths = {p.rstrip("/") for p in paths if p and p != "/"} | {os.path.realpath(p) for p in paths if p}
    within = lambda p: any(p.startswith(q + "/") and not os.path.islink(q) for q in paths)
    return sorted(p for p in paths if os.path.exists(p) and not within(p))


def build_root() -> None:
    """A tmpfs with read-only binds of `library_paths` and four devices becomes the root; the host's tree is
    unmounted."""
    paths, devices = library_paths(), ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    call("mount", b"tmpfs", b"/tmp", b"tmpfs", MS_NOSUID | MS_NODEV, b"size=1m,mode=755")
    os.mkdir("/tmp/.host")
    call("syscall", PIVOT_ROOT, b"/tmp", b"/tmp/.host")
    os.chdir("/")
    for path in paths + devices:
        source = "/.host" + path
        if path.startswith("/tmp/"):  # the interpreter lives there: kept apart, as programs write to /tmp
            path = "/.tmp" + path[4:]
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.islink(source):
            if not os.path.lexists(path):
                os.symlink(os.readlink(source), path)
            continue
        if os.path.isdir(source):
            os.makedirs(path, exist_ok=True)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        call("mount", source.encode(), path.encode(), None, MS_BIND | MS_REC, None)
        # rdonly, nosuid, nodev; a read-only device node can still be written to
        flags = 1 | 2 | (0 if path in devices else 4)
        call("syscall", MOUNT_SETATTR, -100, path.encode(), 0x8000, struct.pack("QQQQ", flags, 0, 0, 0), 32)
    os.mkdir("/box")
    os.mkdir("/verifier")
    temporary = make_temporary()
    for link, target in (("/tmp", temporary), ("/dev/shm", "/box/tmp"), ("/dev/stdin", "/box/stdin")):
        if not os.path.isdir(link):
            os.symlink(target, link)
    call("umount2", b"/.host", MNT_DETACH)
    os.rmdir("/.host")
    call("syscall", MOUNT_SETATTR, -100, b"/", 0, struct.pack("QQQQ", 1, 0, 0, 0), 32)


def make_temporary() -> str:
    """Makes what /tmp leads to and returns its name: the program's folder, or, when the interpreter lives under /tmp, a
    folder beside it with binds of where `build_root` put that: nothing can rename or remove a mount point."""
    os.mkdir("/box/tmp")
    if not os.path.isdir("/.tmp"):
        return "/box/tmp"
    os.mkdir("/box/.tmp")
    for name in os.listdir("/.tmp"):
        if not os.path.isdir(f"/.tmp/{name}"):
            os.symlink(f"/.tmp/{name}", f"/box/.tmp/{name}")
            continue
        os.mkdir(f"/box/.tmp/{name}")
        path = f"/box/.tmp/{name}".encode()
        call("mount", f"/.tmp/{name}".encode(), path, None, MS_BIND | MS_REC, None)  # of a root not yet read-only
        call("syscall", MOUNT_SETATTR, -100, path, 0x8000, struct.pack("QQQQ", 1, 0, 0, 0), 32)
    return "/box/.tmp"


def enter_namespaces(proc: int) -> set[str]:
    """Moves this process as far from the host as the machine allows; returns the layers in force. `proc`: descriptor of
    /proc."""
    layers: set[str] = set()

    def write(name: str, text: str) -> None:
        fd = os.open("self/" + name, os.O_WRONLY, dir_fd=proc)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    with contextlib.suppress(OSError):
        write("oom_score_adj", "500")  # short of memory, the kernel should take this one before the trainer
    if os.geteuid() == 0:  # leave root; the tree is built before, while its files can still be reached
        if attempt("unshare", NEWNS | NEWNET | NEWIPC | NEWUTS):
            layers |= {"network_namespace", "ipc_namespace", "uts_namespace"}
            build_root()
            layers.add("private_root")
        else:
            with contextlib.suppress(ImportError):
                importlib.import_module("pytest")
        with contextlib.suppress(PermissionError):
            os.setgroups([])
        with contextlib.suppress(PermissionError):
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # or the id maps below belong to root
    uid, gid = os.geteuid(), os.getegid()
    if attempt("unshare", NEWUSER | NEWNS | NEWNET | NEWIPC | NEWUTS | NEWPID):
        write("setgroups", "deny")
        write("uid_map", f"{NOBODY} {uid} 1")
        write("gid_map", f"{NOBODY} {gid} 1")
        layers |= {"user_namespace", "network_namespace", "ipc_namespace", "uts_namespace", "pid_namespace"}
        if "private_root" not in layers:
            build_root()
            layers.add("private_root")
    if os.geteuid() != 0:
        layers.add("unprivileged_id")
    return layers


# ---------------------------------------------------------------------------------------------------- the zygote
class Job(NamedTuple):
    id: int
    pid: int
    started: float
    cpu_s: float
    wall_s: float
    ready: int  # pipe: a byte comes when the child is confined
    # WAITS: a verifier, which waits as long as its program computes; of that program: a memory file with the
    clock: int = -1
    # seconds that its verifier has waited for it, and since when it waits


WAITS = -2


def wall_used(job: Job, now: float) -> float:
    """Wall seconds of a program; of one that serves calls only those in which the verifier waited for it."""
    if job.clock < 0:
        return now - job.started
    waited, since = struct.unpack("dd", os.pread(job.clock, 16, 0).ljust(16, b"\0"))
    return waited + (now - since if since else 0.0)


def cpu_used(pid: int) -> float:
    """CPU seconds of a process that is not yet reaped, by its CPU-time clock (the id is that of
    clock_getcpuclockid)."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:  # it is just dying
        return 0.0


def slowdown() -> float:
    """How much longer than on an idle machine it takes to compute something now."""
    start, cpu = time.monotonic(), time.thread_time()
    while time.thread_time() - cpu < 0.03:
        pass
    return (time.monotonic() - start) / 0.03


def contents(fd: int, limit: int = 1 << 40) -> bytes:
    """The bytes of a memory file."""
    return os.pread(fd, min(os.fstat(fd).st_size, limit), 0)


def zygote_main() -> None:
    """`python sandbox.py --zygote`, its control socket on descriptor 0. Programs and their data pass unseen, as
    descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = STACK if hard == resource.RLIM_INFINITY else min(STACK, hard)
    if soft != wanted:  # the room below the stack is laid out at exec
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    sys.path.pop()
    control = socket.socket(fileno=os.dup(0))
    parent = socket.recv_fds(control, 64, 1)[1][0]  # pidfd of the caller: readable once it is dead, even by kill -9
    os.dup2(memory_file(), 0)  # a file, as the input of a program is: what it reads is made here, once for all
    sys.stdin = sys.__stdin__ = open(0, errors="surrogateescape", newline="\n", closefd=False)
    sys.stdin.buffer.raw.name = "<stdin>"
    for name in MODULES:  # before the id changes: root's own interpreter may be unreadable for others
        with contextlib.suppress(ImportError):
            if name != "numpy" or "--numpy" in sys.argv:
                importlib.import_module(name)
    abi = landlock_abi()
    rules = [landlock_rule(path, READ, abi) for path in library_paths()]
    places = [os.path.join(p, name) for p in package_folders() for name in sorted(os.listdir(p)) if name.isidentifier()]
    places += [sysconfig.get_path("stdlib"), *package_folders()]
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)  # outlives the change of root; closed before any program runs
    try:
        layers = enter_namespaces(proc)
    except OSError as error:
        control.send(json.dumps({"error": f"cannot set up namespaces: {error}"}).encode())
        return
    inner = os.fork()  # PID 1 of the new namespace
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if inner:
        control.close()
        os.waitpid(inner, 0)
        return
    os.environ.clear()
    sys.path[:] = [p for p in sys.path if os.path.exists(p)]  # a folder that is not there could be made by a program
    threading.stack_size(THREAD_STACK)  # else threads take the size of the main thread's huge stack
    threading.stack_size = _thread.stack_size = stack_size
    sys.set_int_max_str_digits(0)
    prelude(), content_kinds()
    layers |= {"landlock"} if abi else set()
    with open(os.open("self/statm", os.O_RDONLY, dir_fd=proc)) as f:
        base = int(f.read().split()[0]) * resource.getpagesize()  # address space that is taken before a program starts
    # all into huge pages: a fork copies fewer page table entries
    with open(os.open("self/maps", os.O_RDONLY, dir_fd=proc)) as f:
        maps = [line.split() for line in f if " rw-p " in line]
    for low, high in ([int(x, 16) for x in row[0].split("-")] for row in maps if row[4] == "0"):
        low, high = -(-low // HUGE) * HUGE, high // HUGE * HUGE
        if low < high:
            attempt("madvise", low, high - low, MADV_COLLAPSE)  # refused by kernels before 6.1
    pidns = os.open("self/ns/pid", os.O_RDONLY, dir_fd=proc) if "pid_namespace" in layers else -1
    os.close(proc)
    rules = [landlock_rule("/", READ, abi)] if "private_root" in layers else rules
    rules.append(landlock_rule("/dev/null", WRITE(abi), abi))
    for capability in range(64):
        if not attempt("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0):
            break
    for processes in (False, True):  # kept by the cache, for all children
        seccomp_filter(1, processes, "private_root" in layers)
    probe = os.fork()  # does the kernel take the last layers?
    if probe == 0:
        with contextlib.suppress(OSError):
            drop_privileges(seccomp_filter(os.getpid(), False, "private_root" in layers)[0])
            os._exit(PASS)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(probe, 0)[1]) == PASS:
        layers |= {"no_new_privs", "seccomp", "capabilities_dropped", "rlimits", "parent_death_signal"}
    hello = {"layers": sorted(layers), "landlock_abi": abi, "pytest": importlib.util.find_spec("pytest") is not None,
             "unreadable": [p for p in places if not os.access(p, os.R_OK | os.X_OK)][-3:]}
    control.send(json.dumps(hello).encode())
    gc.collect()
    gc.freeze()  # children do not touch (and so copy) the pages of what is loaded here
    # libc's own fork: Python's hooks repair threads, which the zygote has none of, and dirty 150 pages (a third of the
    # cost).
    fork = ctypes.PyDLL(None).fork
    jobs: dict[int, Job] = {}  # by pidfd
    looks: dict[int, tuple[float, float, float]] = {}  # when to look if it sleeps; CPU seconds, load at the last look
    # A scratch that no program has touched serves the next one too: ending a mount namespace for each test means
    # waiting for the kernel's RCU, with a lock that all workers share.
    has_scratch, scratch = {"user_namespace", "private_root"} <= layers, []
    while True:
        poll = select.poll()
        for fd in (control.fileno(), parent, *jobs):
            poll.register(fd, select.POLLIN)
        now, wait = time.monotonic(), 3600.0
        for fd, job in jobs.items():  # CPU time passes no faster than time, save with threads: look twice as often
            left = min((job.cpu_s - cpu_used(job.pid)) / 2, looks[fd][0] - wall_used(job, now))
            wait = min(wait, max(left, 0.002))
        ready = {fd for fd, _ in poll.poll(wait * 1000)}
        if parent in ready:
            os._exit(0)
        for fd, job in list(jobs.items()):
            used, wall = cpu_used(job.pid), wall_used(job, time.monotonic())
            why = "cpu" if used >= job.cpu_s else "wall" if wall >= job.wall_s * STARVED else ""
            # does it sleep, or is the machine busy? load must decide no verdict
            if wall >= looks[fd][0] and not why and job.clock != WAITS:
                _, before, load = looks[fd]
                looks[fd] = wall + job.wall_s, used, slowdown()
                why = "wall" if (used - before) * max(load, looks[fd][2]) < 0.3 * job.wall_s else ""
            if fd in ready or why:
                finish(control, job, "" if fd in ready else why)
                os.close(fd)
                del jobs[fd]
        if control.fileno() not in ready:
            continue
        message, fds, _, _ = socket.recv_fds(control, 65536, 8)
        if not message:
            os._exit(0)
        request = json.loads(message)
        if request.get("import"):
            with contextlib.suppress(ImportError):
                importlib.import_module(request["import"])
                metadata = importlib.import_module("importlib.metadata")  # brings many modules: only where it is needed
                for plugin in metadata.entry_points(group="pytest11"):  # half a second a test, if each loaded them
                    importlib.import_module(plugin.module)
        elif "kill" in request:
            for fd, job in list(jobs.items()):
                if job.id == request["kill"]:
                    finish(control, job, "killed")
                    os.close(fd)
                    del jobs[fd]
        else:
            if has_scratch and request["mode"] != "verify" and not (scratch and scratch_state() == scratch):
                attempt("umount2", b"/box", MNT_DETACH)
                mount_scratch()
                scratch = scratch_state()
            ready_r, ready_w = os.pipe()
            if pidns >= 0:
                call("unshare", NEWPID)
            started = time.monotonic()
            pid = fork()
            if pid == 0:
                child(request, fds, ready_w, layers, abi, base, rules)
            if pidns >= 0:
                call("setns", pidns, NEWPID)
            clock = os.dup(fds[6]) if request["mode"] == "serve" else WAITS if request["mode"] == "verify" else -1
            for fd in (*fds, ready_w):
                os.close(fd)
            fd = os.pidfd_open(pid)
            jobs[fd] = Job(request["id"], pid, started, request["cpu_s"], request["wall_s"], ready_r, clock)
            looks[fd] = request["wall_s"] * (STARVED if clock == WAITS else 1), 0.0, STARVED


def finish(control: socket.socket, job: Job, why: str) -> None:
    """Ends a job (its death is that of its whole PID namespace), reaps it and reports."""
    if why:
        os.kill(job.pid, signal.SIGKILL)
    _, status, usage = os.wait4(job.pid, 0)
    reply = {"id": job.id, "why": why, "code": os.waitstatus_to_exitcode(status),
             "wall_s": time.monotonic() - job.started,
             "cpu_s": usage.ru_utime + usage.ru_stime, "ready": os.read(job.ready, 1) != b""}
    os.close(job.ready)
    if job.clock >= 0:
        os.close(job.clock)
    control.send(json.dumps(reply).encode())


def drop_privileges(fprog: bytes) -> None:
    call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_SECCOMP, 2, fprog, 0, 0)


def mount_scratch() -> None:
    """A fresh tmpfs on /box, its folder tmp for the program (and /tmp leads there)."""
    options = f"size={SCRATCH_MB}m,nr_inodes=4096,mode=755".encode()
    call("mount", b"tmpfs", b"/box", b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOATIME, options)
    make_temporary()


def scratch_state() -> list[tuple]:
    """Differs once a program has changed anything in its scratch, even if it took that back: only the kernel sets
    st_ctime."""
    try:
        stats = map(os.stat, ("/box", "/box/tmp", "/tmp"))
        return [(s.st_mode, s.st_nlink, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats]
    except OSError as error:  # chmod 0, for one
        return [(error.errno,)]


def confine(request: dict, layers: set[str], abi: int, base: int, rules: list[tuple[int, int]]) -> None:
    """In the child, before the program: everything that `capabilities()` promises."""
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.setpgid(0, 0)  # kill(0) reaches a process group across PID namespaces
    scratch = request["scratch"] or "/"
    if {"user_namespace", "private_root"} <= layers:
        # of the program and of its verifier: a test reads what the program writes, and the reverse
        scratch = "/box/tmp"
        if request["mode"] == "verify" and request["private"]:  # the test itself is nowhere in the program's namespace
            call("unshare", NEWNS)
            flags = MS_NOSUID | MS_NODEV | MS_NOATIME
            call("mount", b"tmpfs", b"/verifier", b"tmpfs", flags, b"size=16m,nr_inodes=512,mode=755")
    os.chdir(scratch)
    if request["dev_stdin"]:
        with contextlib.suppress(OSError), open("/box/stdin", "wb") as f:
            os.sendfile(f.fileno(), 0, 0, 1 << 30)
    if abi:
        wanted = (scratch, scratch != "/"), ("/tmp", scratch == "/box/tmp"), ("/verifier", request.get("private"))
        places = [place for place, here in wanted if here and os.path.isdir(place)]
        install_landlock(abi, [*rules, *(landlock_rule(p, WRITE(abi), abi) for p in places)])
    limits = {"CORE": 0, "CPU": math.ceil(request["cpu_s"]) + 2, "FSIZE": request["output_bytes"], "NOFILE": 64,
              "NPROC": 2 + request["processes"] if request["processes"] > 1 else 72,  # two are the zygote's; 64 threads
              "MEMLOCK": 0, "AS": base + request["memory_bytes"], "MSGQUEUE": 0, "RTPRIO": 0}
    for name, value in limits.items():
        number = getattr(resource, "RLIMIT_" + name, None)
        if number is not None:
            hard = resource.getrlimit(number)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (value, value))
    drop_privileges(seccomp_filter(os.getpid(), request["processes"] > 1, "private_root" in layers)[0])


def names_in(code: types.CodeType) -> set[str]:
    return set(code.co_names).union(*(names_in(c) for c in code.co_consts if isinstance(c, types.CodeType)))


def stack_size(size: int = 0, real=_thread.stack_size) -> int:
    """threading.stack_size; of what a program asks for (often 1 GiB, which counts as memory) at most MOST_STACK."""
    return real(min(size, MOST_STACK)) if size else real()


DEVICE = re.compile(r"/dev/std(in|out|err)|(?:/dev|/proc/self)/fd/(\d+)")


def opened(real, path, *args, **kwargs) -> Any:
    """`open` and `os.open` of a program that names its own descriptors: there is no /proc here to lead to them."""
    if found := DEVICE.fullmatch(str(path)):
        number = int(found[2] or ("in", "out", "err").index(found[1]))
        if number == 0 and os.path.exists("/box/stdin"):  # a copy, from the start
            path = "/box/stdin"
        elif real.__module__ == "posix":
            return os.dup(number)
        else:
            path = os.dup(number)
    return real(path, *args, **kwargs)


def main_module(request: dict, source: bytes) -> types.ModuleType:
    """The module that the program becomes, as `python solution.py` would make it."""
    module = types.ModuleType("solution" if request["mode"] == "serve" else "__main__")
    module.__builtins__, module.__file__ = builtins, os.path.join(os.getcwd(), "solution.py")
    sys.modules["__main__"] = sys.modules[module.__name__] = module
    if request["home"]:
        os.environ |= {"HOME": os.getcwd(), "PATH": "/usr/bin:/bin"}
    if request["mode"] != "verify" and request["self"]:
        with contextlib.suppress(OSError), open(module.__file__, "wb") as f:
            f.write(source)
    if request["dev_stdin"]:
        builtins.open = io.open = functools.partial(opened, io.open)
        os.open = functools.partial(opened, os.open)
    return module


def report(error: BaseException) -> int:
    """Shows what ended a program as CPython shows it; returns the exit code."""
    try:
        if not isinstance(error, SystemExit):
            error.__traceback__ = error.__traceback__.tb_next  # without `child`
            sys.excepthook(type(error), error, error.__traceback__)
        elif error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
        else:
            return error.code or 0
    except SystemExit as other:
        return report(other)
    except BaseException:
        traceback.print_exception(error, limit=8)
    return 1


def flushed(stream: Any) -> bool:
    """Whether sys.stdout or sys.stderr could be flushed at the end; None or closed is no error."""
    try:
        if stream is not None and getattr(stream, "closed", False) is not True:
            stream.flush()
    except BaseException:
        return False
    return True


def leave(status: int, main: list[types.ModuleType], tells: bool, leave_now=os._exit) -> None:
    """Ends a program as CPython does (Py_FinalizeEx), in its order, but takes down the program's own module only, of
    which `main` holds the one reference, and that where it tells in the output."""
    for end in (threading._shutdown if _thread._count() else int, atexit._run_exitfuncs):
        try:
            end()
        except BaseException:
            pass
    good = [flushed(getattr(sys, name, None)) for name in ("stdout", "stderr")]
    if tells:
        with contextlib.suppress(BaseException):
            gc.collect()
            sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
            sys.modules.pop("__main__", None)
            mark = weakref.ref(vars(main[0]).setdefault("", {0}))
            main.clear()  # with its globals go unflushed files, generators in a `finally`, every __del__
            gc.collect()
            for names in gc.get_referrers(mark()) if mark() else ():  # something outside still refers to them
                for name in sorted(n for n in names if n != "__builtins__"):
                    names[name] = None
    flushed(sys.__stdout__)
    flushed(sys.__stderr__)
    fflush(None)  # what C code printed
    leave_now(status & 255 if all(good) else 120)


def child(request: dict, fds: list[int], ready: int, *machine) -> None:
    """One test: `fds` are stdin, stdout, stderr, code, compiled code and, for calls, the channel. Does not return."""
    status, main = 1, [types.ModuleType("__main__")]
    try:
        for target, fd in enumerate(fds[:3]):
            os.dup2(fd, target)
        mode = request["mode"]
        confine(request, *machine)
        os.write(ready, b"1")
        code, cache, channel, clock = (*fds[3:], -1, -1)[:4]
        source, compiled = contents(code), contents(cache)
        if mode != "verify" and not compiled:  # the first test of a program compiles for all
            program = compile(source, "solution.py", "exec", dont_inherit=True)
            compiled = marshal.dumps((program, [name for name in names_in(program) if name in prelude()]))
            os.pwrite(cache, compiled, 0)
        test = json.loads(source) if mode == "verify" else {}
        if not compiled and test.get("kind", "call") != "call":  # and the first program of a test analyses it for all
            compiled = analyse(test["code"], test["kind"] == "pytest")
            os.pwrite(cache, compiled, 0)
        if channel >= 0:
            os.dup2(channel, 3)
        if mode == "verify":
            os.dup2(clock, 4)
        # the control socket, the cache, ... : nothing of ours stays open
        os.closerange(5 if mode == "verify" else 4 if channel >= 0 else 3, 1 << 16)
        sys.argv = ["solution.py"]
        if mode != "verify":  # which imports nothing that the program could have written
            sys.path.insert(0, os.getcwd())
        atexit._clear()
        main[0] = main_module(request, source)
        if mode == "verify":
            os._exit(verify(test, Peer(3, None, 4), compiled))
        program, wanted = marshal.loads(compiled)
        if request["prelude"]:  # only the names in use: to touch an object is to copy its page
            vars(builtins if mode == "serve" else main[0]).update((name, prelude()[name]) for name in wanted)
            sys.setrecursionlimit(50_000)
        exec(program, vars(main[0]))
        if mode == "serve":
            Peer(3, main[0]).serve()
            os._exit(0 if all([flushed(sys.stdout), flushed(sys.stderr)]) else 120)  # the verifier has what it wanted
        status = 0
    except BaseException as error:
        status = report(error)
    leave(status, main, request["tells"])


# ---------------------------------------------------------------------------------------------------- the caller's side
class Zygote:
    """The caller's handle of its zygote. One program (with its verifier) at a time; a lock makes threads take turns."""

    def __init__(self, outer: str, numpy: bool):
        if ARCH is None or not sys.platform.startswith("linux"):
            here = f"{sys.platform} on {platform.machine()}"
            raise ValueError(f"sandbox: needs Linux on x86_64 or aarch64, this is {here}")
        if outer not in ("", "firejail"):
            raise ValueError(f'sandbox: outer={outer!r} is unknown; use "" or "firejail"')
        command = [sys.executable, "-s", "-P", "-B", "-X", "utf8", os.path.abspath(__file__), "--zygote",
                   *["--numpy"] * numpy]
        if outer == "firejail":
            command = ["firejail", "--quiet", "--noprofile", "--net=none", "--private-dev", "--deterministic-shutdown",
                       *command]
        # one hash seed, so that a verdict can be repeated; one malloc arena, since each takes 64 MB of address space
        environment = {"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin", "MALLOC_ARENA_MAX": "1"}
        environment |= {f"{k}_NUM_THREADS": "1" for k in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
        self.outer, self.lock, self.number, self.pytest = outer, threading.Lock(), 0, False
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = os.memfd_create("log")
        try:
            self.process = subprocess.Popen(command, stdin=theirs, stdout=log, stderr=log, env=environment, cwd="/",
                                            process_group=0)
        except FileNotFoundError:
            raise ValueError(f"sandbox: outer={outer!r} was asked for, but {command[0]} is not installed") from None
        finally:
            theirs.close()
        me = os.pidfd_open(os.getpid())
        try:
            socket.send_fds(self.control, [b"hello"], [me])
            self.control.settimeout(180)
            hello = json.loads(self.control.recv(65536) or b"{}")
        except OSError as error:
            hello = {"error": str(error)}
        if "layers" not in hello:
            self.close()
            text = hello.get("error") or contents(log).decode(errors="replace").strip()[-300:] or "it ended at once"
            raise SandboxError("sandbox: the zygote did not start: " + " ".join(text.split()))
        os.close(me)
        os.close(log)
        self.layers, self.hello = set(hello["layers"]), hello

    def execute(self, jobs: list[tuple[dict, list[int]]], channel: tuple, backstop_s: float) -> list[dict]:
        """Runs one program, or a program's child and its verifier (the last job, whose end ends the others); replies in
        order.

        `channel`: sockets to close once they are sent, so that each side sees the other's end."""
        first = self.number
        try:
            for request, fds in jobs:
                socket.send_fds(self.control, [json.dumps(request | {"id": self.number}).encode()], fds)
                self.number += 1
            for end in channel:
                end.close()
            self.control.settimeout(min(backstop_s, 1e6))
            replies: dict[int, dict] = {}
            while len(replies) < len(jobs):
                data = self.control.recv(65536)
                if not data:
                    raise SandboxError("sandbox: the zygote died")
                reply = json.loads(data)
                replies[reply["id"]] = reply
                if reply["id"] == self.number - 1:
                    for other in range(first, self.number - 1):
                        if other not in replies:
                            self.control.send(json.dumps({"kill": other}).encode())
        except OSError as error:
            raise SandboxError(f"sandbox: no answer from the zygote ({error})") from None
        if not all(reply["ready"] for reply in replies.values()):
            raise SandboxError("sandbox: a child could not be confined")
        return [replies[i] for i in range(first, self.number)]

    def close(self) -> None:
        self.control.close()  # its end; the zygote leaves, and with it its PID namespace
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


ZYGOTES: dict[str, Zygote] = {}  # by `outer`, with "+numpy" for programs that use it; of this process alone
LOCK = threading.RLock()
WARNED: set[str] = set()


def forget() -> None:
    """After a fork the zygote stays the parent's."""
    global LOCK
    LOCK = threading.RLock()
    for zygote in ZYGOTES.values():
        zygote.control.close()
        zygote.process.returncode = 0  # not our child: no wait
    ZYGOTES.clear()


os.register_at_fork(after_in_child=forget)


def close() -> None:
    """Ends this process's zygotes and everything below them; the next call starts a new one."""
    with LOCK:
        for zygote in ZYGOTES.values():
            zygote.close()
        ZYGOTES.clear()


atexit.register(close)


def zygote_for(outer: str = "", require: str = "", processes: int = 1, numpy: bool = False) -> Zygote:
    with LOCK:
        key = outer + "+numpy" * numpy
        if key not in ZYGOTES:
            ZYGOTES[key] = Zygote(outer, numpy)
        zygote = ZYGOTES[key]
    missing = [layer for layer in LAYERS if layer not in zygote.layers]
    if missing and require == "full":
        raise ValueError(f'sandbox: require="full", but this machine refuses {", ".join(missing)}')
    if "seccomp" not in missing and "private_root" in missing and "landlock" in missing or "seccomp" in missing:
        raise ValueError(f"sandbox: too little protection here, missing {', '.join(missing)}; untrusted programs are "
                         "not run")
    if processes > 1 and "pid_namespace" in missing:
        raise ValueError("sandbox: processes > 1 needs a PID namespace, which this machine refuses; "
                         "what a program started could stay behind")
    if missing and outer not in WARNED:
        WARNED.add(outer)
        warnings.warn(f"sandbox: weaker than full isolation, this machine refuses {', '.join(missing)}", stacklevel=3)
    return zygote


def capabilities(outer: str = "") -> dict[str, Any]:
    """Which layers are in force: a bool for each of LAYERS, `landlock_abi`, `firejail` (installed), `outer`, `full`
    (all); `pytest`: whether {"pytest"} tests can run; `unreadable`: installed packages that programs cannot import."""
    zygote = zygote_for(outer)
    layers = {layer: layer in zygote.layers for layer in LAYERS}
    installed = any(os.access(os.path.join(p, "firejail"), os.X_OK) for p in os.get_exec_path())
    hello = {key: zygote.hello[key] for key in ("landlock_abi", "pytest", "unreadable")}
    return layers | hello | {"firejail": installed, "outer": outer, "full": all(layers.values())}


def memory_file(data: bytes = b"") -> int:
    fd = os.memfd_create("sandbox")
    while data:
        data = data[os.write(fd, data):]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


PLANS: dict[tuple[str, bool], bytes] = {}  # what `analyse` said of the last tests, by their text and the zygote


class Program:
    """One program with its limits; `once` runs it. Its memory files are closed at the end of the `with`."""

    def __init__(self, code: str, *, timeout_s: float, wall_s: float | None, memory_mb: int, output_mb: float,
                 processes: int, prelude: bool, outer: str, require: str):
        self.code, self.outer, self.require, self.numpy = code, outer, require, bool(NUMPY.search(code))
        self.limits = {"cpu_s": timeout_s, "wall_s": wall_s or 3 * timeout_s + 2,
                       "memory_bytes": (memory_mb << 20) + MOST_STACK * ("stack_size" in code),
                       "output_bytes": int(output_mb * (1 << 20)), "processes": processes, "prelude": prelude,
                       "scratch": ""} | {need: bool(mention.search(code)) for need, mention in MENTIONS.items()}

    def __enter__(self) -> Program:
        self.files = [memory_file(self.code.encode("utf-8", "surrogatepass")), memory_file()]
        return self

    def __exit__(self, *_) -> None:
        for fd in self.files:
            os.close(fd)

    def once(self, stdin: str | bytes = "", test: dict | None = None) -> tuple[RunResult, int | None]:
        """Runs the program on `stdin`, or serves the calls of `test`; returns its result and the verifier's exit
        code."""
        data = stdin.encode("utf-8", "surrogatepass") if isinstance(stdin, str) else stdin
        with contextlib.ExitStack() as stack:
            def new(content: bytes = b"") -> int:
                fd = memory_file(content)
                stack.callback(os.close, fd)
                return fd

            out, err, numpy = new(), new(), self.numpy
            jobs, channel = [(self.limits | {"mode": "script"}, [new(data), out, err, *self.files])], ()
            if test is not None:
                ours, theirs = channel = [stack.enter_context(end) for end in socket.socketpair()]
                verr = new()
                clock, text = new(), json.dumps(test)
                numpy = self.numpy or bool(NUMPY.search(text))
                plan = new(PLANS.get((text, numpy), b""))
                jobs[0] = (self.limits | {"mode": "serve"}, [*jobs[0][1], theirs.fileno(), clock])
                spec = self.limits | {
                    "mode": "verify", "private": test["kind"] == "pytest", "prelude": True, "memory_bytes": 1 << 30,
                    "home": self.limits["home"] or bool(MENTIONS["home"].search(text)),
                    "cpu_s": self.limits["cpu_s"] + 10,
                    "wall_s": self.limits["wall_s"] + 1}  # times STARVED; it ends when the program's child does
                jobs.append((spec, [new(), new(), verr, new(text.encode()), plan, ours.fileno(), clock]))
            try:
                zygote = zygote_for(self.outer, self.require, self.limits["processes"], numpy)
                with zygote.lock:
                    try:
                        if test is not None and test["kind"] == "pytest" and not zygote.pytest:
                            zygote.pytest = bool(zygote.control.send(b'{"import": "pytest"}'))
                        replies = zygote.execute(jobs, channel, STARVED * self.limits["wall_s"] + 60)
                    except BaseException:  # it may be at work still: whoever comes next must not get its replies
                        zygote.process.kill()
                        zygote.close()
                        with LOCK:
                            ZYGOTES.pop(self.outer + "+numpy" * numpy, None)
                        raise
            except SandboxError as error:
                return RunResult("sandbox_error", "", str(error), None, 0.0), None
            if test is not None and test["kind"] != "call" and (text, numpy) not in PLANS:
                if len(PLANS) >= 256:
                    PLANS.clear()
                if found := contents(plan):  # not where the program's end was the verifier's first
                    PLANS[text, numpy] = found
            reply, limit = replies[0], self.limits["output_bytes"]
            full = any(os.fstat(fd).st_size >= limit for fd in (out, err))
            stderr = contents(err, limit).decode("utf-8", "replace")
            status = "ok"
            # the verifier's too: it is the program's doing, or the test takes too long with it
            if any(r["why"] in ("cpu", "wall") or r["code"] == -signal.SIGXCPU for r in replies):
                status = "timeout"
            elif full:
                status = "output_limit"
            elif reply["code"] == -signal.SIGKILL and not reply["why"] or (
                    reply["code"] and "MemoryError" in stderr[-500:]):
                status = "memory"  # SIGKILL that we did not send: the kernel was out of memory
            elif reply["code"] != 0:
                status = "error"
            if test is not None:
                stderr += contents(verr, 1 << 16).decode("utf-8", "replace")
            stdout = contents(out, limit).decode("utf-8", "replace")
            result = RunResult(status, stdout, stderr, reply["code"], reply["wall_s"], reply["cpu_s"])
            return result, replies[1]["code"] if test is not None else None


def run(code: str, stdin: str | bytes = "", *, timeout_s: float = 10.0, wall_s: float | None = None,
        memory_mb: int = 1024, output_mb: float = 16, processes: int = 1, outer: str = "",
        require: str = "") -> RunResult:
    """Runs a program on one input. Never raises for what a program does.

    `timeout_s`: CPU seconds. `wall_s`: wall seconds, 3 * timeout_s + 2 by default, for a program that sleeps or waits;
    one that computes on an overloaded machine gets 10 times as much. `memory_mb`: address space beyond the
    interpreter's. `output_mb`: of stdout, of stderr and of any file. `processes`: above 1 the program may fork, up to
    that many processes and threads at a time (each process has the limits for itself). Raises ValueError for a machine
    that cannot confine (or not as `require="full"` asks) and for an unknown `outer`."""
    options = dict(timeout_s=timeout_s, wall_s=wall_s, memory_mb=memory_mb, output_mb=output_mb, processes=processes)
    with Program(code, **options, prelude=False, outer=outer, require=require) as program:
        return program.once(stdin)[0]


def same_output(output: str, expected: str, compare: str = "exact", tolerance: float | None = None) -> bool:
    """`exact`: equal lines; trailing whitespace, trailing empty lines and line ends do not count. With `tolerance`,
    tokens that are numbers on both sides may differ by it, absolutely or relatively (the layout of the white space then
    does not count). `livecodebench`: every line stripped; lines are equal as text or as sequences of decimal
    numbers."""
    if compare not in ("exact", "livecodebench"):
        raise ValueError(f'sandbox: compare={compare!r} is unknown; use "exact" or "livecodebench"')
    if compare == "livecodebench":
        ours, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (output, expected))
        return len(ours) == len(theirs) and all(a == b or same_decimals(a, b) for a, b in zip(ours, theirs))
    if tolerance is not None:
        ours, theirs = output.split(), expected.split()
        return len(ours) == len(theirs) and all(a == b or close_enough(a, b, tolerance) for a, b in zip(ours, theirs))
    ours, theirs = ([line.rstrip() for line in text.rstrip().splitlines()] for text in (output, expected))
    return ours == theirs


def close_enough(a: str, b: str, tolerance: float) -> bool:
    try:
        a, b = float(a), float(b)  # inf is what is too large for a float, 10 ** 400 or 10 ** 401
        return math.isfinite(b) and math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    except ValueError:
        return False


def same_decimals(a: str, b: str) -> bool:
    import decimal

    try:
        return [decimal.Decimal(x) for x in a.split()] == [decimal.Decimal(x) for x in b.split()]
    except decimal.InvalidOperation:
        return False


def joined(text: Any) -> str:
    return "\n".join(map(str, text)) if isinstance(text, list) else str(text)


def shown(text: str, most: int = 8000) -> str:
    left, half = len(text) - most, most // 2
    return text if left <= 0 else f"{text[:half]}\n... {left} characters ...\n{text[-half:]}"


def as_cases(tests: dict | list[dict]) -> list[dict]:
    """The tests of a ground truth in one of the published formats, one dict each; raises ValueError for anything else.

    A list is taken for what this function gave: so the tests of a problem are parsed once, not for each program."""
    if isinstance(tests, list) and tests and all(isinstance(test, dict) and "kind" in test for test in tests):
        return tests
    if not isinstance(tests, dict) or not any(key in tests for key in ("inputs", "functional", "pytest")):
        raise ValueError('sandbox: tests must be {"inputs", "outputs"} (with "fn_name" for calls), {"functional"} or '
                         '{"pytest"}')
    if "inputs" in tests:
        inputs, outputs = tests["inputs"], tests.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs) or not inputs:
            raise ValueError("sandbox: inputs and outputs must be lists of the same length, not empty")
        if not tests.get("fn_name"):
            if None in inputs or None in outputs:
                raise ValueError("sandbox: an input or output is null")
            return [{"kind": "stdin", "input": joined(i), "output": joined(o)} for i, o in zip(inputs, outputs)]
        cases = []
        for args, expected in zip(inputs, outputs):
            try:
                if isinstance(args, str):
                    args = [json.loads(line) for line in args.splitlines() if line.strip()]
            except ValueError:
                raise ValueError("sandbox: a function test's input must be one JSON value a line, got "
                                 f"{args[:60]!r}") from None
            if isinstance(expected, str) and isinstance(inputs[0], str):
                with contextlib.suppress(ValueError):
                    expected = json.loads(expected)
            args = args if isinstance(args, list) else [args]
            cases.append({"kind": "call", "fn_name": tests["fn_name"], "args": args, "expected": expected})
        return cases
    kind = "functional" if "functional" in tests else "pytest"
    codes = tests[kind] if isinstance(tests[kind], list) else [tests[kind]]
    for code in codes:
        try:
            ast.parse(code)
        except (SyntaxError, TypeError, ValueError) as error:
            raise ValueError(f"sandbox: {kind} test code does not parse: {error}") from None
    if not codes:
        raise ValueError(f"sandbox: {kind} holds no test")
    return [{"kind": kind, "code": code} for code in codes]


def check_tests(tests: dict) -> None:
    """Raises ValueError for a ground truth with a test that can never call the program (all fail it); for loaders."""
    for number, case in enumerate(as_cases(tests)):
        if case["kind"] in ("functional", "pytest") and (why := never_calls(case["code"], case["kind"] == "pytest")):
            raise ValueError(f"sandbox: {case['kind']} test {number + 1} can never call the program: {why}")


def run_tests(code: str, tests: dict, *, timeout_s: float = 10.0, memory_mb: int = 1024, max_tests: int | None = None,
              compare: str = "exact", tolerance: float | None = None, early_stop: str = "", wall_s: float | None = None,
              output_mb: float = 16, prelude: bool = True, outer: str = "", require: str = "") -> list[TestResult]:
    """Runs a program against the tests of one problem; the results are in the order of the tests.

    `tests`: {"inputs", "outputs"}: stdin programs; with "fn_name": calls of that function or method of Solution, the
    inputs lists of arguments or JSON lines; {"functional": str | [str]}: assert code, one result a string; {"pytest":
    str}: one result. `timeout_s` is CPU time a test. `max_tests`: of more tests a fixed sample, the same for every
    program. `compare`, `tolerance`: see `same_output`. `early_stop`: "fail" or "timeout" skips the tests after the
    first that failed (timed out). `prelude`: LeetCode's names are defined (for stdin programs only with `compare`
    "livecodebench"). Raises ValueError for tests in no published format, and for pytest files without pytest."""
    cases = as_cases(tests)
    if early_stop not in ("", "fail", "timeout"):
        raise ValueError(f'sandbox: early_stop={early_stop!r} is unknown; use "", "fail" or "timeout"')
    if max_tests is not None and len(cases) > max_tests:
        chosen = random.Random(json.dumps(tests, sort_keys=True)).sample(range(len(cases)), max_tests)
        cases = [cases[i] for i in sorted(chosen)]
    results: list[TestResult] = []
    if any(case["kind"] == "pytest" for case in cases) and not capabilities(outer)["pytest"]:
        raise ValueError("sandbox: the tests need pytest, which is not installed; pip install pytest")
    if cases[0]["kind"] == "stdin" and compare != "livecodebench":  # which defines them for its stdin programs too
        prelude = False
    with Program(code, timeout_s=timeout_s, wall_s=wall_s, memory_mb=memory_mb, output_mb=output_mb, processes=1,
                 prelude=prelude, outer=outer, require=require) as program:
        for case in cases:
            last = results[-1].status if results else "ok"
            if last == "skipped" or early_stop == "fail" and last != "ok" or early_stop == "timeout" == last:
                results.append(TestResult(False, "skipped"))
                continue
            if case["kind"] == "stdin":
                result, verdict = program.once(case["input"])
                passed = result.status == "ok" and same_output(result.stdout, case["output"], compare, tolerance)
                status = "ok" if passed else "wrong" if result.status == "ok" else result.status
            else:
                looks = "inspect" in code or "signature" in code
                result, verdict = program.once("", case | {"tolerance": tolerance, "inspect": looks})
                passed = verdict == PASS
                why = "wrong" if verdict == WRONG else "memory" if "\nMemoryError" in result.stderr else "error"
                status = "ok" if passed else why if result.status in ("ok", "error") else result.status
            texts = shown(result.stdout), shown(result.stderr)  # whole, they would fill the memory of a worker
            results.append(TestResult(passed, status, *texts, result.wall_s, result.cpu_s))
    return results


if __name__ == "__main__":
    if "--zygote" in sys.argv:
        zygote_main()
    elif len(sys.argv) > 1:
        with open(sys.argv[1]) as f:
            print(run(f.read(), sys.stdin.read()))
    else:
        print(json.dumps(capabilities(), indent=1))
