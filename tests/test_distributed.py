"""Two ranks are one rank: the same losses, gradient norms and weights, under DDP and under FSDP2 (`fully_shard`), over gloo on
the CPU; and whole runs of two ranks, each with its own rollout engine, under the launch command of the README."""

import functools
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from klear import lora
from klear import ranks
import forked
import rl_gppo
import runs
import toy
from policy import Policy, load_policy
from rewards import Reward
from rl_gppo import Config, Prompt, Sample
from klear.ranks import Run

ROOT = Path(__file__).parent.parent


def tiny_model(tied: bool) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        max_position_embeddings=256, tie_word_embeddings=tied, attn_implementation="sdpa"))


def make_samples(groups: int, per_group: int, longest: int = 40) -> list[Sample]:
    rng, samples = random.Random(0), []
    for group in range(groups):
        prompt = Prompt([rng.randrange(3, 97) for _ in range(rng.randint(2, 12))], "", "math_verify", "1")
        for _ in range(per_group):
            response = [rng.randrange(3, 97) for _ in range(rng.randint(1, longest))]
            samples.append(Sample(prompt, group, response, [-rng.random() * 5 for _ in response], False,
                                  Reward(1.0, rng.random() < 0.5, "correct"), rng.gauss(0, 1)))
    return samples


# name: (config, samples). Three updates a rollout where there are groups enough, so the later ones are off-policy.
CASES = {
    "even": (dict(minibatch_prompts=2), lambda: make_samples(6, 4)),
    "small_budget": (dict(minibatch_prompts=2, token_budget=60), lambda: make_samples(6, 4)),
    "uneven": (dict(minibatch_prompts=3, token_budget=1), lambda: make_samples(7, 1)),
    "one_long_sample": (dict(minibatch_prompts=2), lambda: make_samples(4, 2, 10) + [
        Sample(Prompt([5, 6], "", "", ""), 9, [7] * 200, [-1.0] * 200, False, Reward(1.0, True, "correct"), 1.5)]),
    "empty_rank": (dict(minibatch_prompts=1), lambda: make_samples(2, 1)),
    "entropy_masks": (dict(minibatch_prompts=2, loss="gppo_erc", erc_low=0.99, erc_high=1.01), lambda: make_samples(6, 4)),
    "lora": (dict(minibatch_prompts=2, lora_rank=4), lambda: make_samples(6, 4)),
}
OPTIMIZERS = {  # SGD: weights move by the gradient itself, so equal steps mean equal gradients
    "sgd": (functools.partial(torch.optim.SGD, lr=1.0), dict(lr=0.1, grad_clip=1e9)),
    "adamw": (functools.partial(torch.optim.AdamW, lr=1.0), dict(lr=1e-3, grad_clip=1.0)),
}


def wrapped(policy: Policy, wrap: str, accelerator: Accelerator):
    """The policy of one rank (none), or of several: ddp, fsdp."""
    if wrap == "ddp":
        return accelerator.prepare(policy)
    if wrap == "fsdp":
        mesh = init_device_mesh("cpu", (accelerator.num_processes,))
        for layer in policy.lm.base_model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(policy, mesh=mesh, reshard_after_forward=True)
    return policy


def make_run(cfg: Config, optimizer, wrap: str, tied: bool) -> Run:
    accelerator = Accelerator(cpu=True)
    policy = Policy(tiny_model(tied))
    if cfg.lora_rank:
        lora.add_adapters(policy.lm, cfg, accelerator)
    policy = wrapped(policy, wrap, accelerator)
    return Run(cfg, accelerator, policy, accelerator.prepare(optimizer([p for p in policy.parameters() if p.requires_grad])), SavesNothing(), [1], 0)


class SavesNothing:
    """Stands for a tokenizer in save_pretrained."""

    def save_pretrained(self, folder) -> None:
        pass


def whole(run: Run) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in lora.plain_weights(run.bare.lm)}


def outcome(case: str, optimizer: str, wrap: str, tied: bool) -> tuple[dict, dict[str, torch.Tensor]]:
    """Metrics and final weights of the updates of one rollout."""
    make, options = OPTIMIZERS[optimizer]
    settings, samples = CASES[case]
    run = make_run(Config(**{"warmup_steps": 0, **options, **settings}), make, wrap, tied)
    return rl_gppo.update_policy(samples(), 1, run), whole(run)


GRID = [(case, optimizer, wrap, tied) for wrap in ("ddp", "fsdp") for case in CASES for optimizer in OPTIMIZERS
        if (case, wrap) != ("lora", "fsdp")  # refused
        for tied in ((True, False) if case == "even" else (True,))]


def two_ranks(rank: int, folder: str) -> None:
    """All cases of GRID on two gloo ranks, in one pair of processes; every rank writes what it got."""
    results = {key: outcome(*key) for key in GRID}
    torch.save(results, f"{folder}/rank{rank}.pt")
    for wrap in ("ddp", "fsdp"):
        checkpoint_round_trip(Path(folder) / wrap, wrap)


def checkpoint_round_trip(out: Path, wrap: str) -> None:
    """Two steps in one go; and one step, checkpoint, a new run that loads it, the second step."""
    cfg = Config(output_dir=str(out), minibatch_prompts=2, warmup_steps=0, lr=1e-3)
    make = functools.partial(torch.optim.AdamW, lr=1e-3)
    run = make_run(cfg, make, wrap, True)
    for step in (1, 2):
        metrics = rl_gppo.update_policy(make_samples(4, 2), step, run)
        if step == 1:
            ranks.save_checkpoint(out / "checkpoint-1", {"step": 1, "cursor": 4, "best": None}, run, extra=[run.rank])
            saved = whole(run)
    expected = whole(run)
    run = make_run(cfg, make, wrap, True)
    state, extra = ranks.load_checkpoint(out / "checkpoint-1", run)
    loaded = whole(run)
    again = rl_gppo.update_policy(make_samples(4, 2), 2, run)
    ranks.save_pretrained(out / "final", run)
    if run.rank == 0:
        torch.save({"state": state, "extra": extra, "saved": saved, "loaded": loaded, "expected": expected, "got": whole(run),
                    "metrics": metrics, "again": again}, out / "round_trip.pt")
    else:
        whole(run)  # gathering is collective


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    forked.spawn(two_ranks, str(folder))
    return folder


@pytest.fixture(scope="module")
def results(pair) -> list[dict]:
    return [torch.load(pair / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case, optimizer, wrap, tied", GRID)
def test_two_ranks_are_one(results, case, optimizer, wrap, tied):
    """1e-5 relative in fp32; the one rank has all samples in one micro-batch, whatever the two have. Adam's first step is lr
    whatever the gradient's size, so where that is next to zero its rounding shows: there in units of lr."""
    make, options = OPTIMIZERS[optimizer]
    settings, samples = CASES[case]
    run = make_run(Config(**{"warmup_steps": 0, **options, **settings, "token_budget": 10**6}), make, "none", tied)
    before = whole(run)
    metrics, weights = rl_gppo.update_policy(samples(), 1, run), whole(run)
    assert metrics["updates_skipped"] == 0 and metrics["grad_norm"] > 0
    assert case == "empty_rank" or metrics["approx_kl"] > 0  # later updates are off-policy
    for got, new in (result[case, optimizer, wrap, tied] for result in results):
        assert got["updates"] == metrics["updates"]
        for key in ("loss", "pg_loss", "sft_loss", "entropy", "rollout_logprob_diff", "grad_norm", "clip_frac_high", "clip_frac_low"):
            assert got[key] == pytest.approx(metrics[key], rel=1e-5, abs=1e-7), key
        for name, weight in weights.items():
            off = (new[name] - weight).abs()
            assert off.norm() <= 1e-5 * weight.norm() or optimizer == "adamw" and off.mean() < 1e-2 * options["lr"] > off.max() / 210, name
            if optimizer == "sgd":  # the step itself: the gradient, to 1e-5
                step = (weight - before[name]).norm()
                assert (new[name] - weight).norm() <= 1e-5 * step + 1e-7 * weight.norm(), name
                assert step > 0 or case == "lora" and "_proj" not in name, name


@pytest.mark.slow
def test_ranks_end_with_the_same_bits(results):
    for key in GRID:
        (mine, weights), (theirs, other) = (result[key] for result in results)
        assert mine == theirs and all(torch.equal(w, other[name]) for name, w in weights.items()), key


@pytest.mark.slow
@pytest.mark.parametrize("wrap", ["ddp", "fsdp"])
def test_checkpoint_of_two_ranks(pair, wrap):
    got = torch.load(pair / wrap / "round_trip.pt", weights_only=False)
    assert got["state"] == {"step": 1, "cursor": 4, "best": None} and got["extra"] == [0] and got["metrics"] == got["again"]
    for name, weight in got["expected"].items():
        assert torch.equal(got["loaded"][name], got["saved"][name]) and torch.equal(got["got"][name], weight), name
        assert not torch.equal(weight, got["saved"][name])
    for folder, weights in (("checkpoint-1", got["saved"]), ("final", got["expected"])):
        lm = AutoModelForCausalLM.from_pretrained(pair / wrap / folder)
        assert all(torch.equal(t, weights[name]) for name, t in lm.state_dict().items())
    assert not list((pair / wrap).glob("*.partial"))


# ------------------------------------------------------------------------------------------------------------ whole runs
def rl(out: Path, ranks: int, *flags) -> list[dict]:
    """A run of rl_gppo.py; its metrics.jsonl."""
    done = forked.run("rl_gppo", "--output_dir", out, *flags, ranks=ranks, cwd=out.parent)
    assert f"{ranks} rank(s)" in done.stdout, done.stdout[-4000:]
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    toy.make_model(str(folder))
    return str(folder)


# An untrained model rarely writes </think>; a score for that gives its groups something to differ in.
SMALL = ["--steps", 3, "--train_file", "toy:math-terms=3", "--prompts_per_step", 4, "--responses_per_prompt", 8, "--minibatch_prompts", 2, "--eval_file=", "--max_response_tokens", 24,
         "--reward_workers", 1, "--lr", "3e-4", "--warmup_steps", 0]
SPREAD = ["--no_think_end", 0.5, "--no_think_start", -0.5]


def same_run(two: Path, one: Path, expected: list[dict], model: str) -> None:
    """Metrics and final weights of the run in `two` are those of the run in `one`."""
    metrics = [json.loads(line) for line in (two / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == [m["step"] for m in expected] == [1, 2, 3]
    for a, b in zip(metrics, expected):
        assert a["rollout_logprob_diff"] < 1e-4 and a["updates"] >= 1 and a["grad_norm"] > 0
        for key in set(rl_gppo.METRICS) - {"rollout_s", "reward_s", "train_s", "sync_s", "step_s", "rollout_logprob_diff"}:
            assert a[key] == pytest.approx(b[key], rel=1e-4, abs=1e-5), (key, a["step"])
    assert sum(m["approx_kl"] for m in metrics) > 0
    finals = [AutoModelForCausalLM.from_pretrained(run / "final").state_dict() for run in (two, one)]
    start = AutoModelForCausalLM.from_pretrained(model).state_dict()
    for name, weight in finals[1].items():
        assert (finals[0][name] - weight).norm() <= 1e-3 * (weight - start[name]).norm() + 1e-6 * weight.norm(), name


@pytest.fixture(scope="module")
def one_rank(model, tmp_path_factory):
    """(folder, metrics) of the run of one rank with an engine; each is made once."""
    @functools.cache
    def run(engine: str) -> tuple[Path, list[dict]]:
        out = tmp_path_factory.mktemp("one_rank") / engine
        return out, rl(out, 1, "--model", model, "--rollout", engine, *SMALL, *SPREAD)

    return run


@pytest.mark.slow
@pytest.mark.needs("time", "vllm")
def test_run_of_two_ranks(tmp_path, model, one_rank):
    """Each rank has an engine of its own, which follows the trainer; samples, and so all numbers, are those of one rank."""
    rl(tmp_path / "two", 2, "--model", model, "--rollout", "vllm", *SMALL, *SPREAD)
    same_run(tmp_path / "two", *one_rank("vllm"), model)


@pytest.mark.needs("time")
@pytest.mark.slow
def test_run_under_the_launch_command(tmp_path, model, one_rank):
    launch = ["--multi_gpu", "--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no", "--num_processes", 2, "--main_process_port", 0]
    done = subprocess.run([sys.executable, "-m", "accelerate.commands.launch", *map(str, launch), ROOT / "rl_gppo.py", "--output_dir", tmp_path / "two",
                           "--model", model, "--rollout", "hf", *map(str, [*SMALL, *SPREAD])], text=True, capture_output=True,
                          env={**os.environ, "ACCELERATE_USE_CPU": "true"}, cwd=tmp_path, timeout=300)
    assert done.returncode == 0 and "2 rank(s)" in done.stdout, done.stderr[-4000:]
    same_run(tmp_path / "two", *one_rank("hf"), model)


@pytest.mark.needs("time")
@pytest.mark.slow
def test_ranks_skip_a_step_without_groups_together(tmp_path, model):
    """Every response scores -1, so no group is left on any rank: no update, and nobody waits for one."""
    for row in rl(tmp_path / "run", 2, "--model", model, "--rollout", "hf", *SMALL):
        assert row["groups_kept"] == 0 and row["groups_all_wrong"] == 4 and "loss" not in row


# ---------------------------------------------------------------------------------------- FSDP2 as Accelerate prepares it
def recipe_environment(name: str) -> dict[str, str]:
    """The variables that accelerate launch makes of a config file of recipes/."""
    config = yaml.safe_load((ROOT / "recipes" / name).read_text())
    return {"ACCELERATE_USE_FSDP": "true", **{key.upper(): str(value) for key, value in config["fsdp_config"].items()}}


def sharded_stage(rank: int, folder: str, precision: str, flags: list[str]) -> None:
    """A run under recipes/fsdp2_8gpu.yaml on two CPU ranks. Accelerate takes FSDP for GPUs only, so its state is told."""
    os.environ.update(recipe_environment("fsdp2_8gpu.yaml"))

    def accelerator_of_gpus(**options) -> Accelerator:
        accelerator = Accelerator(cpu=True, mixed_precision=precision, **options)
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        if precision != "no":
            accelerator.state.fsdp_plugin.set_mixed_precision(precision)
        return accelerator

    runs.RANK, ranks.Accelerator = rank, accelerator_of_gpus
    if precision == "no":
        rollout = rl_gppo.rollout
        rl_gppo.rollout = lambda *args: rollout(*args) if isinstance(args[-1].policy, FSDPModule) else sys.exit("nothing was sharded")
        rl_gppo.main(flags)
    else:  # the update alone: on the CPU a bf16 engine and a bf16 trainer round differently
        rl_gppo.make_engine = lambda *_: None
        run, *_ = rl_gppo.start(rl_gppo.parse(flags))
        batch = rl_gppo.collate(make_samples(2, 2), False, "cpu", 0)
        logprobs, entropy = rl_gppo.token_logprobs(batch, run, True)
        seen = {}
        run.bare.lm.base_model.layers[0].register_forward_hook(lambda module, args, out: seen.update(layer=out[0].dtype))
        metrics = rl_gppo.update_policy(make_samples(4, 2), 1, run)
        seen.update(logprobs=logprobs.dtype, entropy=entropy.dtype, weights={p.dtype for p in run.policy.parameters()},
                    adam={t.dtype for s in run.optimizer.state.values() for t in s.values()})
        torch.save({"logprobs": logprobs.detach(), "metrics": metrics, "dtypes": seen}, f"{folder}/bf16_{rank}.pt")


@pytest.mark.slow
@pytest.mark.needs("time", "vllm")
def test_sharded_run_is_the_run_of_one_rank(tmp_path, model, one_rank):
    """Three steps with one vLLM engine a rank, weights gathered into it from the shards, checkpoint and final model."""
    flags = ["--model", model, "--rollout", "vllm", *SMALL, *SPREAD]
    out = tmp_path / "two"
    forked.spawn(sharded_stage, str(tmp_path), "no", list(map(str, ["--output_dir", out, *flags])))
    same_run(out, *one_rank("vllm"), model)


@pytest.mark.slow
def test_bf16_keeps_fp32_where_it_matters(tmp_path, model):
    """Layers compute in bf16; log-probabilities, master weights and Adam states stay fp32."""
    forked.spawn(sharded_stage, str(tmp_path), "bf16", ["--output_dir", str(tmp_path / "run"), "--model", model, "--eval_file="])
    batch = rl_gppo.collate(make_samples(2, 2), False, "cpu", 0)
    exact, _ = rl_gppo.token_logprobs(batch, SimpleNamespace(policy=Policy(load_policy(Config(), model)), cfg=Config()), True)
    for rank in range(2):
        got = torch.load(tmp_path / f"bf16_{rank}.pt")
        f32 = torch.float32
        assert got["dtypes"] == dict(layer=torch.bfloat16, logprobs=f32, entropy=f32, weights={f32}, adam={f32})
        assert 0 < (got["logprobs"] - exact).abs().max() < 0.05
        rounded = got["logprobs"].bfloat16().float() == got["logprobs"]
        assert rounded[batch["mask"]].float().mean() < 0.1  # fp32 numbers, not bf16 ones in an fp32 tensor
        assert got["metrics"]["updates_skipped"] == 0 and got["metrics"]["grad_norm"] > 0
