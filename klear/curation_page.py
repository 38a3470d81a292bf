"""The page of a curation, curation.html: tables, histograms, texts in one file, no script, all text escaped."""

from collections import Counter
from html import escape
from pathlib import Path

COLORS = ("#b9c2cf", "#3f7fd0", "#2b8a57")
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:20px auto;max-width:1100px;padding:0 16px;color:#1d2430}
table{border-collapse:collapse;background:#fff}th,td{padding:4px 10px;border-bottom:1px solid #e3e7ec;text-align:right}
th:first-child,td:first-child{text-align:left}th{color:#5b6472;font-size:13px}h2{font-size:17px;margin:26px 0 8px}
details{background:#fff;border:1px solid #dde1e7;border-radius:6px;margin:6px 0;padding:6px 12px}summary{cursor:pointer}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#fafbfc;border:1px solid #eceef2;padding:8px;font-size:13px}
figure{display:inline-block;margin:6px 14px 6px 0}figcaption{font-size:13px;color:#5b6472}
text{font:11px system-ui;fill:#5b6472}"""
HEAD = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Curation</title><style>{style}</style></head><body><h1>Curation</h1>
{body}
</body></html>
"""


def table(head: list[str], rows: list[list]) -> str:
    def line(cells, tag):
        shown = (f"{cell:,}" if isinstance(cell, int) else "" if cell is None else str(cell) for cell in cells)
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in shown) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def fold(summary: str, *texts: str) -> str:
    shown = "".join(f"<pre>{escape(text)}</pre>" for text in texts)
    return f"<details><summary>{escape(summary)}</summary>{shown}</details>"


def histogram(title: str, series: dict[str, list[float]], bins: int = 24, width: int = 500, height: int = 150) -> str:
    """The series drawn over each other, the first one at the back; nothing where there are no values."""
    values = [value for part in series.values() for value in part]
    if not values:
        return ""
    low, high = min(0, *values), max(*values, 1)
    step, bars, counts = (high - low) / bins, [], {}
    for name, part in series.items():
        counts[name] = [0] * bins
        for value in part:
            counts[name][min(bins - 1, int((value - low) / step))] += 1
    most, wide = max(map(max, counts.values())), width / bins
    for at, part in enumerate(counts.values()):
        for i, count in enumerate(part):
            tall, inset = height * count / most, wide * 0.14 * at
            left, thin = i * wide + inset, wide - 2 * inset - 1
            bars.append(f'<rect x="{left:.1f}" y="{15 + height - tall:.1f}" width="{thin:.1f}" height="{tall:.1f}" '
                        f'fill="{COLORS[at]}"/>' if count else "")
    legend = " · ".join(f'<b style="color:{color}">■</b> {escape(name)}: {len(part):,}'
                        for color, (name, part) in zip(COLORS, series.items()))
    return (f'<figure><figcaption>{escape(title)} — {legend}</figcaption><svg width="{width}" height="{height + 32}">'
            f'{"".join(bars)}<text x="0" y="{height + 29}">{low:,.4g}</text><text x="0" y="11">{most:,}</text>'
            f'<text x="{width}" y="{height + 29}" text-anchor="end">{high:,.6g}</text></svg></figure>')


def write_html(path: Path, summary: dict, problems: list, traces: list, examples: dict) -> None:
    """summary: curation.json's; problems, traces: curate.py's; examples: filter -> key -> [record, title, texts...]."""
    place = lambda sample: "" if sample is None else f", sample {sample}"
    kept, unit = [t for t in traces if not t.gone], "characters" if any(t.tokens is None for t in traces) else "tokens"
    both = {"came in": traces, "in sft.jsonl": kept}
    judged = {"came in": problems, "in sft.jsonl": {t.problem: t for t in kept},
              "in rl.jsonl": [p for p in problems if not p.gone_rl]}
    sources = [Counter(p.source for p in some) for some in judged.values()]
    blocks = [
        table(["filter", "prompts", "left", "traces", "left", "prompts for RL", "left"], [
            [s["filter"], *(s[way][key] for key in s["in"] for way in ("in", "out"))] for s in summary["filters"]]),
        f"<p>{summary['bad_rows']:,} rows could not be used.</p>",
        histogram(f"{unit} of a trace", {
            name: [t.size if unit == "characters" else t.tokens for t in some] for name, some in both.items()}),
        histogram("pass rate of a prompt", {
            name: [p.rate for p in some if p.rate is not None] for name, some in judged.items()}),
        table(["source", *(f"prompts {name}" for name in judged)], [
            [source, *(count[source] for count in sources)] for source in sorted(sources[0])]),
        "<h2>Three examples of what each filter took</h2>",
        *(fold(title if record is None else f"{title} ({record.id}{place(record.sample)})", *texts)
          for some in examples.values() for record, title, *texts in some.values())]
    path.write_text(HEAD.format(style=STYLE, body="\n".join(blocks)), encoding="utf-8", errors="replace")
