"""README.md and docs/ say what is true: every command parses, every file, knob and link exists, figures are those of the
CSV files and of plan.py, and the code that they show runs as it stands."""

import csv
import json
import math
import re
import shlex
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from packaging.requirements import Requirement

import curate
import eval as eval_stage
import plan
import rewards
import rl_gppo
import sft
from runs import read_config

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *DOCS]}
README = PAGES["README.md"]
STAGES = {
    "rl_gppo.py": rl_gppo.parse, "sft.py": sft.parse,
    "eval.py": lambda argv: eval_stage.check_config(read_config(eval_stage.Config, argv, "")),
    "plan.py": lambda argv: read_config(plan.Config, argv, ""), "curate.py": lambda argv: read_config(curate.Config, argv, "")}
CONFIGS = [rl_gppo.Config, sft.Config, eval_stage.Config, plan.Config, curate.Config]
KNOBS = {name for config in CONFIGS for name in config.__dataclass_fields__}
ACCELERATE = launch_command_parser()
FLAGS = ({f"--{knob}" for knob in KNOBS} | {"--config", "--help"} | set(ACCELERATE._option_string_actions) |
         {"--privileged", "--dist", "--tensor-parallel-size"})  # Docker's, pytest's, vLLM's


def fenced(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.M | re.S)


def commands(text: str) -> list[str]:
    """Every command of a page, without its comment: lines of shell blocks and of indented blocks, and `code`."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S) + re.findall(r"(?:^    (?![-*|]).*\n)+", text, re.M)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    parts = [part.strip() for line in lines for part in re.sub(r"\s+# .*", "", line).split(" && ")]
    return [part for part in parts if re.match(r"(\w+=\S+ )*(python \S|accelerate launch .*\.py|pip \S)", part)]


def check_requirement(words: list[str]) -> None:
    words = [word for word in words if word != "-y"]
    if words[1] == "-r":
        assert (ROOT / words[2]).is_file()
        words = words[3:]
    for word in words[1:]:
        Requirement(word)


def check_stage(script: str, argv: list[str]) -> None:
    assert (ROOT / script).is_file(), script
    if script in STAGES:
        STAGES[script](argv)
    else:
        for flag in [word for word in argv if word.startswith("--")]:
            assert f'"{flag}"' in (ROOT / script).read_text(), flag


def check_command(command: str) -> None:
    """Fails, or ends as the stage itself does (SystemExit), if the command could not have been meant."""
    words = shlex.split(command.split(" < ")[0])
    while re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        words = words[1:]
    program, rest = words[0], words[1:]
    if program == "pip":
        assert rest[0] in ("install", "uninstall")
        check_requirement(rest)
    elif program == "accelerate":
        assert rest[0] == "launch"
        args = ACCELERATE.parse_args(rest[1:])
        assert args.config_file is None or load_config_from_file(str(ROOT / args.config_file))
        check_stage(args.training_script, args.training_script_args)
    elif program == "python" and rest[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in rest[2:] if word.startswith("tests/"))
    elif program == "python":
        check_stage(rest[0], rest[1:])


def test_every_command_parses(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(rewards, "load", lambda path: None, raising=False)  # my_rewards.py is the reader's
    found = {(page, command) for page, text in PAGES.items() for command in commands(text)}
    recipes = {(path.name, line.strip("# ").strip()) for path in (ROOT / "recipes").glob("*.yaml")
               for line in re.findall(r"^#.*\b(?:python|accelerate) .*", path.read_text().replace("\\\n#", ""), re.M)
               if re.match(r"#\s+(python|accelerate launch) ", line)}
    assert len(found) > 40 and len(recipes) > 5
    for where, command in sorted(found | recipes):
        try:
            check_command(command)
        except SystemExit as end:
            if end.code:
                pytest.fail(f"{where}: {command}: {capsys.readouterr().err[-300:]}")
        except AssertionError as error:
            pytest.fail(f"{where}: {command}: {error}")


@pytest.mark.parametrize("wrong", [
    "python rl_gppo.py --los gppo", "python rl_gppo.py --loss gpo", "python sft.py --epochs none", "python eval.py --k 0",
    "python nothing.py", "accelerate launch --numprocesses 8 eval.py", "python plan.py --gpu 8",
    "accelerate launch --config_file recipes/none.yaml sft.py", "python rl_gppo.py --config recipes/none.yaml",
    "python benchmarks/ablations.py clipping --seed-count 3", "pip install -r none.txt", "pip install not a=name"])
def test_a_wrong_command_is_found(wrong, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises((AssertionError, SystemExit, ValueError, FileNotFoundError)):
        check_command(wrong)


def test_every_recipe_belongs_to_a_stage(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        if "distributed_type" in yaml.safe_load(path.read_text()):
            assert load_config_from_file(str(path)).distributed_type
            continue
        stage = next(name for name in STAGES if f" {name} --config recipes/{path.name}" in path.read_text())
        STAGES[stage](["--config", f"recipes/{path.name}"])


def test_every_file_named_exists():
    for page, text in PAGES.items():
        names = re.findall(r"(?<![\w./-])((?:recipes|figures|benchmarks|docs|tests|klear)/[\w./-]+\.\w+)", text)
        names += re.findall(r"`([a-z_]+\.py)`", text) + re.findall(r"`(requirements[\w-]*\.txt)`", text)
        assert names or page != "README.md"
        missing = {name for name in names if not (ROOT / name).exists()} - {"my_rewards.py", "solution.py"}
        assert not missing, (page, missing)
        assert not re.search(r"@@|TODO|\.\./shared", text), page


def test_every_file_of_ours_is_named():
    assert not {path.name for path in ROOT.glob("*.py") if f"[`{path.name}`]({path.name})" not in README}
    assert not {path.name for path in (ROOT / "klear").glob("*.py") if f"`klear/{path.name}`" not in README}


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_every_link_resolves_and_every_page_is_reached():
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
            if re.match(r"https?://", target):
                continue
            name, _, anchor = target.partition("#")
            file = ((ROOT / page).parent / name).resolve() if name else ROOT / page
            assert file.exists(), (page, target)
            if anchor:
                headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", file.read_text(), flags=re.M | re.S), re.M)
                assert anchor in map(slug, headings), (page, target)
    assert [doc.name for doc in DOCS if f"(docs/{doc.name})" not in README] == []


def test_pages_are_short():
    for page, text in PAGES.items():
        lines = text.splitlines()
        assert len(lines) <= (220 if page == "README.md" else 200), page
        width = 140 if page == "docs/data.md" else 120
        long = [line for line in lines if len(line) > width and line[0] not in "|!{" and not line.startswith("pip install")]
        assert not long, (page, long)


def tables(text: str) -> list[list[list[str]]]:
    """Tables as rows of cells, the header first."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    return [[[cell.strip() for cell in line.strip("|\n ").split("|")] for line in table.splitlines()] for table in found]


def test_every_knob_is_one():
    checked = 0
    for page, text in PAGES.items():
        flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
        known = FLAGS | {f for f in flags if any(f'"{f}"' in path.read_text() for path in ROOT.glob("benchmarks/*.py"))}
        assert flags <= known | {"--project"}, (page, flags - known)
        named = set(re.findall(r"`([a-z][a-z_0-9]*): [^`{]+`", text))
        assert named <= KNOBS | {"fsdp_offload_params"}, (page, named - KNOBS)
        for table in tables(text):
            if table[0][0] != "knob":
                continue
            for row in table[2:]:
                names, defaults = re.findall(r"`(\w+)`", row[0]), [d.strip(" `") for d in row[1].split(",")]
                for name, default in zip(names, defaults, strict=True):
                    config = next(c for c in CONFIGS if name in c.__dataclass_fields__ and (page != "docs/evaluation.md"
                                                                                          or c is eval_stage.Config))
                    value = config.__dataclass_fields__[name].default
                    shown = str(value).lower() if isinstance(value, bool) else value
                    assert shown == default or float(shown) == float(default), (page, name, shown, default)
                    checked += 1
    assert checked > 30


def test_metrics_named_are_logged():
    names = set(re.findall(r"`((?:clip_frac|groups|rollout_logprob_d|reward_f)\w+|entropy)`", "".join(PAGES.values())))
    assert {"clip_frac_high", "entropy", "groups_kept"} <= names <= {*rl_gppo.METRICS}


def test_losses_named_are_all_losses():
    row = next(row for table in tables(README) for row in table if row[0] == "`loss`")
    assert row[3].split(", ") == list(rl_gppo.LOSSES)
    shown = PAGES["docs/losses.md"]
    assert [name for name in rl_gppo.LOSSES if f"--loss {name}" not in shown] == []


def test_verifiers_named_are_all_verifiers():
    table = next(table for table in tables(README) if table[0][0] == "data_source")
    named = {name: row[2] == "yes" for row in table[2:] for name in re.findall(r"`(\w+)`", row[0])}
    assert named == {name: verifier.think for name, verifier in rewards.VERIFIERS.items() if not name.startswith("toy:")}


# ------------------------------------------------------------------------------------------------------------- figures
T975 = {2: 4.303, 4: 2.776, 9: 2.262}  # Student's t by degrees of freedom, from a table


def intervals() -> set[tuple[float, float]]:
    """(mean, half-width) of every cell of figures/*.csv, and of every difference within a group."""
    found = set()
    for path in ROOT.glob("figures/*.csv"):
        cells: dict[str, dict[str, dict]] = {}
        for row in csv.DictReader(path.open()):
            cells.setdefault(row["cell"], {})[row["seed"]] = row
        for name, runs in cells.items():
            for key in ("end", "mean"):
                own = {seed: float(row[key]) for seed, row in runs.items()}
                for other, rows in cells.items():
                    if other.rpartition("/")[0] == name.rpartition("/")[0]:
                        pairs = [value - (float(rows[seed][key]) if other != name else 0) for seed, value in own.items()
                                 if seed in rows]
                        half = T975[len(pairs) - 1] * statistics.stdev(pairs) / math.sqrt(len(pairs))
                        found.add((statistics.fmean(pairs), half))
    return found


def test_results_are_those_of_the_csv_files():
    known = intervals()
    results = PAGES["docs/results.md"]
    text = README.split("## Results")[1].split("## Limits")[0] + results.split("### Which loss")[1].split("### What a loss costs")[0]
    text += PAGES["docs/losses.md"].split("## The seven on the toy")[1].split("## Around the loss")[0]
    cells = [cell for table in tables(text) if "real model" not in table[0][0] for row in table[2:] for cell in row if "±" in cell]
    assert len(cells) > 120
    for cell in cells:
        mean, half = map(float, cell.split(" ± "))
        assert any(abs(mean - m) < 0.00051 and abs(half - h) < 0.00051 for m, h in known), cell  # shown in three digits


FIRST = "{0} %", "{1} %", "**+{2}**"


@pytest.mark.parametrize("folder, row, readme, page", [
    ("qwen_coder_mbpp", "MBPP", FIRST, "gain is {2} points"), ("qwen_coder_gsm8k", "GSM8K", FIRST, "gain is {2} points"),
    ("qwen_coder_gsm8k_longer", "GSM8K", ["+{2}"], "after GPPO, {2} points")])
def test_real_models_rows_are_those_of_the_results(folder, row, readme, page):
    """Means and standard errors over problems, and of the differences by problem, from per_problem alone."""
    before, after = (next(iter(json.loads((ROOT / "results" / folder / f"eval_{when}.json").read_text()).values()))["per_problem"]
                     for when in ("before", "after"))
    assert before.keys() == after.keys()
    shares = [[100 * right / n for right, n in (scores[name] for name in before)] for scores in (before, after)]
    shares.append([y - x for x, y in zip(*shares)])
    shown = [f"{statistics.mean(x):.1f} ± {statistics.stdev(x) / len(x) ** 0.5:.1f}" for x in shares]
    line = next(line for line in README.splitlines() if line.startswith("|") and row in line)
    assert all(text.format(*shown) in line for text in readme)
    said = " ".join(PAGES["docs/real_models.md"].split())
    assert all(text.format(*shown) in said for text in ("{0} %", "{1} %", page))


@pytest.mark.parametrize("file", ["qwen_coder_gsm8k_longer/eval_base", "qwen_coder_gsm8k_own/eval_after_sft"])
def test_starts_of_rl_on_gsm8k_are_those_of_the_results(file):
    found = next(iter(json.loads((ROOT / "results" / f"{file}.json").read_text()).values()))["per_problem"]
    shares = [100 * right / n for right, n in found.values()]
    text = f"{statistics.mean(shares):.1f} ± {statistics.stdev(shares) / len(shares) ** 0.5:.1f} %"
    assert len(shares) == 300 and text in PAGES["docs/real_models.md"]
    assert text in next(line for line in README.splitlines() if line.startswith("| the same, 300 GSM8K"))


def test_clipping_of_a_real_model_is_that_of_the_runs():
    """Each number of its paragraph, from what the runs wrote."""
    logs = {loss: [json.loads(line) for line in (ROOT / "results/qwen_coder_mbpp_clipping" / loss / "metrics.jsonl").read_text().splitlines()]
            for loss in ("gppo", "clip_higher")}
    gppo, clip = ({key: [row.get(key, 0) for row in rows[:9]] for key in rows[0]} for rows in logs.values())
    said = " ".join(PAGES["docs/real_models.md"].split("## GPPO against Clip-Higher")[1].split("\n## ")[0].split())
    for step in (4, 7, 8):
        assert re.search(f"{100 * gppo['clip_frac_low'][step - 1]:.1f} % in step {step} \\((Clip-Higher: )?"
                         f"{100 * clip['clip_frac_low'][step - 1]:.1f} %\\)", said), step
    assert ", ".join(f"{gppo['approx_kl'][step - 1]:.2g}" for step in (4, 7, 8)) in said
    assert f"never above {max(clip['approx_kl']):.2g})" in said
    assert f"reaches {max(gppo['grad_norm']):.1f}" in said and max(clip["grad_norm"][1:]) < 1.15
    assert gppo["accuracy"][8] == 0 and f"({100 * clip['accuracy'][8]:.0f} %)" in said and logs["gppo"][10]["accuracy"] == 0
    correct = [[row["correct"] for row in map(json.loads, (ROOT / "results/qwen_coder_mbpp_clipping" / loss / "rewards.jsonl").open())
                if row["step"] <= 9] for loss in logs]
    assert len(correct[0]) == len(correct[1]) == 9 * 128
    assert f"{100 * (sum(correct[1]) - sum(correct[0])) / len(correct[0]):.1f} ± 2.0 points fewer" in said


def test_clipping_at_half_the_rate_is_that_of_the_runs():
    """Each number of its paragraph, from what the runs wrote; the error of the difference over prompts."""
    folder = ROOT / "results/qwen_coder_mbpp_clipping_4e5"
    read = lambda loss, name: [json.loads(line) for line in (folder / loss / name).read_text().splitlines()]
    gppo, clip = (read(loss, "metrics.jsonl") for loss in ("gppo", "clip_higher"))
    said = " ".join(PAGES["docs/real_models.md"].split("**At half that rate")[1].split("\n\n")[0].split())
    steps = len(clip)  # GPPO was given one more
    assert len(gppo) >= steps and f"{steps} steps" in said
    gppo = gppo[:steps]
    for key, scale, form in (("clip_frac_low", 100, "{:.1f} to {:.1f} %"), ("clip_frac_high", 100, "{:.1f} to {:.1f} %")):
        for rows in (gppo, clip):
            later = [scale * row[key] for row in rows[2:]]  # after the warm-up
            assert form.format(min(later), max(later)) in said, (key, form.format(min(later), max(later)))
    assert f"{max(r['approx_kl'] for r in gppo):.2g} and {max(r['approx_kl'] for r in clip):.2g}" in said
    assert f"from {gppo[0]['entropy']:.2f} to {gppo[-1]['entropy']:.2f} and {clip[-1]['entropy']:.2f}" in said
    shares = []
    for loss in ("gppo", "clip_higher"):
        groups: dict = {}
        for row in read(loss, "rewards.jsonl"):
            groups.setdefault((row["step"], row["group"]), []).append(row["correct"])
        shares.append({key: 100 * statistics.mean(right) for key, right in groups.items() if key[0] <= steps})
    assert shares[0].keys() == shares[1].keys() and len(shares[0]) == 16 * steps
    for first in (1, steps - 4):
        pairs = [share - shares[1][key] for key, share in shares[0].items() if key[0] >= first]
        text = f"{statistics.mean(pairs):+.1f} ± {statistics.stdev(pairs) / len(pairs) ** 0.5:.1f}"
        assert text in said, text


@pytest.mark.slow
def test_plans_shown_are_the_commands_output():
    page = PAGES["docs/scaling.md"]
    command = re.search(r"^    python plan.py (.*)$", page, re.M)[1]
    assert f"```\n{plan.plan(STAGES['plan.py'](shlex.split(command)))}\n```" in page
    one_gpu = ("--gpus 1 --train_file x --max_prompt_tokens 1024 --max_response_tokens 4096 --token_budget 16384 "
               "--gradient_checkpointing true")
    shown = [table for table in tables(page) if table[0][0] == "flags"]
    for base, table in zip((f"--config {ROOT}/recipes/klear_math_8b.yaml", one_gpu), shown, strict=True):
        for flags, update, rollout, full, minutes, verdict in table[2:]:
            said = plan.plan(STAGES["plan.py"](shlex.split(f"{base} {flags.strip('`')}")))
            together = [f"{float(x):.0f}" for x in re.findall(r"together +([\d.]+)", said)]
            assert together == [update, rollout] and f" {full} full" in said and f" {minutes} minutes" in said, flags
            assert ("NOT FIT" in said) == (verdict == "does not fit"), flags


# ---------------------------------------------------------------------------------------------------------- shown code
def test_new_reward_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(rewards, "VERIFIERS", dict(rewards.VERIFIERS))
    code = next(block for block in fenced("README.md", "python") if "VERIFIERS[" in block)
    exec(code, {"__name__": "my_rewards"})
    assert rewards.score("word_count", "<think>x</think>a b c", "3") == rewards.Reward(1.0, True, "correct")
    assert rewards.score("word_count", "<think>x</think>a b", "3").status == "wrong"
    assert rewards.score("word_count", "a b c", "3").status == "no_think_end"


def test_loss_per_response_as_it_stands(monkeypatch):
    monkeypatch.setattr(rl_gppo, "LOSSES", dict(rl_gppo.LOSSES))
    exec(next(block for block in fenced("docs/losses.md", "python")), vars(rl_gppo))
    cfg = SimpleNamespace(clip_low=0.2, clip_high=0.28, beta1=1.0, beta2=1.0, dual_clip=10.0, max_response_tokens=4)
    mask = torch.tensor([[True, True, True, True], [True, False, False, False]])
    logprobs, advantages = torch.full((2, 4), -1.0, requires_grad=True), torch.ones(2, 4)
    loss, _ = rl_gppo.LOSSES["per_response"](logprobs, torch.full((2, 4), -1.0), advantages, mask, cfg,
                                             batch={"lengths": mask.sum(-1)})
    loss.sum().backward()
    assert logprobs.grad.sum(-1).tolist() == [-4.0, -4.0]  # each response counts alike


@pytest.mark.needs("namespaces")
def test_sandbox_as_it_stands():
    code = next(block for block in fenced("docs/sandbox.md", "python"))
    shown = [line.split(" # ")[0].strip() for line in code.splitlines()]
    scope: dict = {}
    exec(shown[0], scope)
    assert eval(shown[1], scope) == "42\n"
    assert [result.passed for result in eval(shown[2], scope)] == [True]
