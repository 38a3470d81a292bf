"""What met people on their first day: their own data, reward and precision, each tried as they would."""

import codecs
import contextlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import safe_open

import eval as ev
import forked
import policy
from klear import ranks
import rl_gppo
from klear import rows
import runs
import sft
import toy
from rewards import Reward
from rl_gppo import Config, Prompt, Sample

ROOT = Path(__file__).parent.parent
OWN_REWARD = '''
"""Half a point for an even number of characters: of no use, and nobody else has it."""
from rewards import Reward, Verifier, VERIFIERS

def even(text, ground_truth, options):
    right = len(text) % 2 == int(ground_truth)
    return Reward(0.5, right, "correct") if right else Reward(-0.5, False, "wrong")

VERIFIERS["even"] = Verifier(even, int, think=False)
'''
BROKEN_REWARD = OWN_REWARD.replace("right = len", "right = lne").replace('"even"', '"broken"')


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return toy.make_model(str(tmp_path_factory.mktemp("model") / "toy"))


@pytest.fixture(autouse=True)
def no_precision_stays():
    """Accelerate keeps the precision for the whole process."""
    yield
    AcceleratorState._reset_state(True)


def own_rows(path: Path, source: str, count: int = 12) -> str:
    path.write_text("".join(json.dumps({"data_source": source, "prompt": f"{i}+{i}=", "reward_model": {"ground_truth": str(i % 2)}}) + "\n" for i in range(count)))
    return str(path)


def stage(*flags, code: int = 0) -> str:
    done = forked.run("rl_gppo", *flags, check=False)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


SMALL = ["--rollout", "hf", "--max_response_tokens", 8, "--prompts_per_step", 4, "--responses_per_prompt", 2, "--minibatch_prompts", 2, "--save_every", 0]


@pytest.mark.slow
def test_own_data_and_own_reward(tmp_path, model):
    """Lengths are what the data needs, nothing of the toy is evaluated, a held-out share is; the reward is one's own."""
    (tmp_path / "mine.py").write_text(OWN_REWARD)
    data, out = own_rows(tmp_path / "mine.jsonl", "even"), tmp_path / "run"
    said = stage("--model", model, "--train_file", data, "--rewards", tmp_path / "mine.py", "--eval_share", 0.25, "--steps", 2, "--output_dir", out, *SMALL)
    assert "9 prompts" in said and "left out" not in said
    evals, metrics = runs.read_jsonl(out / "eval.jsonl"), runs.read_jsonl(out / "metrics.jsonl")
    assert [row["n"] for row in evals] == [3, 3] and len(metrics) == 2
    assert {row["reward"] for row in runs.read_jsonl(out / "samples.jsonl")} <= {0.5, -0.5} and all(m["reward_failures"] == 0 for m in metrics)


@pytest.mark.slow
def test_all_rewards_failed_and_no_signal(tmp_path, model):
    (tmp_path / "mine.py").write_text(BROKEN_REWARD)
    data = own_rows(tmp_path / "mine.jsonl", "broken")
    said = stage("--model", model, "--train_file", data, "--rewards", tmp_path / "mine.py", "--steps", 3, "--output_dir", tmp_path / "a", *SMALL, code=1)
    assert "all 8 rewards failed" in said.splitlines()[-1] and "verifier_error" in said and not (tmp_path / "a" / "final").exists()
    data = own_rows(tmp_path / "never.jsonl", "math_verify")  # an untrained model solves none: every group agrees
    said = stage("--model", model, "--train_file", data, "--steps", 9, "--stop_without_signal", 3, "--output_dir", tmp_path / "b", *SMALL, code=1)
    assert "no group gave a gradient for 3 steps" in said.splitlines()[-1] and (tmp_path / "b" / "checkpoint-3").exists()
    assert len(runs.read_jsonl(tmp_path / "b" / "metrics.jsonl")) == 3


def make_run(model: str, precision: str = "no", **knobs) -> ranks.Run:
    cfg, accelerator = Config(**knobs), Accelerator(cpu=True, mixed_precision=precision)
    wrapped = policy.Policy(policy.load_policy(cfg, model))
    tokenizer = policy.load_tokenizer(model)
    prepared, optimizer = accelerator.prepare(wrapped, torch.optim.AdamW(wrapped.parameters(), lr=1e-3))
    return ranks.Run(cfg, accelerator, prepared, optimizer, tokenizer, *policy.end_of_turn(wrapped.lm.generation_config, tokenizer))


def samples_of(run: ranks.Run, n: int = 16) -> list[Sample]:
    """A real rollout by the hf engine, with advantages that are not all alike."""
    prompts = [Prompt(run.tokenizer(f"{i}+{i + 1}=")["input_ids"], "", "", "") for i in range(n)]
    made = {}
    for i, ids, logprobs, cut in rl_gppo.HFRollout(run).generate([(p.ids, i) for i, p in enumerate(prompts)], 1.0):
        made[i] = Sample(prompts[i], i // 4, ids, logprobs, cut, Reward(1.0, i % 2 == 0, "correct"), (-1.0) ** i)
    return [made[i] for i in range(n)]


@pytest.mark.parametrize("capabilities, told", [
    ({"architecture": "x86_64", "avx2": True}, True), ({"architecture": "x86_64", "avx512_bf16": True}, False),
    ({"architecture": "x86_64", "amx_bf16": True}, False), ({"architecture": "aarch64"}, False)])
def test_bf16_on_a_cpu_that_emulates_it_is_told(capsys, monkeypatch, capabilities, told):
    """A run in bf16 on such a CPU was several times slower than in fp32, and nothing said so."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert policy.pick_dtype("bfloat16") == "bfloat16"
    assert ("this CPU has no bf16" in (said := capsys.readouterr().err)) == told and said.count("--dtype float32") == told
    assert policy.pick_dtype("auto") == policy.pick_dtype("float32") == "float32" and not capsys.readouterr().err


@pytest.mark.slow
def test_hf_engine_is_the_policy_in_bf16_too(model, monkeypatch):
    """Generation in the trainer's precision, logits in fp32: what differs is the rounding of other shapes. Generation in
    fp32, or bf16 logits, would be another policy (0.1 on this model)."""
    differences = []
    for autocast in (True, False):
        run = make_run(model, "bf16", max_response_tokens=24)
        with torch.no_grad():
            for p in run.policy.parameters():  # the initial 0.02 would hide the rounding
                p.mul_(4)
        if not autocast:
            run.accelerator.autocast = contextlib.nullcontext
        differences.append(rl_gppo.update_policy(samples_of(run), 1, run)["rollout_logprob_diff"])
        AcceleratorState._reset_state(True)
    assert differences[0] < 0.03 and differences[0] < differences[1] / 3, differences


@pytest.mark.parametrize("precision, dtype", [("no", "F32"), ("bf16", "BF16")])
def test_saved_folder_says_what_it_holds(tmp_path, model, precision, dtype):
    """A tied head once, the precision of the weights in config.json: vLLM computes in what it says."""
    run = make_run(model, precision)
    ranks.save_pretrained(tmp_path, run)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
        assert "lm_head.weight" not in names and {file.get_slice(name).get_dtype() for name in names} == {dtype}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == {"F32": "float32", "BF16": "bfloat16"}[dtype]


def test_normaliser_of_the_loss_is_not_that_of_the_log(model):
    """Whoever divides the loss by something else changes the loss alone."""
    run = make_run(model, max_response_tokens=8)
    batch = rl_gppo.collate(samples_of(run), False, "cpu", 0)
    (one, stats), (two, again) = (rl_gppo.micro_loss(dict(batch), normalizer, 10.0, run) for normalizer in (10.0, 20.0))
    pg = stats["pg_loss"]
    assert torch.allclose(one - two, pg / 2) and again["pg_loss"] == pg / 2
    assert all(torch.equal(stats[key], again[key]) for key in stats if key != "pg_loss")


def test_losses_take_any_mask_and_the_batch_they_ask_for(model):
    torch.manual_seed(0)
    logprobs, old, advantages = torch.randn(3, 5), torch.randn(3, 5), torch.randn(3, 5)
    mask = torch.rand(3, 5) < 0.7
    for name, fn in rl_gppo.LOSSES.items():
        extra = dict(entropy=torch.ones(3, 5), old_entropy=torch.ones(3, 5)) if name.endswith("_erc") else {}
        for got, want in zip(fn(logprobs, old, advantages, mask.float(), Config(), **extra), fn(logprobs, old, advantages, mask, Config(), **extra)):
            assert torch.equal(got, want), name
    seen = {}

    def by_length(logprobs, old_logprobs, advantages, mask, cfg, *, batch):
        seen.update(batch)
        return -advantages * logprobs / batch["lengths"][:, None], torch.zeros_like(mask)

    run = make_run(model, max_response_tokens=8, loss="by_length")
    rl_gppo.LOSSES["by_length"] = by_length
    try:
        loss, _ = rl_gppo.micro_loss(rl_gppo.collate(samples_of(run), False, "cpu", 0), 1.0, 1.0, run)
    finally:
        del rl_gppo.LOSSES["by_length"]
    assert torch.isfinite(loss) and {"lengths", "groups", "rollout_logprobs", "old_logprobs"} <= set(seen)


def test_every_stage_reads_such_lines(tmp_path, model):
    """A byte order mark, blank lines, CRLF, U+2028 and U+0085 inside a text: valid JSONL, in which each stage finds both prompts."""
    text, path, tokenizer = "1\u20282\u00853", tmp_path / "rows.jsonl", policy.load_tokenizer(model)
    lines = [json.dumps({"prompt": text, "answer": "1", "response": "5"}, ensure_ascii=False), "",
             json.dumps({"prompt": "4", "answer": "2", "response": "5"}), " "]
    path.write_bytes(codecs.BOM_UTF8 + "\r\n".join(lines).encode())
    got = list(rows.read_rows(str(path), "data"))
    assert [(where.rsplit(":")[-1], row["prompt"]) for where, row in got] == [("1", text), ("3", "4")]
    asked = [rows.render([{"role": "user", "content": content}], tokenizer) for content in (text, "4")]
    assert [p.text for p in rl_gppo.load_prompts(str(path), "train_file", tokenizer, Config(data_source="math_verify"))] == asked
    assert [p.messages[0]["content"] for p in ev.load_benchmark(str(path), ev.Config())] == [text, "4"]
    traces = sft.load_examples(str(path), "train_file", tokenizer, 99, sft.Config(output_dir=str(tmp_path / "out")))
    assert [traces[k].ids[~traces[k].target].tolist() for k in range(2)] == [tokenizer(x, add_special_tokens=False)["input_ids"] for x in asked]


@pytest.mark.parametrize("row, roles", [
    ({"prompt": "x"}, ["user"]), ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, ["user"]),
    ({"prompt": "x", "completion": "y"}, ["user", "assistant"]), ({"question": "x", "answer": "y"}, ["user"]), ({"problem": "x"}, ["user"]),
    ({"prompt": [{"role": "user", "content": "x"}], "completion": [{"role": "assistant", "content": "y"}]}, ["user", "assistant"]),
    ({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}, ["system", "user", "assistant"]),
])
def test_rows_as_people_have_them(row, roles):
    messages = rows.messages_of(row)
    assert [m["role"] for m in messages] == roles and messages[roles.index("user")]["content"] == "x"
    assert rows.prompt_of(row)[-1] == {"role": "user", "content": "x"}


def test_training_asks_as_evaluation_does(tmp_path, model):
    """system_prompt, prompt_suffix, ask_think and data_source give the prompt that eval.py would give."""
    tokenizer = policy.load_tokenizer(model)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"data_source": "math_longcot_math_verify", "problem": "1+1=", "answer": "2"}) + "\n" +
                                         json.dumps({"problem": "1+2=", "answer": "3"}) + "\n")
    cfg = Config(system_prompt="Be brief.", prompt_suffix="Box it.", ask_think=False, data_source="math_verify")
    first, second = rl_gppo.load_prompts(str(tmp_path / "rows.jsonl"), "train_file", tokenizer, cfg)
    assert first.data_source == second.data_source == "math_verify" and second.ground_truth == "3"
    asked = ev.load_benchmark(str(tmp_path / "rows.jsonl"), knobs := ev.Config(system_prompt="Be brief.", prompt_suffix="Box it.", ask_think=False))
    ev.render_all({"b": asked}, tokenizer, knobs)
    assert [(p.text, p.ids, p.data_source) for p in asked] == [(p.text, p.ids, p.data_source) for p in (first, second)]
    assert "Be brief." in first.text and "1+1=\nBox it." in first.text


def test_accuracy_by_source():
    made = [Sample(Prompt([1], "", source, ""), 0, [1] * n, [], False, Reward(score, score > 0, status))
            for source, n, score, status in [("a", 2, 1.0, "correct"), ("a", 4, -1.0, "wrong"), ("b", 6, 1.0, "correct"), ("b", 8, -1.0, "sandbox_error")]]
    metrics = rl_gppo.rollout_metrics(made)
    assert metrics["accuracy"] == pytest.approx(2 / 3) and metrics["accuracy/a"] == 0.5 and metrics["accuracy/b"] == 1.0
    assert metrics["response_tokens_mean"] == 5 and metrics["response_tokens_mean/b"] == 7 and metrics["tokens"] == 20
    assert not any("/" in key for key in rl_gppo.rollout_metrics(made[:2]))


@pytest.mark.parametrize("schedule, expected", [("constant", [0.5, 1, 1, 1, 1, 1]), ("linear", [0.5, 1, 0.75, 0.5, 0.25, 0]),
                                                ("cosine", [0.5, 1, 0.853553, 0.5, 0.146447, 0])])
def test_learning_rate_schedules(schedule, expected):
    cfg = SimpleNamespace(lr=1.0, warmup_steps=2, steps=6, lr_schedule=schedule)
    assert [rl_gppo.learning_rate(step, cfg) for step in range(1, 7)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.needs("time")
@pytest.mark.slow
def test_a_copied_stage_speaks_under_its_own_name(tmp_path):
    (tmp_path / "my_rl.py").write_bytes((ROOT / "rl_gppo.py").read_bytes())
    done = forked.run(os.path.relpath(tmp_path / "my_rl", ROOT), "--lr", "-1", check=False)
    assert done.returncode == 2 and done.stderr.startswith("my_rl.py: lr must be 0 or more")
