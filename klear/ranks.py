"""The ranks of a training run: Accelerate, what the functions of a stage share (`Run`), and checkpoints, written whole
or not at all and resumed bit for bit on a CPU.

The checkpoints are ours, because Accelerate's `save_state` is not atomic, deletes the oldest one before it writes, and
silently restores no RNG where its file is missing.
"""

import copy
import ctypes
import json
import os
import pickle
import random
import shutil
import time
import warnings
from concurrent.futures import wait
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object
from safetensors import SafetensorError
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy

from klear.lora import adapted, add_adapters, plain_weights, save_adapter
from policy import Policy, end_of_turn, warn_of_emulated_bf16
from runs import Stop, check_room, checkpoints, cores_per_rank, die, one_line, rank_lost, signals

warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # a checkpoint of one process is meant
FILE_ERRORS = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError,
               dcp.api.CheckpointException)  # a full disk or a damaged file comes as any of these
TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)  # LoRA's frozen model is no part of a checkpoint


def make_accelerator(cfg):
    """Accelerate, set up for us: trackers, time-out of the ranks, all cores of a CPU, fp32 gradients under FSDP2."""
    try:
        accelerator = Accelerator(log_with=None if cfg.log_with == "none" else cfg.log_with, project_dir=cfg.output_dir,
                                  kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=cfg.rank_timeout_s))])
    except (ImportError, ValueError) as error:
        die(f"log_with {cfg.log_with}: {one_line(error)}")
    if accelerator.mixed_precision not in ("no", "bf16"):  # fp16 needs a loss scaler, which our updates know nothing of
        die(f"mixed_precision {accelerator.mixed_precision}: launch with bf16 or no")
    if accelerator.distributed_type in ("DEEPSPEED", "MEGATRON_LM") or (
            accelerator.distributed_type == "FSDP" and not accelerator.is_fsdp2):
        die("weights are sharded by FSDP2 alone (fsdp_version: 2, as in recipes/fsdp2_8gpu.yaml), not by FSDP1, "
            "DeepSpeed or Megatron")
    accelerator.gradient_accumulation_steps = 1  # the launcher's would divide our sums; token_budget is ours
    if accelerator.is_fsdp2 and accelerator.mixed_precision == "bf16":
        # Accelerate's own policy would also cast the log-probabilities to bf16 and add up gradients over ranks in bf16
        exact_sums = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32)
        accelerator.state.fsdp_plugin.mixed_precision_policy = exact_sums
    if accelerator.device.type == "cpu":
        if accelerator.mixed_precision == "bf16" and accelerator.is_main_process:
            warn_of_emulated_bf16("leave --mixed_precision bf16 out")
        if "ACCELERATE_MIXED_PRECISION" in os.environ:
            torch.set_num_threads(cores_per_rank())  # its launcher leaves one thread
        if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc: what is freed stays mapped below 32 MB a
            mallopt(-1, 2**31 - 1), mallopt(-3, 2**25)  # tensor, or each new one is paid for page by page
    return accelerator


@dataclass
class Run:
    """What the functions of a stage share."""

    cfg: Any
    accelerator: Any
    policy: Any  # as prepared by Accelerate; .lm on the unwrapped one is the Hugging Face model
    optimizer: Any
    tokenizer: Any
    stop_ids: list[int]
    pad_id: int
    reference: Any = None  # the starting model, for kl_coef: see freeze
    reward_s: float = 0.0  # seconds that the rollout waited for rewards
    carried: dict[int, list] = field(default_factory=dict)  # step: groups in progress after it, alike on all ranks

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        return self.accelerator.num_processes

    @property
    def bare(self):
        return self.accelerator.unwrap_model(self.policy)

    def total(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over all ranks, by key."""
        numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=self.accelerator.device)
        return dict(zip(values, self.accelerator.reduce(numbers, "sum").tolist()))

    def stop_if_asked(self) -> None:
        """Raises Stop on all ranks if one was signalled. All ranks must come here equally often."""
        if signals if self.world == 1 else self.total({"asked": float(bool(signals))})["asked"]:
            raise Stop

    def leave(self, with_groups: bool = True) -> None:
        """The end of a run that is whole: trackers, and the process groups unless the engine takes them down itself."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
        # gloo's thread still lets go of the tensors of the last gather, which needs the GIL; the destructors of DDP and
        # of the group wait for that thread with the GIL in their hands. One run of seven hung here.
        time.sleep(1.0 if self.world > 1 else 0.0)
        if with_groups:
            self.accelerator.state.destroy_process_group()

    def wait(self, futures) -> None:
        """Waits for all futures or for a signal. A signal to all processes has killed the reward workers too, so that
        what they still owe would come as failed: it raises Stop, on all ranks."""
        while not signals and wait(list(futures), 1).not_done:
            pass
        self.stop_if_asked()


def freeze(lm, accelerator: Accelerator) -> Policy:
    """A whole copy on every rank, FSDP2 or not, that is never trained nor saved; in bf16 where a GPU computes in it."""
    device, bf16 = accelerator.device, accelerator.mixed_precision == "bf16"
    frozen = Policy(copy.deepcopy(lm)).to(device, torch.bfloat16 if bf16 and device.type == "cuda" else torch.float32)
    return frozen.eval().requires_grad_(False)


def spread(rows: list, ranks: int) -> list[list[int]]:
    """[rank] -> positions, dealt longest prompt first, back and forth, so that no rank waits long."""
    order, turns = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids)), [*range(ranks), *reversed(range(ranks))]
    return [[i for k, i in enumerate(order) if turns[k % len(turns)] == rank] for rank in range(ranks)]


def make_run(cfg, lm, tokenizer, checkpoint: Path | None) -> tuple[Run, Path | None]:
    """The ranks meet: policy and optimizer as prepared by Accelerate, and rank 0's checkpoint on all of them."""
    if len(tokenizer) > (rows := lm.get_input_embeddings().num_embeddings):
        die(f"model: its tokenizer has {len(tokenizer)} tokens, its embedding {rows} rows; resize_token_embeddings "
            "makes them as many")
    accelerator, out = make_accelerator(cfg), Path(cfg.output_dir)
    checkpoint = broadcast_object_list([checkpoint])[0]
    seen = gather_object([out.is_dir()])
    if not all(seen):
        die(f"output_dir {out}: rank {seen.index(False)} does not see it; all machines must share its file system")
    # lm is the starting model still, in a run that is resumed too: its checkpoint is loaded later
    reference = freeze(lm, accelerator) if getattr(cfg, "kl_coef", 0) and not cfg.lora_rank else None
    parameters = lm.num_parameters()
    if cfg.lora_rank:
        add_adapters(lm, cfg, accelerator)
    policy = Policy(lm)
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    check_room(out, parameters, sum(weight.numel() for weight in trained), accelerator.mixed_precision)
    optimizer = torch.optim.AdamW(trained, lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    policy, optimizer = accelerator.prepare(policy, optimizer)
    stop_ids, pad_id = end_of_turn(lm.generation_config, tokenizer)
    return Run(cfg, accelerator, policy, optimizer, tokenizer, stop_ids, pad_id, reference), checkpoint


# --------------------------------------------------------------------------------------------------------- checkpoints
def save_pretrained(folder: Path, run: Run) -> None:
    """A Hugging Face folder that the stages and vLLM load. All ranks call it (FSDP2 gathers), rank 0 writes."""
    lm, dtype = run.bare.lm, torch.bfloat16 if run.accelerator.mixed_precision == "bf16" else torch.float32
    full, tied = {}, lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    for name, t in plain_weights(lm):
        if tied and name in (lm._tied_weights_keys or {}):
            continue  # it is the embedding
        if run.rank == 0:
            full[name] = t.to("cpu", dtype)
    if run.rank == 0:
        lm.save_pretrained(folder, state_dict=full)
        lm.config.dtype = dtype  # vLLM computes in what config.json says
        lm.config.save_pretrained(folder)
        lm.config.dtype = torch.float32
        run.tokenizer.save_pretrained(folder)
        if adapted(lm):
            save_adapter(lm, folder / "adapter")


def save_checkpoint(folder: Path, state: dict, run: Run, extra=None, best: int | None = None) -> None:
    """Hugging Face weights + trainer/ (weights, optimizer, state.json; RNG and `extra` of every rank; what rollouts
    carry over), complete or not there at all: everything goes to a temporary folder that is renamed last. Then the
    oldest ones go, but never that of step `best`. With LoRA no weights of the frozen model: adapter/ in PEFT's format,
    and what trains in trainer/."""
    partial = folder.with_name(folder.name + ".partial")

    def prepare() -> None:
        if run.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "trainer").mkdir(parents=True)

    def write_files() -> None:
        if not adapted(run.bare.lm):
            save_pretrained(partial, run)
        elif run.rank == 0:
            save_adapter(run.bare.lm, partial / "adapter")
        own = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": np.random.get_state()}
        if torch.cuda.is_available():
            own["cuda"] = torch.cuda.get_rng_state()
        torch.save(own | {"extra": extra}, partial / "trainer" / f"rng_{run.rank}.pt")
        carried = {step: groups for step, groups in run.carried.items() if groups and step >= state["step"]}
        if run.rank == 0 and carried:
            torch.save(carried, partial / "trainer" / "carried.pt")

    def write_state() -> None:
        unused = not run.optimizer.optimizer.state  # torch makes its states by a step without gradients: undo the count
        model, optimizer = get_state_dict(run.policy, run.optimizer.optimizer, options=TRAINED)
        for state_of_weight in run.optimizer.optimizer.state.values() if unused else ():
            state_of_weight["step"].zero_()
        dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=partial / "trainer" / "weights",
                 no_dist=run.world == 1)
        os.sync()  # or a power failure could leave the new name with empty files

    def publish() -> None:
        if run.rank == 0:
            (partial / "trainer" / "state.json").write_text(json.dumps(state))
            # what goes is renamed first: half deleted, it must not look whole
            gone = [folder.rename(folder.with_name(f"{folder.name}.old.partial"))] if folder.exists() else []
            partial.rename(folder)
            found = checkpoints(folder.parent)
            kept = [p for p in found if not p.name.endswith("-unfinished")][-run.cfg.keep_checkpoints:]
            kept += [folder, folder.with_name(f"checkpoint-{best}")]
            gone += [old.rename(old.with_name(f"{old.name}.partial")) for old in found if old not in kept]
            for old in gone:
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


def load_checkpoint(folder: Path, run: Run, keys=()) -> tuple[dict, object]:
    """Restores weights, optimizer and RNG in place; returns state.json, which must have the keys of the stage and no
    others, and this rank's `extra` (None where the number of ranks has changed)."""
    trainer, own = folder / "trainer", {}
    try:
        state = json.loads((trainer / "state.json").read_text())
        if keys and keys != state.keys():
            raise ValueError(f"it is another stage's, with {', '.join(state)}; start from it by --model")
        model, optimizer = get_state_dict(run.policy, run.optimizer.optimizer, options=TRAINED)
        dcp.load({"model": model, "optimizer": optimizer}, checkpoint_id=trainer / "weights", no_dist=run.world == 1)
        set_state_dict(run.policy, run.optimizer.optimizer, model_state_dict=model, optim_state_dict=optimizer,
                       options=TRAINED)
        if (trainer / "carried.pt").exists():
            run.carried = torch.load(trainer / "carried.pt", weights_only=False)
        # for another number of ranks there is none, and sampling needs none: seeds are functions of (step, prompt,
        # sample)
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
