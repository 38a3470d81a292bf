"""Both rollout engines for real: vLLM on the CPU and transformers' generate, on a toy model."""

import contextlib
import inspect
import json
import math
import random
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import forked
import rl_gppo
import runs
import toy
from policy import Policy, load_policy, load_tokenizer
from rewards import Reward
from rl_gppo import Config, HFRollout, Prompt, Sample, VLLMRollout, collate, seed_of, token_logprobs
from klear.ranks import Run
from klear.sampling import SeededSampler, vllm_options

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("spread", [0.05, 3.0])  # a flat distribution, whose nucleus needs the sort, and a peaked one
def test_nucleus_is_vllms(spread):
    """Against vLLM's own top_p, which sorts the vocabulary; and what vllm_options() puts in its place."""
    pytest.importorskip("vllm")
    from vllm.v1.sample.ops import topk_topp_sampler as ops

    torch.manual_seed(0)
    logits, top_p = torch.randn(6, 5000) * spread, torch.tensor([0.1, 0.5, 0.9, 0.95, 0.97, 0.99])
    vllm_options(gpu=False, length=1)
    ours, sort = ops.apply_top_k_top_p_pytorch, inspect.unwrap(ops.apply_top_k_top_p_pytorch)
    assert ours is not sort and sort.__module__ == ops.__name__
    vllm_options(gpu=False, length=1)  # an engine more changes nothing
    assert ops.apply_top_k_top_p_pytorch is ours
    for k in (None, torch.full((6,), 50)):
        expected = sort(logits.clone(), k, top_p).log_softmax(-1)
        assert 0 < expected.isinf().sum() < expected.numel()
        torch.testing.assert_close(ours(logits.clone(), k, top_p).log_softmax(-1), expected)


def test_a_vllm_without_that_function_keeps_its_own(monkeypatch):
    """It is private, and eval.py ended in a traceback where another version of vLLM had moved it."""
    monkeypatch.setitem(sys.modules, "vllm.v1.sample.ops", types.SimpleNamespace(topk_topp_sampler=types.SimpleNamespace()))
    assert vllm_options(gpu=False, length=9)["enforce_eager"]
    monkeypatch.setitem(sys.modules, "vllm.v1.sample.ops", None)  # an ImportError
    assert vllm_options(gpu=False, length=9)["enforce_eager"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    toy.make_model(str(folder))
    return str(folder)


def make_run(cfg: Config, model: str, lr: float = 1e-3) -> Run:
    accelerator = Accelerator(cpu=True)
    tokenizer, learner = load_tokenizer(model), Policy(load_policy(cfg, model))
    optimizer = accelerator.prepare(torch.optim.AdamW(learner.parameters(), lr=lr))
    return Run(cfg, accelerator, learner, optimizer, tokenizer, [tokenizer.eos_token_id], tokenizer.pad_token_id)


def rollout_of(engine, tokenizer, n=24, seed=0) -> list[Sample]:
    """Responses to n prompts, with advantages from a fixed random stream so that the updates move the weights."""
    rng, samples = random.Random(seed), {}
    prompts = [Prompt(tokenizer(f"{i}+{i + 1}=")["input_ids"], "", "", "") for i in range(n)]
    for i, ids, logprobs, truncated in engine.generate([(p.ids, seed_of(seed, i)) for i, p in enumerate(prompts)], 1.0):
        samples[i] = Sample(prompts[i], i // 4, ids, logprobs, truncated, Reward(1.0, i % 2 == 0, "correct"), rng.choice([-1.0, 1.0]))
    assert sorted(samples) == list(range(n))
    return [samples[i] for i in range(n)]


@pytest.mark.slow
@pytest.mark.needs("time", "vllm")
def test_vllm_follows_the_trainer(model, monkeypatch):
    """After each of 3 updates the engine runs the trainer's weights: mean |Δlogp| < 1e-4 (fp32). With the sync left out it
    does not, so the figure can fail."""
    cfg = Config(max_prompt_tokens=16, max_response_tokens=24, lr=1e-3, warmup_steps=0)
    run = make_run(cfg, model)
    engine = VLLMRollout(model, run)
    for step in (1, 2, 3):
        metrics = rl_gppo.update_policy(rollout_of(engine, run.tokenizer, seed=step), step, run)
        assert metrics["rollout_logprob_diff"] < 1e-4, step
        engine.sync(run.policy)
    rl_gppo.update_policy(rollout_of(engine, run.tokenizer, seed=4), 4, run)
    stale = rl_gppo.update_policy(rollout_of(engine, run.tokenizer, seed=5), 5, run)  # no sync before this rollout
    assert stale["rollout_logprob_diff"] > 1e-3
    # the same seeds give the same responses, and every response ends by a stop token or is truncated
    engine.sync(run.policy)
    first, again = rollout_of(engine, run.tokenizer), rollout_of(engine, run.tokenizer)
    assert [s.response for s in first] == [s.response for s in again]
    for s in first:
        assert s.truncated == (s.response[-1] not in run.stop_ids) and len(s.logprobs) == len(s.response)
        assert s.truncated == (len(s.response) == 24 and s.response[-1] not in run.stop_ids)
    # a signal ends the rollout between two tokens, not only when a response is complete
    requests, ticks, step = [([5, 6, 7], seed) for seed in range(4)], [], engine.llm.llm_engine.step
    monkeypatch.setattr(engine.llm.llm_engine, "step", lambda: (ticks.append(len(ticks) == 2 and runs.signals.append("SIGTERM")), step())[1])
    try:
        assert len(list(engine.generate(requests, 1.0))) < 4 and len(ticks) == 3
    finally:
        runs.signals.clear()


def test_hf_logprobs_are_the_trainers_and_seeds_do_not_see_the_batch(model):
    cfg = Config(max_prompt_tokens=16, max_response_tokens=24, rollout_batch=5)
    run = make_run(cfg, model)
    engine = HFRollout(run)
    samples = rollout_of(engine, run.tokenizer)
    batch = collate(samples, False, "cpu", 0)
    logprobs, _ = token_logprobs(batch, run, False)
    assert ((logprobs - batch["rollout_logprobs"]).abs() * batch["mask"]).max() < 1e-4
    requests = [(samples[i].prompt.ids, seed_of(0, i)) for i in (17, 3)]
    alone = {i: ids for i, ids, _, _ in engine.generate(requests, 1.0)}
    assert alone[0] == samples[17].response and alone[1] == samples[3].response
    assert len({tuple(s.response) for s in samples}) > 12  # different seeds, different responses


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6)])
def test_seeded_sampler_draws_from_the_distribution(temperature, top_p):
    """20,000 draws against softmax(logits/τ), cut at top_p as transformers' own warper does: chi-square within bounds."""
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    torch.manual_seed(0)
    logits, n = torch.randn(1, 8) * 1.5, 20000
    sampler = SeededSampler([seed_of(i) for i in range(n)], temperature, top_p)
    drawn = sampler(None, logits.expand(n, 8)).argmax(-1)
    counts = torch.bincount(drawn, minlength=8).double()
    warped = TopPLogitsWarper(top_p)(None, TemperatureLogitsWarper(temperature)(None, logits)) if top_p < 1 else logits / temperature
    p = warped.softmax(-1)[0].double()
    assert counts[p == 0].sum() == 0
    inside = p > 0
    chi2 = ((counts[inside] - n * p[inside]) ** 2 / (n * p[inside])).sum().item()
    assert chi2 < 30  # 7 degrees of freedom: 1e-4 above 29.9
    torch.testing.assert_close(sampler.logprobs[0].squeeze(-1).exp().double(), p[drawn], atol=1e-6, rtol=1e-5)


def test_masks_come_from_lengths_when_pad_is_eos(model):
    """Trap 9: with pad = eos the end token is still trained on and nothing behind it is."""
    cfg = Config(max_prompt_tokens=16, max_response_tokens=24)
    run = make_run(cfg, model)
    run.pad_id = run.stop_ids[0]
    engine = HFRollout(run)
    samples = rollout_of(engine, run.tokenizer)
    assert all(s.response.count(run.stop_ids[0]) == (0 if s.truncated else 1) for s in samples)
    batch = collate(samples, False, "cpu", run.stop_ids[0])
    assert batch["mask"].sum(-1).tolist() == [len(s.response) for s in samples]


def rl(out: Path, *flags, figures: bool = False):
    return forked.run("rl_gppo", "--output_dir", out, *flags, cwd=out.parent, check=False, figures=figures)


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> Path:
    """A folder with train.jsonl and eval.jsonl, 40 problems each."""
    folder = tmp_path_factory.mktemp("problems")
    for split in ("train", "eval"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in toy.rl_rows("math", 40, 0, split=split)))
    return folder


@pytest.mark.parametrize("engine", [pytest.param("vllm", marks=[pytest.mark.slow, pytest.mark.needs("vllm")]), "hf"])
def test_whole_stage(tmp_path, model, problems, engine):
    """Three steps with evaluation from an untrained model: every file of the contract, every number defined and finite."""
    out = tmp_path / "run"
    flags = ["--model", model, "--steps", 3, "--prompts_per_step", 4, "--responses_per_prompt", 4, "--minibatch_prompts", 2, "--eval_every", 2,
             "--save_every", 2, "--max_response_tokens", 24, "--zero_advantage_filter", "false", "--rollout", engine, "--reward_workers", 1, "--train_file", problems / "train.jsonl", "--eval_file", problems / "eval.jsonl"]
    done = rl(out, *flags, figures=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == [1, 2, 3]
    for m in metrics:
        assert set(m) == set(rl_gppo.METRICS) and all(math.isfinite(v) for v in m.values()), m
        assert m["rollout_logprob_diff"] < 1e-4 and m["updates"] == 2 and m["tokens"] <= 16 * 24
    evals = [json.loads(line) for line in (out / "eval.jsonl").read_text().splitlines()]
    assert [e["step"] for e in evals] == [0, 2, 3] and all(set(e) == {"step", "accuracy", "stderr", "n"} and e["n"] == 40 for e in evals)
    rows = [json.loads(line) for line in (out / "rewards.jsonl").read_text().splitlines()]
    assert [(r["step"], r["group"]) for r in rows] == [(step, group) for step in (1, 2, 3) for group in range(4) for _ in range(4)]
    for m in metrics:
        mine = {key: [r[key] for r in rows if r["step"] == m["step"]] for key in ("correct", "reward", "tokens", "logprob")}
        assert [m["accuracy"], m["reward_mean"], m["tokens"]] == pytest.approx([np.mean(mine["correct"]), np.mean(mine["reward"]), sum(mine["tokens"])])
        assert -np.average(mine["logprob"], weights=mine["tokens"]) == pytest.approx(m["entropy"], rel=0.2)  # its estimate from 384 tokens
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 12 and {"prompt", "response", "reward", "why"} <= set(samples[0])
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG") and (out / "config.yaml").exists()
    assert {p.name for p in out.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}
    for folder in (out / "final", out / "checkpoint-3"):
        assert load_policy(Config(), str(folder)).generation_config.eos_token_id == load_tokenizer(str(folder)).eos_token_id == 1
    if engine == "vllm":
        return
    again = rl(out, *flags)  # running it twice just works: nothing is left to do
    assert again.returncode == 0 and "step 3 of 3" in again.stdout, again.stderr[-2000:]
    assert [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()] == metrics
    anew = rl(out, *flags, "--steps", 1, "--resume", "never")
    assert anew.returncode == 0 and (tmp_path / "run.old-1" / "checkpoint-3").exists() and not (out / "checkpoint-3").exists()


def judged(prompts: list[Prompt], n: int, right) -> list[Sample]:
    """n samples of each prompt; right(prompt, sample) says which are."""
    return [Sample(p, g, [1], [0.0], False, Reward(1.0, True, "correct") if right(g, s) else Reward(-1.0, False, "wrong"))
            for g, p in enumerate(prompts) for s in range(n)]


def test_dynamic_sampling_draws_what_is_missing(monkeypatch):
    """Four groups wanted: three keep, then none, then one. Each round draws new prompts, as many as are missing."""
    asked = []

    def collect(engine, prompts, n, key, temperature, top_p, pool, run):
        asked.append((len(prompts), key[-1], temperature, top_p))
        return judged(prompts, n, lambda group, sample: sample and group < (3, 0, 1)[key[-1]])

    monkeypatch.setattr(rl_gppo, "collect", collect)
    run = types.SimpleNamespace(cfg=Config(prompts_per_step=4, responses_per_prompt=2, dynamic_sampling=True, temperature=0.8), carried={}, reward_s=0.0)
    prompts = [Prompt([1], str(i), "", "1") for i in range(50)]
    samples, cursor = rl_gppo.rollout(None, prompts, 0, 1, None, run)
    assert asked == [(4, 0, 0.8, 1.0), (1, 1, 0.8, 1.0), (1, 2, 0.8, 1.0)] and cursor == 6
    assert len({s.group for s in samples}) == len({s.prompt.text for s in samples}) == 6
    assert {s.prompt.text for s in samples} == {prompts[i].text for i in rl_gppo.next_rows(0, 6, 50, 0)}
    run.cfg.dynamic_sampling = False
    assert rl_gppo.rollout(None, prompts, 0, 1, None, run)[1] == 4


def test_evaluation_is_over_problems(tmp_path, monkeypatch):
    """Two responses each: means 1, 1/2 and 0; ± their standard deviation over the root of three."""
    asked = []

    def collect(engine, prompts, n, key, temperature, top_p, pool, run):
        asked.append((n, key, temperature, top_p))
        return judged(prompts, n, lambda group, sample: group + sample < 2)

    monkeypatch.setattr(rl_gppo, "collect", collect)
    cfg = Config(output_dir=str(tmp_path), eval_responses=2, eval_temperature=0.6, seed=5)
    run, state = types.SimpleNamespace(cfg=cfg, rank=0, accelerator=types.SimpleNamespace(log=lambda *_, **__: None)), {"step": 7, "best": None}
    rl_gppo.evaluate(None, [Prompt([1], str(i), "", "1") for i in range(3)], state, None, run)
    assert asked == [(2, (5, "eval", 7), 0.6, 0.95)]
    (row,) = runs.read_jsonl(tmp_path / "eval.jsonl")
    assert row == {"step": 7, "accuracy": 0.5, "stderr": pytest.approx(0.5 / math.sqrt(3)), "n": 3} and state["best"] == row


def test_knobs_of_the_rewards_reach_the_pool(monkeypatch):
    class Seen(Exception):
        pass

    def pool(*args, **knobs):
        raise Seen(args, knobs)

    cfg = Config(reward_workers=3, reward_timeout_s=7.0, code_reward="signed_pass_rate", no_think_end=-0.5, no_think_start=-2.0)
    monkeypatch.setattr(rl_gppo, "start", lambda cfg: (types.SimpleNamespace(cfg=cfg, rank=0), None, [], [], {"step": 0}, None))
    monkeypatch.setattr(rl_gppo, "catch_signals", lambda: None)
    monkeypatch.setattr(rl_gppo.rewards, "RewardPool", pool)
    with pytest.raises(Seen) as seen:
        rl_gppo.train(cfg)
    assert seen.value.args == ((3, 7.0), dict(code_reward="signed_pass_rate", no_think_end=-0.5, no_think_start=-2.0))


def test_steps_without_an_update_are_counted_in_a_row(monkeypatch):
    """No group kept, or every gradient skipped: what stop_without_signal counts; an update begins anew."""
    trained, seen = iter([{}, {"updates": 2, "updates_skipped": 2}, {"updates": 2, "updates_skipped": 1}, {}]), []
    engine = types.SimpleNamespace(sleep=lambda: None, sync=lambda policy: None)
    run = types.SimpleNamespace(cfg=Config(steps=4), rank=1, bare=None, reward_s=0.0, leave=lambda **_: None)
    fakes = {"start": lambda cfg: (run, engine, [], [], {"step": 0, "cursor": 0, "silent": 0}, None), "catch_signals": lambda: None,
             "evaluate_and_save": lambda engine, held_out, state, pool, run: seen.append(state["silent"]), "rollout": lambda *_: ([], 0),
             "compute_advantages": lambda *_: ([1], {}), "update_policy": lambda *_: next(trained), "log_step": lambda *_: None, "save_final": lambda *_: None}
    for name, fake in fakes.items():
        monkeypatch.setattr(rl_gppo, name, fake)
    monkeypatch.setattr(rl_gppo.rewards, "RewardPool", lambda *_, **__: contextlib.nullcontext())
    rl_gppo.train(run.cfg)
    assert seen == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("error", [ValueError("1.2 GB of KV cache is needed"), RuntimeError("no such layer")])
def test_an_engine_that_cannot_start_says_why(monkeypatch, capsys, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(rl_gppo, "VLLMRollout", fails)
    with pytest.raises(SystemExit) as end:
        rl_gppo.make_engine("models/mine", types.SimpleNamespace(cfg=Config(rollout="auto")))
    assert end.value.code == 2 and f"rollout: vllm cannot start with models/mine: {error}\n" in capsys.readouterr().err


@pytest.mark.slow
def test_dynamic_sampling_refills_and_never_raises(tmp_path, model, problems):
    """An untrained model has groups without spread: up to two refills are tried, then the step trains on what there is."""
    out = tmp_path / "run"
    done = rl(out, "--model", model, "--steps", 1, "--prompts_per_step", 4, "--responses_per_prompt", 2, "--dynamic_sampling", "true",
              "--train_file", problems / "train.jsonl", "--eval_file=", "--rollout", "hf", "--max_response_tokens", 8, "--reward_workers", 1)
    assert done.returncode == 0, done.stderr[-2000:]
    row = json.loads((out / "metrics.jsonl").read_text())
    assert row["groups_kept"] == 0 and row["groups_all_wrong"] == 12 and row["tokens"] > 0 and "loss" not in row


@pytest.mark.slow
def test_math_and_code_rows_in_one_file(tmp_path, model):
    """One file with toy math, toy code and code rows in the published format: every row is judged by its own verifier."""
    code = (ROOT / "tests" / "rows" / "codesub.jsonl").read_text().splitlines()
    easy = [row for row in map(json.loads, code) if len(row["prompt"][0]["content"]) < 300][:3]
    mixed = toy.rl_rows("math", 3) + toy.rl_rows("code", 3) + easy
    assert len(easy) == 3
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mixed))
    out = tmp_path / "run"
    done = rl(out, "--model", model, "--train_file", tmp_path / "mixed.jsonl", "--steps", 1, "--prompts_per_step", 9,
              "--responses_per_prompt", 2, "--minibatch_prompts", 9, "--max_prompt_tokens", 400, "--eval_file=", "--rollout", "hf",
              "--max_response_tokens", 8, "--reward_workers", 1, "--zero_advantage_filter", "false")
    assert done.returncode == 0, done.stderr[-2000:]
    row = json.loads((out / "metrics.jsonl").read_text())
    assert row["groups_kept"] == 9 and row["reward_failures"] == 0 and row["accuracy"] == 0.0
