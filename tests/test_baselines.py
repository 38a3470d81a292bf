"""The baselines as published: how a loss is aggregated, the KL penalty against the starting model, the soft punishment of long
responses, each against a closed form; and the recipes that put them together."""

import dataclasses
import json
import math
import random
import re
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from transformers import Qwen3Config, Qwen3ForCausalLM

import forked
import plan
from klear import ranks
import rl_gppo
import toy
from policy import Policy
from klear.ranks import Run
from rewards import Reward
from rl_gppo import Config, Prompt, Sample
from runs import read_config
from test_distributed import wrapped

ROOT = Path(__file__).parent.parent
METHODS = ["grpo", "dapo", "dr_grpo", "cispo", "gspo", "ce_gppo", "gppo"]
AGGREGATIONS = ["token", "sequence", "constant"]
LIMIT = 40  # max_response_tokens


def tiny_model(seed: int = 0) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        max_position_embeddings=256, tie_word_embeddings=True, attn_implementation="sdpa"))


def make_samples(groups: int = 5, per_group: int = 4) -> list[Sample]:
    """Lengths from 1 to 33 tokens, all below LIMIT."""
    rng, samples = random.Random(0), []
    for group in range(groups):
        prompt = Prompt([rng.randrange(3, 97) for _ in range(rng.randint(2, 12))], "", "math_verify", "1")
        for _ in range(per_group):
            response = [rng.randrange(3, 97) for _ in range(rng.choice([1, 2, rng.randint(3, 33), 33]))]
            samples.append(Sample(prompt, group, response, [-rng.random() * 5 for _ in response], False,
                                  Reward(1.0, rng.random() < 0.5, "correct"), rng.gauss(0, 1)))
    return samples


def make_run(cfg: Config, wrap: str = "none", dtype=torch.float32, start: int = 1) -> Run:
    """The policy is the model of seed 0, the starting model that of seed `start`, so that the KL is none of 0."""
    accelerator = Accelerator(cpu=True)
    policy, reference = Policy(tiny_model().to(dtype)), ranks.freeze(tiny_model(start).to(dtype), accelerator).to(dtype)
    policy = wrapped(policy, wrap, accelerator)
    optimizer = accelerator.prepare(torch.optim.SGD(policy.parameters(), lr=cfg.lr))
    return Run(cfg, accelerator, policy, optimizer, None, [1], 0, reference)


def config(**knobs) -> Config:
    return Config(**{"warmup_steps": 0, "lr": 0.1, "grad_clip": 1e9, "sft_coef": 0.0, "minibatch_prompts": 3, "max_response_tokens": LIMIT, **knobs})


def whole(run: Run) -> dict[str, torch.Tensor]:
    return {name: (t.full_tensor() if hasattr(t, "full_tensor") else t).clone() for name, t in run.bare.lm.state_dict().items()}


def logprobs_in_float64(lm, sample: Sample) -> torch.Tensor:
    logits = lm(torch.tensor([sample.prompt.ids + sample.response])).logits[0, -len(sample.response) - 1:-1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(sample.response)[:, None]).squeeze(-1)


def closed_form(samples: list[Sample], aggregation: str, kl_coef: float) -> tuple[float, float, dict[str, torch.Tensor]]:
    """(loss, mean of k3, gradient) at ratio 1 in float64, response by response: no masks, no batches, no code of ours. The
    surrogate's value is then -A and its gradient -A·∇log π."""
    lm, start, per_response, k3_sum = tiny_model().double(), tiny_model(1).double(), [], 0.0
    for s in samples:
        new = logprobs_in_float64(lm, s)
        rho = (logprobs_in_float64(start, s).detach() - new).exp()
        k3 = rho - rho.log() - 1
        per_response.append(-s.advantage * (new - new.detach()).exp() + kl_coef * k3)
        k3_sum += k3.sum().item()
    tokens = sum(map(len, per_response))
    loss = {"token": lambda: sum(x.sum() for x in per_response) / tokens,
            "sequence": lambda: sum(x.mean() for x in per_response) / len(samples),
            "constant": lambda: sum(x.sum() for x in per_response) / (len(samples) * LIMIT)}[aggregation]()
    loss.backward()
    return loss.item(), k3_sum / tokens, {name: p.grad for name, p in lm.named_parameters()}


# ---------------------------------------------------------------------------------------------------------- aggregation, KL
@pytest.mark.parametrize("kl_coef", [0.0, 0.04])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_loss_and_gradient_are_the_closed_form(aggregation, kl_coef):
    """One update on all samples, by any cut into micro-batches, one sample each and all at once included."""
    samples = make_samples()
    loss, k3, gradient = closed_form(samples, aggregation, kl_coef)
    for budget in (1, 100, 10**6):
        run = make_run(config(loss_aggregation=aggregation, kl_coef=kl_coef, minibatch_prompts=100, token_budget=budget, lr=1e3))
        before = whole(run)
        metrics = rl_gppo.update_policy(samples, 1, run)
        assert metrics["updates"] == 1 and metrics["pg_loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)
        assert metrics["ref_kl"] == (pytest.approx(k3, rel=1e-4) if kl_coef else 0.0)
        for name, exact in gradient.items():
            step = (before[name] - whole(run)[name]).double() / run.cfg.lr  # SGD: the gradient itself
            assert 0 < (step - exact).norm() <= 1e-5 * exact.norm(), (name, budget)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_each_update_is_divided_by_its_own_counts(aggregation):
    """Three mini-batches of uneven size, learning rate 0: the mean of the three closed forms."""
    cfg = config(loss_aggregation=aggregation, kl_coef=0.04, minibatch_prompts=2, lr=0.0)
    parts = rl_gppo.split_minibatches(make_samples(), cfg, 1)
    assert sorted(map(len, parts)) == [4, 8, 8]
    metrics = rl_gppo.update_policy(make_samples(), 1, make_run(cfg))
    assert metrics["pg_loss"] == pytest.approx(sum(closed_form(part, aggregation, 0.04)[0] for part in parts) / 3, rel=1e-4)


def test_aggregations_differ():
    """Or the test above could not tell one from the other."""
    losses = {name: closed_form(make_samples(), name, 0.04)[0] for name in AGGREGATIONS}
    assert min(abs(a - b) for i, a in losses.items() for j, b in losses.items() if i < j) > 0.01 * max(map(abs, losses.values()))


def test_token_aggregation_is_the_mean_of_equal_lengths_too():
    """Where all responses have max_response_tokens tokens, the three are one."""
    samples = [dataclasses.replace(s, response=[5 + i % 7] * LIMIT, logprobs=[-1.0] * LIMIT) for i, s in enumerate(make_samples(2))]
    losses = [rl_gppo.update_policy(samples, 1, make_run(config(loss_aggregation=name, kl_coef=0.1)))["pg_loss"] for name in AGGREGATIONS]
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-5)


CASES = [(aggregation, wrap, budget) for aggregation in AGGREGATIONS for wrap in ("ddp", "fsdp") for budget in (60, 8192)] + [("sequence", "ddp", 1)]


def knobs_of(aggregation: str) -> Config:
    return config(loss_aggregation=aggregation, kl_coef=0.04, loss="ppo", sft_coef=0.1)


def two_ranks(rank: int, folder: str) -> None:
    results = {}
    for case in CASES:
        run = make_run(dataclasses.replace(knobs_of(case[0]), token_budget=case[2]), case[1])
        results[case] = rl_gppo.update_policy(make_samples(), 1, run), whole(run)
    torch.save(results, f"{folder}/rank{rank}.pt")


@pytest.mark.slow
def test_two_ranks_are_one(tmp_path):
    """Two gloo ranks, DDP and FSDP2, against one rank with all samples in one micro-batch: two updates, the second off-policy."""
    forked.spawn(two_ranks, str(tmp_path))
    results = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=False) for rank in range(2)]
    for aggregation in AGGREGATIONS:
        run = make_run(dataclasses.replace(knobs_of(aggregation), token_budget=10**6))
        before = whole(run)
        metrics, weights = rl_gppo.update_policy(make_samples(), 1, run), whole(run)
        assert metrics["updates"] == 2 and metrics["approx_kl"] > 0 and metrics["ref_kl"] > 0
        for case in (case for case in CASES if case[0] == aggregation):
            for got, new in (result[case] for result in results):
                for key in ("loss", "pg_loss", "sft_loss", "ref_kl", "grad_norm"):
                    assert got[key] == pytest.approx(metrics[key], rel=1e-5, abs=1e-7), (case, key)
                for name, weight in weights.items():
                    assert (new[name] - weight).norm() <= 1e-5 * (weight - before[name]).norm() + 1e-7 * weight.norm(), (case, name)


def test_k3_and_its_gradient():
    """Through micro_loss, whose only term here is the KL: value exp(d) - d - 1, gradient 1 - exp(d), d = log π_ref - log π; both against
    autograd over typed-in log-probabilities in float64, tokens far apart included."""
    torch.manual_seed(0)
    logprobs = torch.tensor([[-1.0, -3.0, -0.1], [-19.0, -2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[-1.0, -0.5, -4.0], [-0.5, -21.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[1.0, 1, 1], [1, 1, 0]], dtype=torch.float64)
    batch = {"loss_mask": mask, "mask": mask.bool(), "sft_mask": mask * 0, "advantages": mask * 0, "old_logprobs": logprobs.detach(),
             "old_entropy": mask, "rollout_logprobs": mask * 0, "lengths": mask.sum(-1)}
    run = Run(Config(kl_coef=2.0), None, None, None, None, [], 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rl_gppo, "token_logprobs", lambda batch, run, entropy: (logprobs, mask))
        patch.setattr(rl_gppo, "reference_logprobs", lambda batch, run: reference)
        loss, stats = rl_gppo.micro_loss(batch, 5, 1, run)
    loss.backward()
    d = (reference - logprobs.detach()) * mask
    assert stats["ref_kl"].item() == pytest.approx((d.exp() - d - 1).sum().item(), rel=1e-12) and stats["ref_kl"] > 0
    assert loss.item() == pytest.approx(2 / 5 * stats["ref_kl"].item(), rel=1e-12)
    torch.testing.assert_close(logprobs.grad, 2 / 5 * (1 - d.exp()), rtol=1e-12, atol=1e-12)


def test_the_start_has_no_kl():
    """Before the first update the policy is its reference, to the last bit; then it is not. No gradient and no training of the copy."""
    run = make_run(config(kl_coef=0.5, minibatch_prompts=100), start=0)
    frozen = {name: t.clone() for name, t in run.reference.state_dict().items()}
    assert rl_gppo.update_policy(make_samples(), 1, run)["ref_kl"] == 0.0
    assert rl_gppo.update_policy(make_samples(), 2, run)["ref_kl"] > 0.0
    assert all(torch.equal(t, frozen[name]) for name, t in run.reference.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in run.reference.parameters()) and not run.reference.training


def test_kl_holds_the_policy_back():
    """The same updates with a large coefficient end nearer to the start."""
    ends = []
    for kl_coef in (0.0, 20.0):
        run = make_run(config(kl_coef=kl_coef or 1e-9, lr=0.03), start=0)
        for step in range(1, 6):
            metrics = rl_gppo.update_policy(make_samples(), step, run)
        ends.append(metrics["ref_kl"])
    assert 0 < ends[1] < 0.5 * ends[0]


# --------------------------------------------------------------------------------------------------------- soft punishment
@pytest.mark.parametrize("tokens, buffer, expected", [
    (1, 13, 0.0), (50, 13, 0.0), (51, 13, 0.0), (52, 13, -1 / 13), (57, 13, -6 / 13), (63, 13, -12 / 13), (64, 13, -1.0), (64, 1, -1.0),
    (63, 1, 0.0), (0, 64, 0.0), (1, 64, -1 / 64), (32, 64, -0.5), (64, 0, 0.0)])
def test_soft_punishment(tokens, buffer, expected):
    """DAPO's Eq. 13 at its corners."""
    sample = Sample(Prompt([1], "", "", ""), 0, [1] * tokens, [0.0] * tokens, tokens == 64)
    assert rl_gppo.overlong_penalty(sample, Config(max_response_tokens=64, overlong_buffer=buffer)) == pytest.approx(expected, abs=1e-15)


def test_punishment_reaches_the_advantage_alone():
    """R is score + punishment; which groups are kept is decided by the score alone (DAPO's Eq. 11), and score and `correct`
    stay as they were."""
    cfg = Config(max_response_tokens=10, overlong_buffer=4, adv_std="none")
    lengths, right, wrong = [3, 6, 8, 10, 2, 10], Reward(1.0, True, "correct"), Reward(0.0, False, "wrong")
    samples = [Sample(Prompt([1], "", "", ""), i // 4, [1] * n, [0.0] * n, n == 10, wrong if i == 1 else right)
               for i, n in enumerate(lengths)]
    kept, counts = rl_gppo.compute_advantages(samples, cfg)
    # 1, 0, 0.5, 0 less their mean; the second group, all right, has a spread in length alone
    assert kept == samples[:4] and [s.advantage for s in kept] == pytest.approx([0.625, -0.375, 0.125, -0.375])
    assert counts["groups_kept"] == 1 and counts["groups_all_correct"] == 1 and samples[0].reward is right


def test_buffer_longer_than_a_response(capsys):
    prompts = [Prompt([1] * 8, "", "", "")]
    cfg = Config(max_response_tokens=64, overlong_buffer=65)
    with pytest.raises(SystemExit) as end:
        rl_gppo.fit_lengths(prompts, [], 512, cfg)
    assert end.value.code == 2 and "overlong_buffer 65 is more than max_response_tokens 64" in capsys.readouterr().err
    assert rl_gppo.fit_lengths(prompts, [], 512, dataclasses.replace(cfg, overlong_buffer=64)).overlong_buffer == 64


# ----------------------------------------------------------------------------------------------------------------- plan, runs
def test_plan_knows_the_copy():
    flags = ["--model", "Qwen/Qwen3-8B", "--gpus", "8", "--max_response_tokens", "8192"]
    off, on = (plan.plan(read_config(plan.Config, [*flags, "--kl_coef", value], "")) for value in ("0", "0.04"))
    shown = [re.findall(r"reference of kl_coef, bf16 +([\d.]+)", text) for text in (off, on)]
    assert shown == [[], ["16.38"] * 2]  # 2 bytes for each of 8.19B parameters, in the update and in the rollout


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    toy.make_model(str(folder))
    return str(folder)


SMALL = ["--rollout", "hf", "--eval_file=", "--reward_workers", "1", "--prompts_per_step", "4", "--responses_per_prompt", "4", "--minibatch_prompts", "2",
         "--max_response_tokens", "16", "--lr", "3e-4", "--warmup_steps", "0", "--no_think_end", "0.5", "--no_think_start", "-0.5"]


def metrics_of(out: Path) -> list[dict]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith("_s")} for row in rows]


@pytest.mark.needs("time")
@pytest.mark.slow
def test_resume_is_bitwise_with_a_reference(model, tmp_path):
    """Two steps, then two more in a second process: its reference is the starting model again, not the checkpoint."""
    flags = ["--model", model, *SMALL, "--kl_coef", "0.1", "--loss_aggregation", "sequence", "--overlong_buffer", "8", "--zero_advantage_filter", "false"]
    forked.run("rl_gppo", *flags, "--steps", 4, "--output_dir", tmp_path / "whole")
    for steps in (2, 4):
        forked.run("rl_gppo", *flags, "--steps", steps, "--output_dir", tmp_path / "cut")
    rows = metrics_of(tmp_path / "whole")
    assert rows == metrics_of(tmp_path / "cut") and len(rows) == 4 and set(rows[0]) < set(rl_gppo.METRICS)
    assert rows[3]["ref_kl"] > rows[0]["ref_kl"] > 0 and all(-1 <= row["overlong_penalty"] < 0 for row in rows)
    a, b = ((tmp_path / name / "final" / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert a == b
    assert not any("reference" in str(path) for path in (tmp_path / "whole").rglob("*"))
    kept = torch.load(next((tmp_path / "whole").glob("checkpoint-4/trainer/rng_0.pt")), weights_only=False)
    assert set(kept) <= {"torch", "python", "numpy", "cuda", "extra"}


# -------------------------------------------------------------------------------------------------------------------- recipes
PUBLISHED = {  # written down a second time, from the papers: (loss, εl, εh, dual clip, aggregation, std, KL, filter, refilled, α)
    "grpo": ("ppo", 0.2, None, 0, "sequence", "group", 0.04, False, False, 0), "dapo": ("clip_higher", 0.2, 0.28, 0, "token", "group", 0, True, True, 0),
    "dr_grpo": ("ppo", 0.2, None, 0, "constant", "none", 0, False, False, 0), "cispo": ("cispo", 1.0, 0.28, None, "token", "group", 0, False, False, 0),
    "gspo": ("gspo", 3e-4, 4e-4, 0, "sequence", "group", 0, False, False, 0), "ce_gppo": ("gppo", 0.2, 0.2, 0, "token", "group", 0, True, False, 0),
    "gppo": ("gppo", 0.2, 0.28, 10, "token", "group", 0, True, False, 0.1)}
KNOBS = "loss clip_low clip_high dual_clip loss_aggregation adv_std kl_coef zero_advantage_filter dynamic_sampling sft_coef".split()


@pytest.mark.parametrize("name", METHODS)
def test_recipe_is_the_published_method(name):
    """Parsed for the toy problems, with a folder of its own and nothing of model, data, optimiser or batch."""
    path = ROOT / "recipes" / f"{name}.yaml"
    cfg, given = rl_gppo.parse(["--config", str(path)]), yaml.safe_load(path.read_text())
    for knob, value in zip(KNOBS, PUBLISHED[name], strict=True):
        assert value is None or getattr(cfg, knob) == value, knob
    assert cfg.output_dir == f"runs/{name}" and cfg.overlong_buffer == (13 if name == "dapo" else 0)
    assert round(cfg.max_response_tokens * 4096 / 20480) == 13
    method = {*KNOBS, "beta1", "beta2", "overlong_buffer", "max_response_tokens"}
    assert set(given) - {"output_dir"} <= method and (name == "dapo") == ("max_response_tokens" in given)


def test_recipes_are_told_apart():
    """No two of them are one method under two names."""
    assert len({tuple(sorted((k, str(v)) for k, v in vars(rl_gppo.parse(["--config", str(ROOT / "recipes" / f"{name}.yaml")])).items()
                             if k != "output_dir")) for name in METHODS}) == len(METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_recipe_runs(name, model, tmp_path):
    flags = [flag for i, flag in enumerate(SMALL) if "--max_response_tokens" not in SMALL[max(i - 1, 0):i + 1]]
    forked.run("rl_gppo", "--config", ROOT / "recipes" / f"{name}.yaml", "--model", model, *flags, "--steps", 2, "--output_dir", tmp_path / "run")
    rows = metrics_of(tmp_path / "run")
    assert len(rows) == 2 and set(rows[0]) <= set(rl_gppo.METRICS)
    for row in rows:
        assert row["updates"] >= 1 and row["updates_skipped"] == 0 and math.isfinite(row["loss"]) and row["grad_norm"] > 0
    assert (rows[1]["ref_kl"] > 0) == (name == "grpo") and (rows[1]["overlong_penalty"] < 0) == (name == "dapo")
