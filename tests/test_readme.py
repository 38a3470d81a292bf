"""What the README shows is run as it stands there; its commands name files and recipes that exist."""

import re
from pathlib import Path

import rewards
from rl_gppo import METRICS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_new_reward_in_ten_lines(monkeypatch):
    monkeypatch.setattr(rewards, "VERIFIERS", dict(rewards.VERIFIERS))
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "VERIFIERS[" in block)
    exec(code, vars(rewards))
    assert rewards.score("word_count", "<think>x</think>a b c", "3") == rewards.Reward(1.0, True, "correct")
    assert rewards.score("word_count", "<think>x</think>a b", "3").status == "wrong"
    assert rewards.score("word_count", "a b c", "3").status == "no_think_end"


def test_named_files_exist():
    for name in set(re.findall(r"(?:recipes|figures|benchmarks)/[\w./-]+\.\w+", README)):
        assert (ROOT / name).exists(), name
    assert not re.search(r"@@|TODO", README)


def test_watched_metrics_are_logged():
    for name in ("clip_frac_high", "clip_frac_low", "entropy", "rollout_logprob_diff", "groups_kept"):
        assert name in METRICS and name in README
