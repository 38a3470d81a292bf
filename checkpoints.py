"""Checkpoints of a training stage: written whole or not at all, resumed bit for bit on a CPU.

Ours, because Accelerate's `save_state` is not atomic, deletes the oldest checkpoint before it writes, and silently restores
no RNG where its file is missing.
"""

import json
import os
import pickle
import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from policy import save_pretrained
from runs import Run, checkpoints, die, one_line, rank_lost

warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # a checkpoint of one process is meant
FILE_ERRORS = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError,
               dcp.api.CheckpointException)  # a full disk or a damaged file comes as any of these


def save_checkpoint(folder: Path, state: dict, run: Run, extra=None, best: int | None = None) -> None:
    """Hugging Face weights + trainer/ (weights, optimizer, state.json; RNG and `extra` of every rank), complete or not
    there at all: everything goes to a temporary folder that is renamed last. Then the oldest ones go, but never that of
    step `best`."""
    partial = folder.with_name(folder.name + ".partial")

    def prepare() -> None:
        if run.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "trainer").mkdir(parents=True)

    def write_files() -> None:
        save_pretrained(partial, run)
        own = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": np.random.get_state(), "extra": extra}
        if torch.cuda.is_available():
            own["cuda"] = torch.cuda.get_rng_state()
        torch.save(own, partial / "trainer" / f"rng_{run.rank}.pt")

    def write_state() -> None:
        model_state, optimizer_state = get_state_dict(run.policy, run.optimizer.optimizer)
        dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=partial / "trainer" / "weights",
                 no_dist=run.world == 1)
        os.sync()  # or a power failure could leave the new name with empty files

    def publish() -> None:
        if run.rank == 0:
            (partial / "trainer" / "state.json").write_text(json.dumps(state))
            # renamed before it is deleted: a checkpoint that is half deleted must not look whole
            replaced = [folder.rename(folder.with_name(folder.name + ".old.partial"))] if folder.exists() else []
            partial.rename(folder)
            whole = [p for p in checkpoints(folder.parent) if not p.name.endswith("-unfinished")][-run.cfg.keep_checkpoints:]
            for old in checkpoints(folder.parent):
                if old not in whole and old not in (folder, folder.with_name(f"checkpoint-{best}")):
                    replaced.append(old.rename(old.with_name(old.name + ".partial")))
            for old in replaced:
                shutil.rmtree(old)

    for action in (prepare, write_files, write_state, publish):
        error = ""
        try:
            action()
        except FILE_ERRORS as caught:
            error = one_line(caught)
        errors = gather_object([error])  # all ranks leave together, and wait for each other
        if any(errors):
            if run.rank == 0:
                shutil.rmtree(partial, ignore_errors=True)  # it takes room
            die(f"{folder} not written: {next(filter(None, errors))}; the checkpoint before it is whole. Disk full? "
                "Make room and run again")


def load_checkpoint(folder: Path, run: Run) -> tuple[dict, object]:
    """Restores weights, optimizer and RNG in place; returns state.json and this rank's `extra` (None where the number of
    ranks has changed)."""
    trainer, own = folder / "trainer", {}
    try:
        state = json.loads((trainer / "state.json").read_text())
        model_state, optimizer_state = get_state_dict(run.policy, run.optimizer.optimizer)
        dcp.load({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=trainer / "weights",
                 no_dist=run.world == 1)
        set_state_dict(run.policy, run.optimizer.optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state)
        # for another number of ranks there is none, and sampling needs none: seeds are functions of (step, prompt, sample)
        if len(list(trainer.glob("rng_*.pt"))) == run.world:
            own = torch.load(trainer / f"rng_{run.rank}.pt", weights_only=False)
            torch.set_rng_state(own["torch"])
            random.setstate(own["python"])
            np.random.set_state(own["numpy"])
            if "cuda" in own and torch.cuda.is_available():
                torch.cuda.set_rng_state(own["cuda"])
    except FILE_ERRORS as error:
        if rank_lost(error):
            raise
        die(f"resume: {folder} cannot be read: {one_line(error)}; delete it to go on from the one before")
    return state, own.get("extra")


def save_final(out: Path, run: Run) -> None:
    """final/, the trained model: written beside it and renamed, so that a folder final/ is always whole."""
    save_pretrained(out / "final.partial", run)
    if run.rank == 0:
        shutil.rmtree(out / "final", ignore_errors=True)
        (out / "final.partial").rename(out / "final")
