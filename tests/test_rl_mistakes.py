"""A user's mistake is one line that says what, where and how to mend, and exit code 2; never a traceback."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from transformers import Qwen3Config, Qwen3NextConfig

import plan
from klear import ranks
import rl_gppo
import runs
import toy
from policy import load_tokenizer
from runs import read_config

ROOT = Path(__file__).parent.parent
GOOD = {"data_source": "math_verify", "prompt": [{"role": "user", "content": "1+1="}], "reward_model": {"ground_truth": "2"}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    toy.make_model(str(folder))
    return str(folder)


def rows(path: Path, *rows) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def message_of(capsys, *flags: str) -> str:
    with pytest.raises(SystemExit) as stop:
        rl_gppo.main([str(flag) for flag in flags])
    lines = capsys.readouterr().err.strip().splitlines()
    mine = [line for line in lines if line.startswith("rl_gppo.py: ")]
    assert stop.value.code == 2 and len(mine) == 1 and lines[-1] == mine[0], lines
    return mine[0]


@pytest.mark.parametrize("flags, expected", [
    (["--cliphigh", "0.3"], ["'cliphigh'", "'clip_high'"]),
    (["--lr"], ["lr", "float", "''"]),
    (["lr", "1"], ["'lr'", "--key value", "--help"]),
    (["--lr", "1e-5", "1e-6"], ["lr takes one value", "1e-5 1e-6"]),
    (["--lr", "fast"], ["lr", "float", "'fast'"]),
    (["--steps", "1.5"], ["steps", "int"]),
    (["--overlong_filter", "2"], ["overlong_filter", "bool"]),
    (["--loss", "gpo"], ["loss", "gppo_high", "'gpo'"]),
    (["--responses_per_prompt", "1"], ["responses_per_prompt", "at least 2"]),
    (["--temperature", "0"], ["temperature", "above 0"]),
    (["--config", "nowhere.yaml"], ["nowhere.yaml", "No such file"]),
    (["--train_file", "toy:poetry"], ["poetry", "toy:math"]),
    (["--vllm_tensor_parallel", "3"], ["vllm_tensor_parallel 3", "1 ranks"]),
])
def test_wrong_flags(capsys, tmp_path, flags, expected):
    message = message_of(capsys, *flags, "--output_dir", tmp_path / "run")
    assert all(part in message for part in expected), message


def test_wrong_recipe(capsys, tmp_path):
    (tmp_path / "a.yaml").write_text("learning_rate: 1e-6\n")
    assert "'learning_rate'" in message_of(capsys, "--config", tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("a: [1\n")
    assert "b.yaml" in message_of(capsys, "--config", tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text("just text\n")
    assert "key: value" in message_of(capsys, "--config", tmp_path / "c.yaml")


def test_recipe_then_flags(tmp_path):
    (tmp_path / "a.yaml").write_text("lr: 1e-6\nloss: cispo\n")  # YAML 1.1 reads 1e-6 as text
    cfg = rl_gppo.parse(["--config", str(tmp_path / "a.yaml"), "--loss=ppo", "--overlong_filter", "true"])
    assert (cfg.lr, cfg.loss, cfg.overlong_filter) == (1e-6, "ppo", True)


def test_lists_as_people_type_them(tmp_path):
    """A list of names has spaces, commas or YAML's brackets; an option without a value is a switch."""
    (tmp_path / "a.yaml").write_text("train_file: [a.jsonl, b.jsonl]\nsteps: '7'\nseed: 3.0\noutput_dir: 2026\n")
    cfg = rl_gppo.parse(["--config", str(tmp_path / "a.yaml"), "--model", "m", "--eval-file", "c.jsonl", "d.jsonl", "--overlong_filter"])
    assert (cfg.train_file, cfg.eval_file, cfg.overlong_filter) == ("a.jsonl,b.jsonl", "c.jsonl,d.jsonl", True)
    assert (cfg.steps, cfg.seed, cfg.output_dir) == (7, 3, "2026")


@pytest.mark.parametrize("seed", [2**53 + 1, 2**63 - 1])
def test_long_seeds_are_not_rounded(seed, tmp_path):
    (tmp_path / "recipe.yaml").write_text(f"seed: {seed}\n")
    assert rl_gppo.parse(["--seed", str(seed)]).seed == rl_gppo.parse(["--config", str(tmp_path / "recipe.yaml")]).seed == seed


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    """A scheduler gives a job 8 of 128 cores; more workers than cores would make verdicts depend on load."""
    monkeypatch.setattr(runs.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(runs.os, "cpu_count", lambda: 128)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert runs.cores_per_rank() == 2


def test_linear_attention_needs_vllm(capsys):
    """Its cache cannot leave rows out, which ended in a traceback after the first response."""
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16)
    for config, ends in ((Qwen3NextConfig(**sizes, layer_types=["linear_attention", "full_attention"]), True), (Qwen3Config(**sizes), False)):
        lm = torch.nn.Linear(1, 1)
        lm.config, lm.get_output_embeddings = config, lambda: torch.nn.Linear(1, 1)
        accelerator = SimpleNamespace(distributed_type="NO", device=torch.device("cpu"))
        run = SimpleNamespace(cfg=rl_gppo.Config(rollout="hf"), bare=SimpleNamespace(lm=lm), accelerator=accelerator)
        with pytest.raises(SystemExit) if ends else contextlib.nullcontext():
            rl_gppo.make_engine("", run)
        assert ("linear attention" in capsys.readouterr().err) == ends


def test_a_machine_without_the_shared_file_system_does_not_wait_for_ever(tmp_path):
    (there := tmp_path / "there").mkdir()
    runs.wait_for(there, tmp_path / "nowhere", 0)
    with pytest.raises(SystemExit, match="nowhere: rank 0 does not see it"):
        runs.wait_for(tmp_path / "final", tmp_path / "nowhere", 0)


@pytest.mark.parametrize("train_file, held_out", [
    ("toy:math", "toy:math"), ("toy:math,{rows}", "toy:math"), ("{rows},toy:math-terms=3", "toy:math-terms=3"), ("{rows}", None)])
def test_no_row_to_train_on_is_held_out(train_file, held_out, model, tmp_path, monkeypatch):
    """eval_file auto: a file beside toy:math has no split of its own, and would be measured on what it trains."""
    seen = {}
    load = lambda spec, knob, *_: seen.update({knob: spec}) or [rl_gppo.Prompt([1], "", "math_verify", "1")]
    monkeypatch.setattr(rl_gppo, "load_prompts", load)
    monkeypatch.setattr(rl_gppo, "make_run", lambda *_: 1 / 0)  # far enough
    train_file = train_file.format(rows=rows(tmp_path / "rows.jsonl", GOOD))
    with pytest.raises(ZeroDivisionError):
        rl_gppo.start(rl_gppo.parse(["--model", model, "--train_file", train_file, "--output_dir", str(tmp_path / "run")]))
    assert seen == {"train_file": train_file} | ({"eval_file": held_out} if held_out else {})


def test_plan_of_a_model_that_is_not_there(capsys):
    with pytest.raises(SystemExit) as stop:
        plan.plan(read_config(plan.Config, ["--gpus", "8", "--model", "nowhere"], ""))
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and line.startswith("plan.py: model: nowhere is not there yet")


@pytest.mark.parametrize("bad, expected", [
    ('{"data_source": "math_verify", ', ["data.jsonl:2", "not JSON"]),
    ({k: v for k, v in GOOD.items() if k != "reward_model"}, ["data.jsonl:2", "no ground truth", '"reward_model"']),
    ({**GOOD, "reward_model": {}}, ["data.jsonl:2", "no ground truth", '{"ground_truth"}']),
    ({**GOOD, "reward_model": {"ground_truth": ""}}, ["data.jsonl:2", "ground truth"]),
    ({**GOOD, "data_source": "riddles"}, ["data.jsonl:2", "riddles", "math_dapo_math_verify"]),
    ({**GOOD, "prompt": 3}, ["data.jsonl:2"]),
    ({**GOOD, "data_source": "coder1", "reward_model": {"ground_truth": "{}"}}, ["data.jsonl:2"]),
])
def test_malformed_row(capsys, tmp_path, model, bad, expected):
    data = rows(tmp_path / "data.jsonl", GOOD, bad)
    message = message_of(capsys, "--model", model, "--train_file", data, "--eval_file=", "--output_dir", tmp_path / "run")
    assert all(part in message for part in expected), message


def test_missing_files(capsys, tmp_path, model):
    message = message_of(capsys, "--model", model, "--train_file", "no.jsonl", "--output_dir", tmp_path / "a")
    assert "no.jsonl does not exist" in message
    message = message_of(capsys, "--model", tmp_path / "nothing", "--output_dir", tmp_path / "b")
    assert "model: " in message and "nothing" in message
    message = message_of(capsys, "--model", model, "--resume", tmp_path, "--output_dir", tmp_path / "c")
    assert "no checkpoint" in message


def test_model_folder_without_weights(capsys, tmp_path, model):
    hollow = tmp_path / "hollow"
    hollow.mkdir()
    for file in Path(model).iterdir():
        if file.suffix != ".safetensors":
            (hollow / file.name).write_bytes(file.read_bytes())
    message = message_of(capsys, "--model", hollow, "--output_dir", tmp_path / "run")
    assert "hollow" in message and "safetensors" in message


def test_prompt_longer_than_its_limit(capsys, tmp_path, model):
    long = {**GOOD, "prompt": "1+" * 100}
    message = message_of(capsys, "--model", model, "--train_file", rows(tmp_path / "data.jsonl", long), "--max_prompt_tokens", 64,
                         "--eval_file=", "--output_dir", tmp_path / "a")
    assert "train_file: 1 of 1 rows are longer than max_prompt_tokens 64; --max_prompt_tokens 201 keeps them all" in message
    cfg, tokenizer = rl_gppo.parse(["--model", model]), load_tokenizer(model)  # toy:math: 64 tokens
    prompts = rl_gppo.load_prompts(rows(tmp_path / "many.jsonl", *[GOOD] * 19, long), "train_file", tokenizer, cfg)
    held_out = rl_gppo.load_prompts(rows(tmp_path / "one.jsonl", GOOD), "eval_file", tokenizer, cfg)
    assert rl_gppo.fit_lengths(prompts, held_out, 512, cfg) == cfg
    assert len(prompts) == 19 and len(held_out) == 1
    assert "train_file: 1 of 20 rows are longer than max_prompt_tokens 64 and left out" in capsys.readouterr().out


@pytest.mark.slow
def test_context_too_short(capsys, tmp_path, model):
    assert "context of" in message_of(capsys, "--model", model, "--max_response_tokens", 10**6, "--output_dir", tmp_path / "a")


def test_output_folder_of_another_run(capsys, tmp_path, model):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text(yaml.safe_dump({"loss": "ppo", "lr": 1e-6}))
    message = message_of(capsys, "--model", model, "--output_dir", out)
    assert "loss ppo there, gppo now" in message and "--resume never" in message
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    assert "not empty" in message_of(capsys, "--model", model, "--output_dir", other)
    (tmp_path / "file").write_text("")
    assert "output_dir" in message_of(capsys, "--model", model, "--output_dir", tmp_path / "file" / "x")


def test_help_shows_every_knob(capsys):
    with pytest.raises(SystemExit) as stop:
        rl_gppo.main(["--help"])
    shown = capsys.readouterr().out
    groups = {title: lines for title, *lines in (block.split("\n") for block in shown.strip().split("\n\n") if block.split("\n")[0].endswith(":"))}
    first, *others = groups
    assert stop.value.code is None and first == "most used:" and len(others) >= 6
    knobs = [line.split()[0] for title in others for line in groups[title]]
    assert sorted(knobs) == sorted(f"--{name}" for name in vars(rl_gppo.Config()))  # each once, in its group
    assert {line.split()[0][2:] for line in groups[first]} == set(rl_gppo.MOST_USED.split())
    assert "  --lr 3e-05 " in shown and "after the warm-up" in shown and '  --eval_file auto ' in shown
    assert "def " not in shown and "dataclass" not in shown  # no source code


@pytest.mark.parametrize("error, code, words", [(torch.OutOfMemoryError("CUDA out of memory"), 1, ["rank 0 is out of GPU memory", "token_budget"]),
                                                (PermissionError(13, "Permission denied", "/theirs/rows.jsonl"), 2, ["/theirs/rows.jsonl", "let this user in"]),
                                                (OSError(116, "Stale file handle"), 2, ["Stale file handle"])])
def test_what_a_machine_refuses_is_one_line(capsys, error, code, words):
    def fails(cfg):
        raise error

    with pytest.raises(SystemExit) as end:
        runs.frame(fails, rl_gppo.Config())
    lines = capsys.readouterr().err.strip().split("\n")
    assert end.value.code == code and len(lines) == 1 and all(word in lines[0] for word in words), lines


@pytest.mark.parametrize("there, wanted", [("step evaluated", "step cursor best evaluated"), ("step cursor best evaluated", "step evaluated")])
def test_a_checkpoint_of_the_other_stage_is_told(there, wanted, tmp_path, capsys):
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "state.json").write_text(json.dumps(dict.fromkeys(there.split(), 3)))
    with pytest.raises(SystemExit):
        ranks.load_checkpoint(tmp_path, None, dict.fromkeys(wanted.split()).keys())
    assert f"another stage's, with {there.replace(' ', ', ')};" in capsys.readouterr().err
