"""Output folders, for every stage: made and held by one run at a time, refused where they hold something else, and the
checkpoint in them to go on from; folders that are whole or not there."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path

import yaml

from runs import checkpoints, die, one_line


def read_settings(out: Path) -> dict:
    """config.yaml of an output folder."""
    try:
        if isinstance(settings := yaml.safe_load((out / "config.yaml").read_text()), dict):
            return settings
        why = "no settings in it"
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = one_line(error)
    die(f"output_dir {out}: config.yaml cannot be read ({why}); give another --output_dir")


HELD: dict[tuple[int, int], int] = {}  # (device, inode) of the folders that this process has locked, and how


def hold(folder: Path) -> bool | None:
    """Locks a folder for this process, until it ends. False: another process has it; None: it cannot be locked."""
    handle = os.open(folder, os.O_RDONLY)
    key = (at := os.fstat(handle)).st_dev, at.st_ino
    try:
        if key not in HELD:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            HELD[key], handle = handle, None
        return True
    except OSError as error:
        return False if isinstance(error, BlockingIOError) else None
    finally:
        if handle is not None:
            os.close(handle)


def take(out: Path) -> None:
    """Makes an output folder and holds it: two runs at once would write over each other. A full disk or a read-only
    folder shows here, not after an hour."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").write_bytes(b"0" * 2**20)
        (out / ".writable").unlink()
    except OSError as error:
        die(f"output_dir {out}: {error.strerror}; give another --output_dir or make room")
    if hold(out) is False:
        die(f"output_dir {out}: another run is at work there; wait for its end, or give another --output_dir")


def refuse_others(out: Path, outputs: tuple[str, ...], settings: dict) -> None:
    """Ends the run where one of `outputs` is there already, unless the first of them says: with these settings."""
    theirs = next((name for name in outputs if (out / name).exists()), "")
    found = f"{theirs}, which no finished curation made"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        if not theirs or json.loads((out / outputs[0]).read_text())["settings"] == settings:
            return
        found = "a curation with other settings"
    die(f"output_dir {out} holds {found}; give another --output_dir")


def make_partial(folder: Path) -> Path:
    """A new folder beside `folder`, to be filled and put in its place; those of runs that were killed go."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{folder.name}.*.partial"):
        if hold(left):
            shutil.rmtree(left)
    hold(partial := Path(tempfile.mkdtemp(".partial", f"{folder.name}.", folder.parent)))
    return partial


def put_in_place(partial: Path, folder: Path) -> None:
    """Another process may have made the same meanwhile."""
    try:
        partial.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(partial)


def open_output(cfg, may_change: set[str]) -> Path | None:
    """Makes output_dir ready on rank 0 and returns the checkpoint to resume from, if any. A folder of a run with other
    settings is refused; `resume: never` renames the old one."""
    out = Path(cfg.output_dir)
    take(out)
    try:
        if cfg.resume == "never" and (out / "config.yaml").exists():
            old = next(p for n in range(1, 10**6) if not (p := out.with_name(f"{out.name}.old-{n}")).exists())
            out.rename(old)
            print(f"{out} held a run; it is now {old}")
            take(out)
        for broken in out.glob("*.partial"):  # left by a run that was killed while it wrote
            shutil.rmtree(broken) if broken.is_dir() else broken.unlink()
    except OSError as error:
        die(f"output_dir {out}: {error.strerror}; give another --output_dir or make room")
    before, found, now = {}, checkpoints(out), dataclasses.asdict(cfg)
    if (out / "config.yaml").exists():
        before = read_settings(out)
        changed = [f"{key} {before[key]} there, {now[key]} now" for key in now
                   if key not in may_change and before.get(key, now[key]) != now[key]]
        if changed and cfg.resume in ("auto", before.get("resume")):
            die(f"output_dir {out} holds a run with other settings ({'; '.join(changed)}); "
                "give another --output_dir, or --resume never to set that run aside")
    elif any(out.iterdir()):
        die(f"output_dir {out} is not empty and holds no run of this trainer; give another --output_dir")
    if cfg.resume in ("auto", "never") or found and before.get("resume") == cfg.resume:  # the same command once more
        return found[-1] if found else None
    if not (Path(cfg.resume) / "trainer" / "state.json").exists():
        die(f"resume: {cfg.resume} is no checkpoint of this trainer (no trainer/state.json); use auto or never")
    if found and found[-1].resolve() != Path(cfg.resume).resolve():
        die(f"resume: {out} holds {found[-1].name} too, and auto would mix the two runs; give another --output_dir")
    return Path(cfg.resume)
