"""Runs a command as an ordinary user, who may read this clone and this interpreter even where they lie in root's home.

    python tests/as_user.py nobody python -m pytest tests/test_sandbox.py        # as root

In a mount namespace of its own the folders that only root may enter (/root, say) become empty ones which hold the clone and
the interpreter alone; nothing is changed outside of it.
"""

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def shut_folders(paths: set[Path]) -> dict[Path, list[Path]]:
    """{outermost folder that others may not enter: the paths below it}."""
    shut: dict[Path, list[Path]] = {}
    for path in sorted(paths):
        outermost = [folder for folder in reversed(path.parents) if not folder.stat().st_mode & 1][:1]
        for folder in outermost:
            shut.setdefault(folder, []).append(path)
    return shut


def command_of(command: list[str], user: str = "nobody") -> list[str]:
    """What runs `command` as an ordinary user: the command itself for one, this file for root."""
    return [sys.executable, str(Path(__file__).resolve()), user, *command] if os.getuid() == 0 else command


def main(user: str, *command: str) -> None:
    shared = ROOT.parent / "shared"
    needed = [ROOT, *[shared] * shared.exists(), Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()]
    shut = shut_folders(set(needed))
    if shut and "AS_USER" not in os.environ:
        os.execvpe("unshare", ["unshare", "--mount", sys.executable, *sys.argv], {**os.environ, "AS_USER": "1"})
    os.environ.pop("AS_USER", None)
    for folder, paths in shut.items():
        kept = Path(tempfile.mkdtemp(prefix="as_user"))  # stays empty outside of this namespace
        mount = lambda *words: subprocess.run(["mount", *map(str, words)], check=True)
        mount("--rbind", folder, kept)
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        for path in paths:
            path.mkdir(parents=True, exist_ok=True)
            mount("--rbind", kept / path.relative_to(folder), path)
        subprocess.run(["umount", "--lazy", kept], check=True)
        kept.rmdir()
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ.update(HOME=entry.pw_dir, USER=user, LOGNAME=user)
    os.execvp(command[0], command)


if __name__ == "__main__":
    if len(sys.argv) < 3 or os.getuid() != 0:
        sys.exit("usage, as root: as_user.py USER COMMAND...")
    main(*sys.argv[1:])
