"""A user's mistake is a line that says what, where and how to mend, and exit code 2; never a traceback, never a silent yes.

One table: (stage, flags, what the line must say). The stages run in processes forked from one that has imported them.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

import toy

ROOT = Path(__file__).parent.parent
RL = {"data_source": "math_verify", "prompt": [{"role": "user", "content": "1+1="}], "reward_model": {"ground_truth": "2"}}
SFT = {"messages": [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]}
CODE = {**RL, "data_source": "coder1"}
truth = lambda row, value: {**row, "reward_model": {"ground_truth": value}}
ROWS = {  # name: lines of the file
    "rl": [RL] * 3, "sft": [SFT] * 3, "empty": [], "blank": ["", "  "],
    "no_json": [RL, '{"data_source": "math_verify", '], "array": [RL, "[1, 2]"], "number": [RL, "7"],
    "no_prompt": [RL, {k: v for k, v in RL.items() if k != "prompt"}],
    "no_source": [RL, {k: v for k, v in RL.items() if k != "data_source"}],
    "no_truth": [RL, {k: v for k, v in RL.items() if k != "reward_model"}],
    "empty_truth": [RL, truth(RL, "")], "null_truth": [RL, truth(RL, None)],
    "source": [RL, {**RL, "data_source": "riddles"}], "prompt_number": [RL, {**RL, "prompt": 3}],
    "prompt_list": [RL, {**RL, "prompt": ["hi"]}], "no_content": [RL, {**RL, "prompt": [{"role": "user"}]}],
    "only_assistant": [RL, {**RL, "prompt": [{"role": "assistant", "content": "x"}]}],
    "picture": [RL, {**RL, "prompt": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}],
    "code_empty": [RL, truth(CODE, "{}")], "code_text": [RL, truth(CODE, "print")],
    "code_null": [RL, truth(CODE, json.dumps({"inputs": None, "outputs": ["1"]}))],
    "code_uneven": [RL, truth(CODE, json.dumps({"inputs": ["1", "2"], "outputs": ["1"]}))],
    "code_timeout": [RL, truth(CODE, json.dumps({"inputs": ["1"], "outputs": ["1"], "timeout": "soon"}))],
    "code_negative": [RL, truth(CODE, json.dumps({"inputs": ["1"], "outputs": ["1"], "max_test_cases": -1}))],
    "code_syntax": [RL, truth(CODE, json.dumps({"functional": "assert f(1 == 2"}))],
    "code_no_call": [RL, truth(CODE, json.dumps({"functional": "# nothing is called"}))],
    "long": [{**RL, "prompt": "1+" * 100}] + [RL],
    "no_answer": [SFT, {"messages": [{"role": "user", "content": "1"}]}],
    "assistant_first": [SFT, {"messages": [{"role": "assistant", "content": "1"}]}],
    "sft_array": [SFT, "[1, 2]"], "sft_prompt_only": [SFT, {"prompt": "x"}], "sft_number": [SFT, {"prompt": "x", "response": 5}],
    "sft_long": [SFT, {"prompt": "x", "response": "1+" * 400}],
    "no_problem": [{"id": 1, "answer": "2"}], "no_solution": [{"id": 1, "problem": "1+1="}],
    "generations": [{"id": 1, "response": "\\boxed{2}", "ground_truth": "2"}],
    "no_response": [{"id": 1, "ground_truth": "2"}],
    "role": [RL, {**RL, "prompt": [{"role": "Usr", "content": "1+1="}]}], "system_only": [RL, {**RL, "prompt": [{"role": "system", "content": "x"}]}],
    "half": [RL, {**RL, "prompt": "x \ud83d y"}], "nan": [RL, truth(RL, float("nan"))], "true": [RL, truth(RL, True)],
    "digits": [RL, '{"prompt": "x", "answer": ' + "1" * 5000 + "}"], "source_list": [RL, {**RL, "data_source": ["math_verify"]}],
    "tests_as_math": [RL, truth(RL, json.dumps({"inputs": ["1"], "outputs": ["1"]}))],
    "sft_role": [SFT, {"messages": [{"role": "human!", "content": "x"}, {"role": "assistant", "content": "y"}]}],
    "sft_half": [SFT, {"prompt": "x", "response": "\udc00"}],
    "two_truths": [{"id": 1, "response": "\\boxed{2}", "ground_truth": "2"}, {"id": 1, "response": "\\boxed{3}", "ground_truth": "3"}],
}
TRAIN = "--train_file {d}/{row}.jsonl --model {m} --output_dir {o}"  # of rl_gppo.py and sft.py
MISTAKES = [(stage, flags + " --output_dir {o}", parts) for stage in ("rl_gppo", "sft", "eval") for flags, parts in [
    ("--modle x", ["'modle'", "'model'"]), ("--seed 1.5", ["seed", "int"]), ("--seed", ["seed", "int"]), ("--seed -1", ["seed", "0 or more"]),
    ("--config nowhere.yaml", ["nowhere.yaml", "No such file"]), ("--config {d}", ["--config", "directory"]),
    ("--config {d}/list.yaml", ["list.yaml", "key: value"]), ("--config {d}/broken.yaml", ["broken.yaml"]),
    ("--config {d}/unknown.yaml", ["learning_rate"]), ("--config {d}/latin1.jsonl", ["latin1.jsonl", "utf-8"]),
    ("--config {d}/nested.yaml", ["seed", "int"]),
    ("--model {d}/no_tokenizer", ["no_tokenizer", "tokenizer"]), ("--model {d}/no_weights", ["no_weights"]),
    ("--model {d}/cut_weights", ["cut_weights"]), ("--model {d}/no_config", ["no_config"]), ("--model {d}/bad_config", ["bad_config"]),
    ("--model {d}/afile", ["afile"]), ("--model nobody/nothing", ["nobody/nothing"]), ("--model {d}/odd_config", ["odd_config", "hidden_size"]),
]] + [(stage, flags, parts) for stage in ("rl_gppo", "sft") for flags, parts in [
    ("--lr -1 --output_dir {o}", ["lr", "0 or more"]), ("--lr fast --output_dir {o}", ["lr", "float", "'fast'"]),
    ("--lr 1 2 --output_dir {o}", ["lr takes one value"]), ("--lr .nan --output_dir {o}", ["lr"]), ("--lr .inf --output_dir {o}", ["lr"]),
    ("--grad_clip -1 --output_dir {o}", ["grad_clip"]), ("--save_every -1 --output_dir {o}", ["save_every"]),
    ("--token_budget 0 --output_dir {o}", ["token_budget", "at least 1"]), ("--keep_checkpoints 0 --output_dir {o}", ["keep_checkpoints"]),
    ("--gradient_checkpointing 2 --output_dir {o}", ["gradient_checkpointing", "bool"]),
    ("--log_with paper --output_dir {o}", ["log_with", "tensorboard"]), ("--resume {d} --model {m} --output_dir {o}", ["resume", "no checkpoint"]),
    ("--attention fast --model {m} --output_dir {o}", ["attention", "fast"]),
    ("--train_file nowhere.jsonl --model {m} --output_dir {o}", ["train_file", "nowhere.jsonl does not exist"]),
    ("--train_file {d}/nowhere --model {m} --output_dir {o}", ["train_file", "nowhere"]),
    ("--train_file toy:poetry --output_dir {o}", ["poetry", "toy:math"]), ("--train_file nobody/nothing --model {m} --output_dir {o}", ["nobody/nothing"]),
    ("--train_file {d}/afolder --model {m} --output_dir {o}", ["afolder", "no .jsonl"]),
    ("--train_file {d}/bad.parquet --model {m} --output_dir {o}", ["bad.parquet"]),
    (TRAIN.replace("{row}", "empty"), ["empty.jsonl", "no row"]), (TRAIN.replace("{row}", "blank"), ["blank.jsonl", "no row"]),
    (TRAIN.replace("{row}", "latin1"), ["latin1.jsonl:1", "UTF-8"]), (TRAIN.replace("{row}", "no_json"), [".jsonl:", "not JSON"] if stage == "rl_gppo" else [".jsonl:"]),
    ("--model {m} --output_dir {d}/afile", ["output_dir", "afile"]), ("--model {m} --output_dir {d}/afile/x", ["output_dir", "afile"]),
    ("--train_file= --model {m} --output_dir {o}", ["train_file is empty"]), ("--seed 100000000000000000000 --output_dir {o}", ["seed", "2**63"]),
    ("--model {m} --output_dir {d}/emptied", ["emptied", "config.yaml"]), ("--model {m} --output_dir {d}/mangled", ["mangled", "config.yaml"]),
    ("--model {d}/wider --train_file {d}/rl.jsonl --output_dir {o}" if stage == "rl_gppo" else "--model {d}/wider --train_file {d}/sft.jsonl --output_dir {o}",
     ["tokens, its embedding", "resize_token_embeddings"]),
    ("--model {m} --output_dir {d}/theirs", ["theirs", "not empty"]), ("--model {m} --output_dir {d}/other", ["other settings", "--resume never"]),
]] + [("rl_gppo", TRAIN.replace("{row}", name) + " --eval_file=", [f"{name}.jsonl:2", *parts]) for name, parts in [
    ("array", ["JSON object"]), ("number", ["JSON object"]), ("no_prompt", ["prompt"]), ("no_source", ["data_source"]), ("no_truth", ["ground truth"]),
    ("empty_truth", ["ground truth"]), ("null_truth", ["ground truth"]), ("source", ["riddles", "math_verify"]), ("prompt_number", ["message"]),
    ("prompt_list", ["message"]), ("no_content", ["message"]), ("only_assistant", ["user"]), ("picture", ["text"]), ("code_empty", []),
    ("code_text", []), ("code_null", []), ("code_uneven", []), ("code_timeout", ["timeout"]), ("code_negative", ["max_test_cases"]), ("code_syntax", []),
    ("code_no_call", []), ("role", ["'usr'", "user"]), ("system_only", ["user"]), ("half", ["surrogate"]), ("nan", ["nan"]), ("true", ["True"]),
    ("digits", ["not JSON"]), ("source_list", ["data_source"]), ("tests_as_math", ["coder1"]),
]] + [("sft", TRAIN.replace("{row}", name), [f"{name}.jsonl:2", *parts]) for name, parts in [
    ("sft_array", ["JSON object"]), ("no_answer", ["assistant"]), ("assistant_first", ["assistant"]), ("sft_prompt_only", ["assistant"]), ("sft_number", ["text"]),
    ("sft_role", ["'human!'"]), ("sft_half", ["surrogate"]),
]] + [
    ("rl_gppo", "--model {m} --train_file {d}/long.jsonl --max_prompt_tokens 20 --output_dir {o}", ["1 of 2 rows", "max_prompt_tokens 20", "--max_prompt_tokens"]),
    ("sft", "--model {m} --train_file {d}/sft_long.jsonl --max_tokens 64 --output_dir {o}", ["exceed 64 tokens", "max_tokens"]),
    ("rl_gppo", "lr 1", ["'lr'", "--key value"]), ("rl_gppo", "--loss gpo", ["loss", "gppo_high", "'gpo'"]), ("rl_gppo", "--clip_low -0.1", ["clip_low"]),
    ("rl_gppo", "--clip_low 1.5", ["clip_low", "from 0 to 1"]), ("rl_gppo", "--clip_high -1", ["clip_high"]), ("rl_gppo", "--beta1 -1", ["beta1"]),
    ("rl_gppo", "--steps 0", ["steps", "at least 1"]), ("rl_gppo", "--steps 1.5", ["steps", "int"]), ("rl_gppo", "--rollout_batch 0", ["rollout_batch"]),
    ("rl_gppo", "--responses_per_prompt 1", ["responses_per_prompt", "at least 2"]), ("rl_gppo", "--temperature 0", ["temperature", "above 0"]),
    ("rl_gppo", "--minibatch_prompts 0", ["minibatch_prompts"]), ("rl_gppo", "--overlong_filter maybe", ["overlong_filter", "bool"]),
    ("rl_gppo", "--adv_std batch", ["adv_std", "group"]), ("rl_gppo", "--rollout sglang", ["rollout", "vllm"]), ("rl_gppo", "--code_reward half", ["code_reward"]),
    ("rl_gppo", "--lr_schedule step", ["lr_schedule", "cosine"]), ("rl_gppo", "--vllm_tensor_parallel 3 --output_dir {o}", ["vllm_tensor_parallel 3", "1 ranks"]),
    ("rl_gppo", "--train_file {d}/rl.jsonl --output_dir {o}", ["model", "toy", "--model"]), ("rl_gppo", "--reward_timeout_s 0", ["reward_timeout_s", "above 0"]),
    ("rl_gppo", "--model {m} --max_response_tokens 1000000 --output_dir {o}", ["context of", "max_response_tokens"]), ("rl_gppo", "--plan 8", ["'plan'"]),
    ("rl_gppo", "--rewards nowhere.py --output_dir {o}", ["nowhere.py"]), ("rl_gppo", "--rewards {d}/broken.py --output_dir {o}", ["broken.py"]),
    ("rl_gppo", "--eval_file nowhere.jsonl --model {m} --output_dir {o}", ["eval_file", "nowhere.jsonl"]), ("rl_gppo", "--eval_share 2", ["eval_share", "from 0 to 1"]),
    ("sft", "--min_lr 1", ["min_lr", "lr"]), ("sft", "--warmup_ratio 2", ["warmup_ratio", "from 0 to 1"]), ("sft", "--epochs 0", ["epochs"]), ("sft", "--global_batch 0", ["global_batch"]),
    ("sft", "--eval_file nowhere.jsonl --model {m} --output_dir {o}", ["eval_file", "nowhere.jsonl"]),
    ("plan", "--gpus 0", ["gpus", "at least 1"]), ("plan", "--gpu_gb -1", ["gpu_gb"]), ("plan", "--model runs/klear_sft_8b/final", ["not there yet", "Qwen/Qwen3-8B"]),
    ("plan", "--model nowhere", ["nowhere"]), ("plan", "--gpu 8", ["'gpu'", "'gpus'"]),
    ("eval", "--n 0", ["n must be", "at least 1"]), ("eval", "--k 9 --n 4", ["k 9", "n = 4"]), ("eval", "--k one", ["k", "one"]), ("eval", "--temperature -1", ["temperature"]),
    ("eval", "--top_p 0", ["top_p"]), ("eval", "--top_k -1", ["top_k"]), ("eval", "--yarn_factor 0.5", ["yarn_factor"]), ("eval", "--engine tgi", ["engine", "vllm"]),
    ("eval", "--workers -2", ["workers"]), ("eval", "--limit -1", ["limit"]), ("eval", "--data aime23 --output_dir {o}", ["aime23", "aime24"]),
    ("eval", "--data nowhere.jsonl --output_dir {o}", ["nowhere.jsonl"]), ("eval", "--data {d}/afolder --output_dir {o}", ["afolder"]),
    ("eval", "--model {m} --data {d}/empty.jsonl --output_dir {o}", ["empty.jsonl"]), ("eval", "--model {m} --data {d}/latin1.jsonl --output_dir {o}", ["latin1.jsonl:1", "UTF-8"]),
    ("eval", "--model {m} --data {d}/no_json.jsonl --output_dir {o}", ["no_json.jsonl:2", "not JSON"]), ("eval", "--model {m} --data {d}/no_problem.jsonl --output_dir {o}", ["no_problem.jsonl:1"]),
    ("eval", "--model {m} --data {d}/no_solution.jsonl --output_dir {o}", ["no_solution.jsonl:1", "ground truth"]),
    ("eval", "--model {m} --data {d}/rl.jsonl --output_dir {d}/afile", ["output_dir", "afile"]), ("eval", "--score_only nowhere.jsonl --output_dir {o}", ["nowhere.jsonl"]),
    ("eval", "--compare {d}/afolder {d}/nowhere", ["compare"]), ("eval", "--compare {d}/alien {d}/alien", ["compare", "alien"]),
    ("eval", "--score_only {d}/two_truths.jsonl --output_dir {o}", ["two_truths.jsonl:2", "'1'", "ground truth"]),
    ("eval", "--model {m} --data {d}/rl.jsonl --engine hf --max_tokens 8 --output_dir {d}/other", ["other", "another program"]), ("eval", "--engine api --api_base http://localhost:800a/v1 --model x", ["api_base", "800a"]),
    ("rl_gppo", "--eval_share 1 --train_file {d}/rl.jsonl --model {m} --output_dir {o}", ["eval_share"]), ("rl_gppo", "--rewards {d}/none.py --output_dir {o}", ["none.py", "VERIFIERS"]),
    ("rl_gppo", "--model {d}/endless --train_file {d}/rl.jsonl --output_dir {o}", ["ends a response", "eos_token"]),
    ("sft", "--model {d}/endless --train_file {d}/sft.jsonl --output_dir {o}", ["ends a response", "eos_token"]), ("plan", "--model {d}/odd_config", ["odd_config", "hidden_size"]), ("eval", "--score_only {d}/no_response.jsonl --output_dir {o}", ["no_response.jsonl"]),
]

SERVER = """
import json, os, signal, sys, tempfile, time, traceback
sys.path.insert(0, {root!r})
import eval, plan, rl_gppo, sft
stages = dict(eval=eval, plan=plan, rl_gppo=rl_gppo, sft=sft)
for line in sys.stdin:
    stage, flags = json.loads(line)
    log, begun = tempfile.TemporaryFile("w+"), time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
        code = 1
        signal.alarm(90)  # a mistake that is not seen starts a run
        try:
            stages[stage].main(flags)
            code = 0
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    log.seek(0)
    print(json.dumps([code, log.read(), time.monotonic() - begun]), flush=True)
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """The files and folders that the flags name."""
    d = tmp_path_factory.mktemp("mistakes")
    model = Path(toy.make_model(str(d / "model")))
    for name, rows in ROWS.items():
        (d / f"{name}.jsonl").write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    (d / "latin1.jsonl").write_bytes(json.dumps(RL, ensure_ascii=False).replace("1+1=", "caf\u00e9").encode("latin-1") + b"\n")
    (d / "bad.parquet").write_bytes(b"PAR1 but not really")
    (d / "afile").write_text("")
    (d / "afolder").mkdir()
    (d / "theirs").mkdir()
    (d / "theirs" / "thesis.txt").write_text("mine")
    (d / "other").mkdir()
    (d / "other" / "config.yaml").write_text(yaml.safe_dump({"lr": 12.0}))
    (d / "list.yaml").write_text("- a\n- b\n")
    (d / "broken.yaml").write_text("a: [1\n")
    (d / "unknown.yaml").write_text("learning_rate: 1e-6\n")
    (d / "nested.yaml").write_text("seed:\n  a: 1\n")
    (d / "broken.py").write_text("def f(:\n")
    (d / "none.py").write_text("VERIFIERS = None\n")
    (d / "alien").mkdir()
    (d / "alien" / "results.json").write_text('{"accuracy": 0.5}')
    for name, text in (("emptied", ""), ("mangled", "a: [1\n")):
        (d / name).mkdir()
        (d / name / "config.yaml").write_text(text)
    for name, leave, change in [("no_tokenizer", ("tokenizer",), {}), ("no_weights", ("model.safetensors",), {}), ("no_config", ("config.json", "generation"), {}),
                                ("cut_weights", (), {"model.safetensors": 1000}), ("bad_config", (), {"config.json": 30})]:
        (d / name).mkdir()
        for file in model.iterdir():
            if not file.name.startswith(leave or ("\0",)):
                shutil.copy(file, d / name / file.name)
        for file, size in change.items():
            os.truncate(d / name / file, size)
    for name in ("odd_config", "wider", "endless"):
        shutil.copytree(model, d / name)
    config = json.loads((model / "config.json").read_text())
    (d / "odd_config" / "config.json").write_text(json.dumps(config | {"hidden_size": "big"}))
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["a token more"])
    tokenizer.save_pretrained(d / "wider")
    (d / "endless" / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    (d / "endless" / "generation_config.json").unlink()
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (path := d / "endless" / file).exists():
            path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "eos_token"}))
    (d / "endless" / "chat_template.jinja").unlink(missing_ok=True)
    return {"d": str(d), "m": str(model)}


@pytest.fixture(scope="module")
def server():
    env = {**{k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
           "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-c", SERVER.format(root=str(ROOT))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    yield process
    process.stdin.close()
    process.wait()


@pytest.mark.sampled(36)
@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[f"{stage}-{flags[:60]}" for stage, flags, _ in MISTAKES])
def test_mistake(server, places, tmp_path, number):
    stage, flags, parts = MISTAKES[number]
    words = [word.format(o=tmp_path / "out", **places) for word in flags.split()]
    server.stdin.write(json.dumps([stage, words]) + "\n")
    server.stdin.flush()
    code, said, _ = json.loads(server.stdout.readline())
    lines = [line for line in said.strip().splitlines() if line.strip() and "rows/s]" not in line]  # a progress bar
    assert code == 2 and "Traceback" not in said, said[-3000:]
    assert len(lines) <= 3 and lines[-1].startswith(f"{stage}.py: "), said[-3000:]
    assert all(part in lines[-1] for part in parts), (lines[-1], parts)


def test_the_table_is_long_enough():
    assert len(MISTAKES) >= 120 and len({(stage, flags) for stage, flags, _ in MISTAKES}) == len(MISTAKES)


@pytest.mark.slow
def test_a_process_of_its_own():
    done = subprocess.run([sys.executable, ROOT / "rl_gppo.py", "--learning_rate", "1"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "learning_rate" in done.stderr
