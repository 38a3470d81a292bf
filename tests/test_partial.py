"""Partial rollouts (rollout_extra): responses carried over steps by both real engines, on one rank and on two; nothing is lost,
doubled or favoured for being short, and a run that was stopped goes on with the same bits."""

import json
import signal
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import forked
from klear import ranks
import rl_gppo
import runs
import toy
from policy import Policy, load_policy, load_tokenizer
from rewards import Reward
from rl_gppo import Config, HFRollout, Prompt, VLLMRollout, collate, token_logprobs
from test_resume import data, finish, flags_of, lines_of, same_end, signal_at  # noqa: F401  (data is a fixture)

STEPS, GROUPS, EACH, LONGEST = 14, 4, 4, 60
SETTINGS = dict(prompts_per_step=GROUPS, responses_per_prompt=EACH, max_prompt_tokens=16, max_response_tokens=LONGEST,
                rollout_extra=1.0, rollout_correction_cap=2.0, seed=4, rollout_batch=24)  # hf: more at once than a step takes, or nothing would be carried


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    toy.make_model(str(folder))
    return str(folder)


def make_run(model: str, **settings) -> ranks.Run:
    cfg = Config(**SETTINGS | settings)
    accelerator, tokenizer, learner = Accelerator(cpu=True), load_tokenizer(model), Policy(load_policy(cfg, model))
    optimizer = accelerator.prepare(torch.optim.AdamW(learner.parameters(), lr=1e-3))
    stops = list(range(1, 4))  # three of the untrained model's 32 or so tokens: lengths are geometric, some are cut
    return ranks.Run(cfg, accelerator, learner, optimizer, tokenizer, stops, tokenizer.pad_token_id)


def judge(item: dict) -> Future:
    future = Future()
    future.set_result(Reward(float(len(item["response"]) % 2), False, "wrong"))
    return future


def prompts_of(run: ranks.Run, count: int = 400) -> list[Prompt]:
    return [Prompt(run.tokenizer(f"{i}+{i + 1}=")["input_ids"], f"{i}+{i + 1}=", "toy:math", "1") for i in range(count)]


def steps_of(engine, run: ranks.Run, steps: int = STEPS, cursor: int = 0, first: int = 1) -> tuple[list, int]:
    """(the samples of each step, the cursor after them)."""
    every, prompts = [], prompts_of(run)
    for step in range(first, first + steps):
        samples, cursor = rl_gppo.rollout(engine, prompts, cursor, step, SimpleNamespace(submit=judge), run)
        every.append(samples)
    return every, cursor


def texts(groups) -> list[str]:
    return sorted(group[0]["prompt"]["text"] if isinstance(group[0], dict) else group[0].prompt.text for group in groups)


def check(every: list, cursor: int, run: ranks.Run, carried: list) -> None:
    """What holds of any engine and number of ranks."""
    prompts, trained = prompts_of(run), []
    rows = [prompts[i].text for i in rl_gppo.next_rows(0, cursor, len(prompts), run.cfg.seed)]
    first = int(GROUPS * (1 + run.cfg.rollout_extra))  # begun in step 1; as many as a step takes in each later one
    born = {text: 1 if k < first else 2 + (k - first) // GROUPS for k, text in enumerate(rows)}
    for step, samples in enumerate(every, 1):
        groups = [samples[k:k + EACH] for k in range(0, len(samples), EACH)]
        assert len(samples) == GROUPS * EACH and len({s.group for s in samples}) == GROUPS  # exact in every step
        for group in groups:
            assert len({(s.group, s.prompt.text) for s in group}) == 1  # groups are whole
            age = step - born[group[0].prompt.text]
            assert max(s.staleness for s in group) <= age <= rl_gppo.MAX_STALENESS  # a response may draw its first token later
        trained += texts(groups)
        for s in samples:
            assert s.reward is not None and len(s.logprobs) == len(s.response)
            ended = s.response[-1] in run.stop_ids
            assert s.truncated == (not ended) and (ended or len(s.response) == LONGEST)
            assert not any(token in run.stop_ids for token in s.response[:-1])
    # no prompt is lost or doubled: all that were begun are trained on or still carried, each once
    assert sorted(trained + texts(carried)) == sorted(rows) and len(set(rows)) == len(rows)
    assert len(carried) == GROUPS * run.cfg.rollout_extra and max(s.staleness for samples in every for s in samples) > 0


def logprob_error(samples: list, run: ranks.Run) -> float:
    """max |log π_engine - log π_trainer| over all tokens, all pieces of a response together."""
    run.policy.eval()
    batch = collate(samples, False, "cpu", 0)
    with torch.no_grad():
        return ((token_logprobs(batch, run, False)[0] - batch["rollout_logprobs"]).abs() * batch["mask"]).max().item()


@pytest.fixture(scope="module", params=[pytest.param("vllm", marks=[pytest.mark.slow, pytest.mark.needs("time", "vllm")]), "hf"])
def rolled(request, model):
    """(the samples of each step, cursor, run, the engine) under weights that stay as they are."""
    run = make_run(model)
    engine = VLLMRollout(model, run) if request.param == "vllm" else HFRollout(run)
    return *steps_of(engine, run), run, engine


@pytest.mark.slow
def test_no_prompt_is_lost_doubled_or_too_old(rolled):
    every, cursor, run, _ = rolled
    check(every, cursor, run, run.carried[STEPS])


@pytest.mark.slow
def test_the_pieces_of_a_response_fit_together(rolled):
    """Weights have not changed: the trainer finds the engine's logprobs for every token of every piece."""
    every, _, run, _ = rolled
    stale = [s for samples in every for s in samples if s.staleness]
    assert len(stale) > 10 and logprob_error(stale, run) < 1e-4
    stale[0].response[len(stale[0].response) // 2] ^= 4  # (it can fail)
    assert logprob_error(stale, run) > 1e-3
    stale[0].response[len(stale[0].response) // 2] ^= 4


@pytest.mark.slow
def test_long_responses_are_not_disfavoured(rolled):
    """The lengths of all responses begun, against as many of an ordinary rollout; those that were complete in their first
    step alone are shorter, which is what training on them would teach."""
    every, cursor, run, engine = rolled
    run.cfg.rollout_batch = 256
    left = [s for group in run.carried[STEPS] for s in group]  # the few that are still under way are drawn to the end
    requests = [(s["prompt"]["ids"] + s["response"], k, LONGEST - len(s["response"])) for k, s in enumerate(left) if s["truncated"] is None]
    rest = [len(requests[i][0]) - len(left[requests[i][1]]["prompt"]["ids"]) + len(ids) for i, ids, *_ in engine.generate(requests, 1.0)]
    here = [len(s.response) for samples in every for s in samples] + rest + [len(s["response"]) for s in left if s["truncated"] is not None]
    rows = rl_gppo.next_rows(0, cursor, 400, run.cfg.seed)
    plain = [len(ids) for _, ids, _, _ in engine.generate([(prompts_of(run)[row].ids, 1000 * row + k) for row in rows for k in range(EACH)], 1.0)]
    run.cfg.rollout_batch = SETTINGS["rollout_batch"]
    assert len(here) == len(plain) == cursor * EACH
    error = np.sqrt((np.var(here) + np.var(plain)) / len(plain))
    assert abs(np.mean(here) - np.mean(plain)) < 3 * error
    short = [len(s.response) for samples in every for s in samples if not s.staleness]
    assert np.mean(short) < np.mean(here) - error


@pytest.mark.slow
def test_the_first_step_is_that_of_an_ordinary_rollout(rolled, model):
    """What was complete in step 1 is token for token what the same seeds give without rollout_extra."""
    every, _, run, engine = rolled
    plain = make_run(model, rollout_extra=0.0, prompts_per_step=2 * GROUPS)
    if isinstance(engine, VLLMRollout):
        engine.run, before = plain, engine.run
    (samples,), _ = steps_of(engine if isinstance(engine, VLLMRollout) else HFRollout(plain), plain, 1)
    if isinstance(engine, VLLMRollout):
        engine.run = before
    assert not plain.carried[1] and len(samples) == 2 * GROUPS * EACH
    known = {(s.group, tuple(s.response)) for s in samples}
    assert all((s.group, tuple(s.response)) in known for s in every[0])


@pytest.mark.slow
@pytest.mark.needs("vllm")
def test_carried_tokens_keep_the_logprobs_of_the_weights_that_drew_them(model):
    """After an update the trainer finds other logprobs for the old piece, the same for the new one."""
    run = make_run(model, warmup_steps=0, lr=3e-3, minibatch_prompts=2)
    engine = VLLMRollout(model, run)
    (first,), cursor = steps_of(engine, run, 1)
    pieces = [[len(s["response"]) for s in group] for group in run.carried[1]]
    assert sum(map(sum, pieces)) > 10
    rl_gppo.update_policy(rl_gppo.compute_advantages(first, run.cfg)[0], 1, run)
    engine.sync(run.bare)
    (second,), _ = steps_of(engine, run, 1, cursor, 2)
    run.policy.eval()
    batch = collate(second, False, "cpu", 0)
    with torch.no_grad():
        gap = (token_logprobs(batch, run, False)[0] - batch["rollout_logprobs"]).abs() * batch["mask"]
    old = torch.zeros_like(batch["mask"])
    for row, s in enumerate(second):
        if s.group < len(pieces):
            old[row, :pieces[s.group][row % EACH]] = True
    assert (old & batch["mask"]).any() and gap[old].mean() > 1e-3 and gap[~old].max() < 1e-4


def two_ranks(rank: int, folder: str, model: str) -> None:
    run = make_run(model, output_dir=folder)
    every, cursor = steps_of(HFRollout(run), run, 5)
    check(every, cursor, run, run.carried[5])
    ranks.save_checkpoint(Path(folder) / "checkpoint-5", {"step": 5, "cursor": cursor}, run)
    Path(folder, f"rank{rank}.json").write_text(json.dumps([[s.response for samples in every for s in samples], run.carried[5]]))


@pytest.mark.slow
def test_two_ranks_and_then_one(model, tmp_path):
    """Both ranks have the same samples and carry the same; one rank alone goes on with all of them."""
    forked.spawn(two_ranks, str(tmp_path), model)
    mine, theirs = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert mine == theirs
    run = make_run(model, output_dir=str(tmp_path))
    state, extra = ranks.load_checkpoint(tmp_path / "checkpoint-5", run)
    assert extra is None and json.loads(json.dumps(run.carried)) == {"5": mine[1]}
    every, _ = steps_of(HFRollout(run), run, 1, state["cursor"], 6)
    after = {s.prompt.text: s.response for s in every[0]} | {group[0]["prompt"]["text"]: [] for group in run.carried[6]}
    assert {group[0]["prompt"]["text"] for group in mine[1]} <= after.keys()
    for group in mine[1]:  # and with what they had
        for s in (s for s in every[0] if s.prompt.text == group[0]["prompt"]["text"]):
            assert any(s.response[:len(old["response"])] == old["response"] for old in group)


FLAGS = ["--rollout_extra", 0.5, "--rollout_correction_cap", 2, "--max_response_tokens", 32, "--save_every", 1, "--eval_file=", "--rollout_batch", 24]


@pytest.mark.slow
@pytest.mark.needs("time")
def test_a_stopped_run_goes_on_with_the_same_bits(data):  # noqa: F811
    """Stopped in an update and in a rollout, both with carried responses: after six steps nothing shows of it."""
    finish(flags_of(data, data / "partial", *FLAGS), data / "log")
    metrics = lines_of(data / "partial", "metrics.jsonl")
    assert sum(m["carried_frac"] > 0 for m in metrics) > 2 and all(0 <= m["staleness_mean"] <= m["staleness_max"] <= 2 for m in metrics)
    assert (data / "partial" / "checkpoint-6" / "trainer" / "carried.pt").exists()
    out = data / "partial_stopped"
    for place, step, count in (("update", 2, 3), ("train", 4, 5)):
        finish(flags_of(data, out, *FLAGS), data / "log", signal_at, place, step, count, signal.SIGTERM)
    newest = runs.checkpoints(out)[-1]
    assert newest.name == "checkpoint-3" and list(torch.load(newest / "trainer" / "carried.pt", weights_only=False)) == [3]
    finish(flags_of(data, out, *FLAGS), data / "log")
    same_end(out, data / "partial")
    # with a shorter limit than what was carried: a line, and no engine that fails
    shorter = [*FLAGS[:5], 2, *FLAGS[6:], "--resume", data / "partial" / "checkpoint-6"]
    done = forked.run("rl_gppo", *flags_of(data, data / "shorter", *shorter), check=False)
    assert done.returncode == 2 and "max_response_tokens must be at least" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("flags, named", [
    (["--rollout_extra", "0.5"], "rollout_correction_cap"),
    (["--rollout_extra", "1.5", "--rollout_correction_cap", "2"], "rollout_extra must be from 0 to 1"),
    (["--rollout_extra", "0.5", "--rollout_correction_cap", "2", "--dynamic_sampling", "true"], "dynamic_sampling"),
    (["--rollout_extra", "0.5", "--rollout_correction_cap", "2", "--vllm_tensor_parallel", "2"], "vllm_tensor_parallel")])
def test_mistakes_give_one_line(flags, named, capsys):
    with pytest.raises(SystemExit):
        rl_gppo.parse(flags)
    said = capsys.readouterr().err.strip()
    assert "rollout_extra" in said and named in said and "\n" not in said
