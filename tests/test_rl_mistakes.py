"""A user's mistake is one line that says what, where and how to mend, and exit code 2; never a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import rl_gppo
import toy

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
    (["--lr"], ["pairs"]),
    (["lr", "1"], ["pairs"]),
    (["--lr", "fast"], ["lr", "float", "'fast'"]),
    (["--steps", "1.5"], ["steps", "int"]),
    (["--overlong_filter", "2"], ["overlong_filter", "bool"]),
    (["--loss", "gpo"], ["loss", "gppo_high", "'gpo'"]),
    (["--responses_per_prompt", "1"], ["responses_per_prompt", "at least 2"]),
    (["--temperature", "0"], ["temperature", "above 0"]),
    (["--config", "nowhere.yaml"], ["nowhere.yaml", "No such file"]),
    (["--plan", "8", "--model", "nowhere"], ["model", "nowhere"]),
    (["--train_file", "toy:poetry"], ["poetry", "toy:math"]),
    (["--vllm_tensor_parallel", "3"], ["vllm_tensor_parallel 3", "1 ranks"]),
])
def test_wrong_flags(capsys, tmp_path, flags, expected):
    message = message_of(capsys, "--output_dir", tmp_path / "run", *flags)
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


@pytest.mark.parametrize("recipe", sorted(p.name for p in (ROOT / "recipes").glob("*.yaml") if "sft" not in p.name and not p.name.startswith(("fsdp2", "eval"))))
def test_recipes_parse(recipe):
    rl_gppo.parse(["--config", str(ROOT / "recipes" / recipe)])


@pytest.mark.parametrize("bad, expected", [
    ('{"data_source": "math_verify", ', ["data.jsonl:2", "not JSON"]),
    ({k: v for k, v in GOOD.items() if k != "reward_model"}, ["data.jsonl:2", "no 'reward_model'"]),
    ({**GOOD, "reward_model": {}}, ["data.jsonl:2", "no 'ground_truth'"]),
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
    message = message_of(capsys, "--model", model, "--train_file", rows(tmp_path / "data.jsonl", long), "--output_dir", tmp_path / "a")
    assert "max_prompt_tokens 64" in message and "data.jsonl:1" in message
    cfg = rl_gppo.parse(["--model", model])
    _, tokenizer = rl_gppo.load_model(cfg, model)
    kept = rl_gppo.load_prompts(rows(tmp_path / "two.jsonl", GOOD, long), "train", tokenizer, cfg)
    assert len(kept) == 1 and "1 of 2 rows left out" in capsys.readouterr().out


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


def test_no_traceback_in_a_real_process():
    done = subprocess.run([sys.executable, ROOT / "rl_gppo.py", "--learning_rate", "1"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "learning_rate" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_help_shows_every_knob(capsys):
    with pytest.raises(SystemExit) as stop:
        rl_gppo.main(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code is None and all(f"{name}:" in shown for name in vars(rl_gppo.Config()))
