# ruff: noqa: E501 (style sheet and script)
"""The page of an evaluation: report.html, one file that needs no network and no server, and results.png.

eval.py calls write_html(); the page has the printed table with error bars, a bar (or, with n = 1, a square) per problem, every
sample one click away (prompt, thinking folded, answer, verdict and why), filters, and TeX as MathML by a small converter.

- Responses are untrusted text. They are stored compressed in base64 (no byte of theirs is markup), shown through text
  nodes only, and the page's Content-Security-Policy allows the one script whose hash it names and no request at all.
- A sample is unpacked by the browser's DecompressionStream when it is opened, and its thinking is laid out when it is unfolded:
  30 problems x 64 samples of 60,000 characters stay quick. The script comes before the samples, so the table shows first.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable
from pathlib import Path


def write_html(path: Path, meta: dict, texts: Iterable[tuple[str, str]]) -> None:
    """meta: {"title", "settings": [[name, value]], "table": header and lines of cells as printed, "benchmarks": [{"name",
    "avg", "ci95", "problems": [{"id", "truth", "samples": [[status, tokens, truncated, answer, score]]}]}]}.
    texts: (key, text) with key "b-p" for the prompt of problem p of benchmark b and "b-p-s" for its sample s."""
    def safe(value) -> str:  # JSON that cannot close its script element
        return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")

    allowed = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    head = PAGE.replace("{hash}", allowed).replace("{style}", STYLE)
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8", errors="replace") as file:
        file.write(head + f'<script type="application/json" id="meta">{safe(meta)}</script>\n<script>{SCRIPT}</script>\n')
        for key, text in texts:
            packed = base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 6)).decode()
            file.write(f'<script type="text/plain" id="t{key}">{packed}</script>\n')
        file.write("</body></html>\n")
    part.replace(path)


def write_png(path: Path, results: dict[str, dict], title: str) -> None:
    """Left: avg@n with its 95 % interval (thin) and its stderr_resample (thick). Right: the rate of every problem, sorted."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for at, (name, r) in enumerate(results.items()):
        color = f"C{at % 10}"
        left.bar(at, 100 * r["avg"], 0.6, color=color, alpha=0.55)
        if r["ci95"]:
            low, high = (100 * x for x in r["ci95"])
            left.errorbar(at, 100 * r["avg"], [[100 * r["avg"] - low], [high - 100 * r["avg"]]], color="k", capsize=5, lw=1)
        if r["stderr_resample"]:
            left.errorbar(at, 100 * r["avg"], 196 * r["stderr_resample"], color="k", lw=3)
        left.text(at + 0.06, 100 * r["avg"] + 1.5, f"{100 * r['avg']:.1f}")
        rates = sorted((100 * c / n for c, n in r["per_problem"].values()), reverse=True)
        right.plot([(i + 0.5) / len(rates) for i in range(len(rates))], rates, drawstyle="steps-mid", color=color, marker="." * (len(rates) < 100),
                   label=f"{name} ({len(rates)} problems)")
    left.set_xticks(range(len(results)), [f"{name}\navg@{r['n']}" for name, r in results.items()])
    left.set(xlim=(-0.7, max(1.7, len(results) - 0.3)), ylabel="correct, %", ylim=(0, 105), title="thin: 95 % over problems; thick: over new samples")
    right.set(xlabel="share of problems", ylabel="samples correct, %", ylim=(-3, 103), title="every problem, easiest first")
    right.legend(fontsize=8)
    fig.suptitle(title, fontsize=10)
    fig.savefig(path, dpi=130)
    plt.close(fig)


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'sha256-{hash}'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>evaluation</title><style>{style}</style></head>
<body><header><h1></h1><p id="settings"></p></header>
<section id="summary"></section>
<main><section id="problems"></section><article id="sample"><p class="hint">Click a square to read a sample; ← and → go on to the next.</p></article></main>
"""

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:0;color:#1d2430;background:#f5f6f8}
header{padding:14px 22px 4px}h1{font-size:20px;margin:0}#settings{color:#5b6472;font-size:13px;margin:4px 0;max-width:110em}
#summary,#problems,#sample{background:#fff;border:1px solid #dde1e7;border-radius:8px;padding:12px 16px}
#summary{margin:8px 22px;overflow-x:auto}main{display:grid;grid-template-columns:minmax(0,5fr) minmax(0,6fr);gap:12px;margin:12px 22px;align-items:start}
table{border-collapse:collapse}th,td{padding:3px 5px;text-align:right}td{white-space:nowrap;font-size:13.5px}th{font-weight:600;color:#5b6472;font-size:12.5px;line-height:1.25;vertical-align:bottom;border-bottom:1px solid #dde1e7}
th:first-child,td:first-child{text-align:left}#summary tbody tr{cursor:pointer}#summary tbody tr:hover{background:#f0f4fa}#summary tr.on{background:#e4edfa}
.bar{position:relative;display:inline-block;width:90px;margin-left:7px;height:14px;background:#e9ecf1;border-radius:3px;vertical-align:middle}
.bar i{position:absolute;left:0;top:0;bottom:0;background:#4c8bd6;border-radius:3px}.bar b{position:absolute;top:6px;height:2px;background:#111}
.bar u{position:absolute;top:2px;bottom:2px;width:2px;background:#111}
.problem{border-bottom:1px solid #eceef2;padding:5px 0;content-visibility:auto;contain-intrinsic-size:auto 52px}.line{display:flex;gap:10px;align-items:center;font-size:13px}.line .id{min-width:9em;font-weight:600;overflow-wrap:anywhere}
.line .bar{width:120px;margin:0;flex:none}.line .note{color:#5b6472}.squares{display:flex;flex-wrap:wrap;gap:2px;margin-top:3px}
.squares button{width:17px;height:17px;padding:0;border:0;border-radius:3px;font:11px/17px system-ui;color:#fff;cursor:pointer}.squares button.on{outline:2px solid #111}
.grid button{width:22px;height:22px;font:14px/22px system-ui}.squares button:focus-visible{outline:2px solid #1b63c4}.dim{opacity:.15}
.correct{background:#2b8a57}.wrong,.partial{background:#c8402f}.cut{background:#c77a0a}.none{background:#7b8493}.fault{background:#7a4bb3}
.tools{display:flex;gap:14px;flex-wrap:wrap;font-size:13px;margin-bottom:8px}.tools label{color:#5b6472}
#sample{position:sticky;top:8px;max-height:calc(100vh - 40px);overflow:auto}#sample h2{font-size:16px;margin:0 0 6px}.hint{color:#5b6472}
.verdict{color:#fff;border-radius:4px;padding:1px 8px;font-size:13px}.text{white-space:pre-wrap;overflow-wrap:anywhere;background:#fafbfc;border:1px solid #eceef2;border-radius:6px;padding:8px 12px;margin:6px 0}
.text pre{background:#eef1f5;padding:6px 10px;border-radius:4px;overflow-x:auto;margin:4px 0;white-space:pre}summary{cursor:pointer;color:#1b63c4}h3{font-size:13px;margin:12px 0 2px;color:#5b6472}
.pmatrix,.bmatrix,.vmatrix,.Bmatrix,.Vmatrix,.cases{border:solid #1d2430;border-width:0 1.5px;padding:1px 4px;margin:0 2px}.pmatrix,.Bmatrix,.cases{border-radius:9px}
.Vmatrix{border-style:double;border-width:0 4px}.cases{border-right:0;border-radius:9px 0 0 9px}math{font-size:1.08em}math[display=block]{margin:6px 0}.boxed{border:1.5px solid #1d2430;padding:2px 5px}dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 12px;margin:8px 0;font-size:14px}dt{color:#5b6472}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:1000px){main{grid-template-columns:1fr}#sample{position:static;max-height:none}}
"""

# No template literal and no backslash survives a copy between Python and a browser unless this stays a raw string.
SCRIPT = r"""
'use strict';
const meta = JSON.parse(document.getElementById('meta').textContent);
const $ = (id) => document.getElementById(id);
function el(tag, attrs, ...children) {          // text goes in as text nodes, never as markup
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attrs || {})) key === 'class' ? node.className = value : node.setAttribute(key, value);
  node.append(...children.map((c) => c instanceof Node ? c : document.createTextNode(c == null ? '' : String(c))));
  return node;
}
function bar(rate, low, high) {
  const node = el('span', {class: 'bar'}, el('i'));
  node.firstChild.style.width = 100 * rate + '%';
  if (low != null) {
    const [line, left, right] = [el('b'), el('u'), el('u')];
    line.style.left = 100 * low + '%'; line.style.width = 100 * (high - low) + '%';
    left.style.left = 'calc(' + 100 * low + '% - 1px)'; right.style.left = 'calc(' + 100 * high + '% - 1px)';
    node.append(line, left, right);
  }
  return node;
}

// ---- tables
const FAULTS = ['verifier_error', 'verifier_timeout', 'sandbox_error'];
const look = ([status, , cut]) => status === 'correct' ? 'correct' : FAULTS.includes(status) ? 'fault' : cut ? 'cut'
  : status.startsWith('no_') ? 'none' : 'wrong';
const GLYPH = {correct: '✓', wrong: '✗', cut: '…', none: '?', fault: '!'};
const WHY = {correct: 'correct', wrong: 'the answer differs from the ground truth', partial: 'not all tests pass',
  no_think_end: 'no </think>: no answer outside the thinking', no_think_start: 'no <think> at the start', no_answer: 'no answer found',
  no_code: 'no code block found', verifier_error: 'the verifier failed on this answer: not judged', verifier_timeout: 'the verifier ran out of time: not judged',
  sandbox_error: 'the sandbox failed: not judged'};
const FILTERS = {all: () => true, wrong: (s) => s[0] !== 'correct', truncated: (s) => s[2], 'verifier errors': (s) => FAULTS.includes(s[0])};
let chosen = 0, filter = 'all', order = 'as given', open = null;

function summary() {
  document.title = $('summary').parentNode.querySelector('h1').textContent = meta.title;
  $('settings').textContent = meta.settings.map(([k, v]) => k + ' ' + (v === '' ? 'none' : v)).join(' · ');
  const [head, ...lines] = meta.table, at = head.findIndex((name) => name.startsWith('avg@n'));   // the bar stands behind it
  const body = meta.benchmarks.map((b, i) => {
    const cells = lines[i].map((cell) => el('td', {}, cell));
    cells[at].append(bar(b.avg, ...(b.ci95 || [])));
    const row = el('tr', {tabindex: 0}, ...cells);
    row.onclick = () => { chosen = i; problems(); first(); };
    row.onkeydown = (e) => { if (e.key === 'Enter') row.onclick(); };
    return row;
  });
  $('summary').replaceChildren(el('table', {}, el('thead', {}, el('tr', {}, ...head.map((h) => el('th', {}, h)))), el('tbody', {}, ...body)));
}
function first() {                               // the sample to begin with: the first that went wrong
  const wrong = (p) => p.samples.findIndex((s) => s[0] !== 'correct'), list = meta.benchmarks[chosen].problems;
  const at = Math.max(0, list.findIndex((p) => wrong(p) >= 0));
  show(chosen + '-' + at + '-' + Math.max(0, wrong(list[at])));
}

function problems() {
  [...$('summary').querySelectorAll('tbody tr')].forEach((row, at) => row.classList.toggle('on', at === chosen));
  const choice = (name, options, value, set) => {
    const select = el('select', {'aria-label': name}, ...options.map((o) => el('option', o === value ? {selected: ''} : {}, o)));
    select.onchange = () => { set(select.value); problems(); };
    return el('label', {}, name + ' ', select);
  };
  const list = meta.benchmarks[chosen].problems.map((p, at) => {
    const right = p.samples.filter((s) => s[0] === 'correct').length;
    return {p, at, rate: right / p.samples.length, right, answers: new Set(p.samples.map((s) => s[0] === 'correct' ? '\0' : s[3])).size};
  });
  const shown = list.filter(({p, rate, answers}) => filter === 'disagreeing' ? rate > 0 && rate < 1 || answers > 1 : p.samples.some(FILTERS[filter]));
  if (order !== 'as given') shown.sort((a, b) => order === 'hardest first' ? a.rate - b.rate : b.rate - a.rate);
  const test = FILTERS[filter] || (() => true), square = (p, at, s, i) => el('button', {class: look(s) + (test(s) ? '' : ' dim'), 'data-key': chosen + '-' + at + '-' + i,
    title: p.id + ', sample ' + i + ': ' + s[0] + (s[2] ? ', truncated' : '') + (s[3] == null ? '' : ', ' + s[3])}, GLYPH[look(s)]);
  $('problems').replaceChildren(
    el('div', {class: 'tools'}, choice('show', ['all', 'wrong', 'truncated', 'disagreeing', 'verifier errors'], filter, (v) => { filter = v; }),
      choice('order', ['as given', 'hardest first', 'easiest first'], order, (v) => { order = v; }),
      el('span', {class: 'hint'}, shown.length + ' of ' + list.length + ' problems of ' + meta.benchmarks[chosen].name)),
    ...(list.every(({p}) => p.samples.length === 1) ? [el('div', {class: 'squares grid'}, ...shown.map(({p, at}) => square(p, at, p.samples[0], 0)))]
      : shown.map(({p, at, rate, right}) => {
      const squares = p.samples.map((s, i) => square(p, at, s, i));
      const cut = p.samples.filter((s) => s[2]).length;
      return el('div', {class: 'problem'}, el('div', {class: 'line'}, el('span', {class: 'id'}, p.id), bar(rate), right + ' of ' + p.samples.length,
        el('span', {class: 'note'}, cut ? cut + ' truncated' : '')), el('div', {class: 'squares'}, ...squares));
    })));
  mark();
}
$('problems').addEventListener('click', (e) => { if (e.target.dataset.key) show(e.target.dataset.key); });
document.addEventListener('keydown', (e) => {
  if (!open || e.target.tagName === 'SELECT' || !['ArrowLeft', 'ArrowRight'].includes(e.key)) return;
  const keys = [...$('problems').querySelectorAll('button:not(.dim)')].map((b) => b.dataset.key);
  const next = keys[keys.indexOf(open) + (e.key === 'ArrowRight' ? 1 : -1)];
  if (next) show(next);
});
function mark() {
  for (const b of $('problems').querySelectorAll('button.on')) b.classList.remove('on');
  const now = open && $('problems').querySelector('button[data-key="' + open + '"]');
  if (now) now.classList.add('on');
}

// ---- one sample
const loaded = new Promise((done) => document.addEventListener('DOMContentLoaded', done));
async function unpack(key) {
  let node = $('t' + key);
  if (!node) { await loaded; node = $('t' + key); }   // the file is still being read
  const bytes = Uint8Array.from(atob(node.textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'))).text();
}
async function show(key) {
  open = key; mark();
  const [b, p, s] = key.split('-').map(Number);
  const problem = meta.benchmarks[b].problems[p], [status, tokens, cut, answer, score] = problem.samples[s];
  const [prompt, response] = await Promise.all([unpack(b + '-' + p), unpack(key)]);
  if (open !== key) return;
  const end = response.lastIndexOf('</think>');
  const opened = /^\s*<think>/.test(response) || /<think>\s*$/.test(prompt);
  const thinking = end >= 0 ? response.slice(0, end) : opened ? response : '';
  const rest = end >= 0 ? response.slice(end + 8) : opened ? '' : response;
  const fact = (name, value) => value == null ? [] : [el('dt', {}, name), el('dd', {}, value)];
  const fold = (name, text) => {
    const body = el('div', {class: 'text'}), node = el('details', {}, el('summary', {}, name), body);
    node.addEventListener('toggle', () => { if (node.open && !body.firstChild) draw(body, text); });
    return node;
  };
  const article = $('sample');
  article.replaceChildren(el('h2', {}, meta.benchmarks[b].name + ' · ' + problem.id + ' · sample ' + s),
    el('span', {class: 'verdict ' + look(problem.samples[s])}, status), ' ' + WHY[status] + (status === 'partial' ? ' (' + Math.round(100 * score) + ' % do)' : '') + (cut ? '; the response was cut at max_tokens' : ''),
    el('dl', {}, ...fact('answer', answer == null ? null : draw(el('span'), '\\(' + answer + '\\)')), ...fact('ground truth', problem.truth == null ? null
      : problem.code ? problem.truth : draw(el('span'), '\\(' + problem.truth + '\\)')), ...fact('tokens', tokens == null ? null : tokens.toLocaleString('en'))),
    el('h3', {}, 'prompt'), draw(el('div', {class: 'text'}), prompt));
  if (thinking) article.append(fold('thinking, ' + thinking.length.toLocaleString('en') + ' characters', thinking.replace(/^\s*<think>\s*/, '')));
  article.append(el('h3', {}, 'answer'), rest.length > 20000 ? fold('text, ' + rest.length.toLocaleString('en') + ' characters', rest) : draw(el('div', {class: 'text'}), rest.trim() || '(none)'));
  article.scrollTop = 0;
}

// ---- text with code blocks and TeX
const PARTS = /```[^\n]*\n([\s\S]*?)(?:```|$)|\$\$([\s\S]{1,3000}?)\$\$|\\\[([\s\S]{1,3000}?)\\\]|\\\(([\s\S]{1,3000}?)\\\)|\$(?=[^\s$])([^$]{0,1000}?[^\s$\\])\$(?!\d)|(\\boxed\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})|(\\begin\{(\w+\*?)\}[\s\S]{1,3000}?\\end\{\8\})|\*\*([^*\n]{1,300})\*\*/g;
function draw(node, text) {
  let from = 0;
  for (const m of text.matchAll(PARTS)) {
    const block = m[1] != null || m[2] != null || m[3] != null || m[7] != null;   // stands on a line of its own
    const before = text.slice(from, m.index);
    node.append(block ? before.replace(/\s+$/, '') : before);
    from = m.index + m[0].length;
    if (block) while (/\s/.test(text[from] || '')) from++;
    if (m[1] != null) node.append(el('pre', {}, m[1]));
    else if (m[9] != null) node.append(el('strong', {}, m[9]));
    else node.append(math(m[2] ?? m[3] ?? m[4] ?? m[5] ?? m[6] ?? m[7], block, m[0]));
  }
  if (from < text.length) node.append(text.slice(from));
  return node;
}
const NS = 'http://www.w3.org/1998/Math/MathML';
function ml(tag, attrs, ...children) {
  const node = document.createElementNS(NS, tag);
  for (const [key, value] of Object.entries(attrs || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
function math(source, block, whole) {               // a TeX snippet as MathML; as it was written when it cannot be read
  try {
    const parser = new Tex(source);
    const row = parser.row(() => false);
    return ml('math', block ? {display: 'block'} : {}, row);
  } catch (error) {
    return document.createTextNode(whole);
  }
}
const pairs = (text) => Object.fromEntries(text.trim().split(/\s+/).map((w, i, all) => i % 2 ? null : [w, all[i + 1]]).filter(Boolean));
const LETTERS = pairs(`alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε zeta ζ eta η theta θ vartheta ϑ iota ι kappa κ lambda λ mu μ nu ν xi ξ pi π
  rho ρ sigma σ tau τ upsilon υ phi ϕ varphi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π Sigma Σ Phi Φ Psi Ψ Omega Ω ell ℓ infty ∞
  partial ∂ nabla ∇ emptyset ∅ varnothing ∅ hbar ℏ Re ℜ Im ℑ aleph ℵ degree ° angle ∠ triangle △ square □ ldots … dots … cdots ⋯ vdots ⋮ ddots ⋱ prime ′ imath ı`);
const SIGNS = pairs(`times × cdot ⋅ div ÷ pm ± mp ∓ le ≤ leq ≤ leqslant ≤ ge ≥ geq ≥ geqslant ≥ ne ≠ neq ≠ approx ≈ equiv ≡ sim ∼ cong ≅ propto ∝ to → rightarrow →
  Rightarrow ⇒ implies ⟹ iff ⟺ Leftrightarrow ⇔ leftarrow ← mapsto ↦ in ∈ notin ∉ ni ∋ subset ⊂ subseteq ⊆ supset ⊃ supseteq ⊇ cup ∪ cap ∩ setminus ∖ mid ∣ nmid ∤
  parallel ∥ perp ⟂ forall ∀ exists ∃ neg ¬ land ∧ wedge ∧ lor ∨ vee ∨ oplus ⊕ otimes ⊗ circ ∘ bullet ∙ star ⋆ ast ∗ ll ≪ gg ≫ lfloor ⌊ rfloor ⌋ lceil ⌈ rceil ⌉
  langle ⟨ rangle ⟩ lbrace { rbrace } vert | Vert ‖ therefore ∴ because ∵ colon : backslash \\ checkmark ✓ lvert | rvert | | ‖ { { } } % % $ $ # # & & _ _`);
const BIG = pairs('sum ∑ prod ∏ int ∫ iint ∬ oint ∮ bigcup ⋃ bigcap ⋂ bigoplus ⨁ coprod ∐');
const NAMES = new Set('sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp det dim deg gcd lcm ker arg hom Pr'.split(' '));
const UNDER = new Set('lim max min sup inf limsup liminf'.split(' '));
const ACCENTS = pairs('hat ^ widehat ^ bar ¯ overline ¯ vec → overrightarrow → tilde ~ widetilde ~ dot ˙ ddot ¨ overbrace ⏞ overarc ⌒');
const FENCED = new Set(['pmatrix', 'bmatrix', 'vmatrix', 'Bmatrix', 'Vmatrix', 'cases']);   // drawn as borders: no font stretches them everywhere
const SPACES = {',': .17, ':': .22, ';': .28, '!': 0, ' ': .25, quad: 1, qquad: 2, '~': .25, enspace: .5, thinspace: .17};
class Tex {
  constructor(source) { this.tokens = source.match(/\\[a-zA-Z]+\*?|\\[\s\S]|\d+(?:\.\d+)?|\s+|[\s\S]/gu) || []; this.at = 0; this.depth = 0; }
  peek() { while (/^\s+$/.test(this.tokens[this.at] || '')) this.at++; return this.tokens[this.at]; }
  take() { const t = this.peek(); this.at++; return t; }
  row(stop) {                                      // items up to a token for which stop() holds, scripts attached
    if (++this.depth > 60) throw new Error('too deep');
    const items = [];
    for (let t = this.peek(); t !== undefined && !stop(t); t = this.peek()) {
      if (t === '^' || t === '_' || t === "'") {
        const base = items.pop() || ml('mrow'), scripts = {};
        for (; ['^', '_', "'"].includes(t = this.peek()) && !(t in scripts); ) {
          this.take();
          scripts[t === "'" ? '^' : t] = t === "'" ? ml('mo', {}, '′'.repeat(1 + this.primes())) : this.argument();
        }
        const [sub, sup] = [scripts._, scripts['^']], under = base.dataset && base.dataset.under;
        items.push(sub && sup ? ml(under ? 'munderover' : 'msubsup', {}, base, sub, sup) : sub ? ml(under ? 'munder' : 'msub', {}, base, sub)
          : ml(under ? 'mover' : 'msup', {}, base, sup));
      } else if (t === '\\over') {
        this.take();
        const top = ml('mrow', {}, ...items.splice(0));
        items.push(ml('mfrac', {}, top, this.row(stop)));
      } else items.push(this.item());
    }
    this.depth--;
    return items.length === 1 ? items[0] : ml('mrow', {}, ...items);
  }
  primes() { let count = 0; while (this.peek() === "'") { this.take(); count++; } return count; }
  argument() {
    const t = this.peek();
    if (t === undefined || t === '}') throw new Error('argument missing');
    if (t === '{') { this.take(); const row = this.row((x) => x === '}'); if (this.take() !== '}') throw new Error('} missing'); return row; }
    if (/^\d\d/.test(t)) { this.tokens[this.at] = t.slice(1); return ml('mn', {}, t[0]); }   // \frac12 is 1 over 2
    return this.item();
  }
  raw() {                                          // the characters of a {group}
    if (this.peek() !== '{') return this.take() || '';
    let depth = 0, text = '';
    do { const t = this.tokens[this.at++]; if (t === undefined) throw new Error('} missing'); depth += (t === '{') - (t === '}'); text += t; } while (depth);
    return text.slice(1, -1);
  }
  fence(t) { return t === '.' ? '' : t.startsWith('\\') ? SIGNS[t.slice(1)] || '' : t; }
  item() {
    const t = this.take();
    if (t === '{') { this.at--; return this.argument(); }
    if (t === '}') throw new Error('} too many');
    if (/^\d/.test(t)) return ml('mn', {}, t);
    if (/^\p{L}$/u.test(t)) return ml('mi', {}, t);
    if (t === '&') return ml('mrow');
    if (t === '-') return ml('mo', {}, '−');
    if (t[0] !== '\\') return ml('mo', '()[]|/'.includes(t) ? {stretchy: 'false'} : {}, t);
    const name = t.slice(1);
    if (LETTERS[name]) return ml('mi', /^[A-Z∞°…⋯∠△]/u.test(name + LETTERS[name]) ? {mathvariant: 'normal'} : {}, LETTERS[name]);
    if (BIG[name]) { const mo = ml('mo', {}, BIG[name]); if (!name.includes('int')) mo.dataset.under = '1'; return mo; }
    if (SIGNS[name]) return ml('mo', {stretchy: 'false'}, SIGNS[name]);
    if (NAMES.has(name)) return ml('mrow', {}, ml('mi', {}, name), ml('mspace', {width: '0.17em'}));
    if (UNDER.has(name)) { const mo = ml('mo', {lspace: '0.1em', rspace: '0.17em'}, name); mo.dataset.under = '1'; return mo; }
    if (name in SPACES) return ml('mspace', {width: SPACES[name] + 'em'});
    if (/^[dtc]?frac$/.test(name)) return ml('mfrac', {}, this.argument(), this.argument());
    if (/^[dt]?binom$/.test(name)) return ml('mrow', {}, ml('mo', {}, '('), ml('mfrac', {linethickness: '0'}, this.argument(), this.argument()), ml('mo', {}, ')'));
    if (name === 'sqrt') {
      if (this.peek() !== '[') return ml('msqrt', {}, this.argument());
      this.take(); const index = this.row((x) => x === ']'); this.take();
      return ml('mroot', {}, this.argument(), index);
    }
    if (name === 'left') {
      const open = this.fence(this.take() || ''), body = this.row((x) => x === '\\right');
      if (this.take() !== '\\right') throw new Error('\\right missing');
      return ml('mrow', {}, ml('mo', {fence: 'true', stretchy: 'true'}, open), body, ml('mo', {fence: 'true', stretchy: 'true'}, this.fence(this.take() || '')));
    }
    if (/^[bB]ig+[lrm]?$/.test(name) || /^(display|text|script)style$|^limits$|^nolimits$|^middle$/.test(name)) return ml('mrow');
    if (name === 'boxed' || name === 'fbox') return ml('mrow', {class: 'boxed'}, this.argument());
    if (/^(text|textbf|textit|textrm|mbox|mathrm|operatorname\*?|mathbf|boldsymbol|mathsf|mathit)$/.test(name)) return ml('mtext', {}, this.raw().replace(/\\([a-zA-Z]+ ?|.)/g, (_, c) => c.length === 1 ? c : ' '));
    if (name === 'mathbb') return ml('mi', {}, ({N: 'ℕ', Z: 'ℤ', Q: 'ℚ', R: 'ℝ', C: 'ℂ', P: 'ℙ', F: '𝔽', E: '𝔼'})[this.raw()] || '𝟙');
    if (/^math(cal|frak|scr)$/.test(name)) return ml('mi', {}, this.raw());
    if (ACCENTS[name]) return ml('mover', {accent: 'true'}, this.argument(), ml('mo', {stretchy: String(/over|wide/.test(name))}, ACCENTS[name]));
    if (name === 'underline' || name === 'underbrace') return ml('munder', {}, this.argument(), ml('mo', {stretchy: 'true'}, name === 'underline' ? '_' : '⏟'));
    if (name === 'overset' || name === 'stackrel') { const top = this.argument(); return ml('mover', {}, this.argument(), top); }
    if (name === 'underset') { const low = this.argument(); return ml('munder', {}, this.argument(), low); }
    if (name === 'pmod') return ml('mrow', {}, ml('mspace', {width: '0.5em'}), ml('mo', {}, '('), ml('mtext', {}, 'mod\u00a0'), this.argument(), ml('mo', {}, ')'));
    if (name === 'bmod' || name === 'mod') return ml('mtext', {}, '\u00a0mod\u00a0');
    if (name === 'not') { const next = this.take() || ''; return ml('mo', {}, (SIGNS[next.slice(1)] || next) + '\u0338'); }
    if (name === 'tag') return ml('mtext', {}, '\u2003(' + this.raw() + ')');
    if (name === '\\' || name === 'newline' || name === 'hline' || name === 'nonumber') return ml('mspace', {width: '1em'});
    if (name === 'begin') return this.table(this.raw());
    return ml('mtext', {}, t);
  }
  table(kind) {
    const ends = (x) => x === '&' || x === '\\\\' || x === '\\end' || x === '\\hline';
    if (kind === 'array' || kind === 'tabular') this.raw();
    const rows = [[]];
    for (;;) {
      if (this.peek() === '\\hline') { this.take(); continue; }
      rows.at(-1).push(ml('mtd', {}, this.row(ends)));
      const t = this.take();
      if (t === '\\\\') rows.push([]);
      else if (t === '\\end') break;
      else if (t === undefined) throw new Error('\\end missing');
    }
    this.raw();
    const align = /align|split|eqn/.test(kind), left = kind === 'cases';
    for (const r of rows) r.forEach((cell, i) => { cell.style.textAlign = align ? (i % 2 ? 'left' : 'right') : left ? 'left' : 'center'; });
    return ml('mtable', {class: FENCED.has(kind) ? kind : ''}, ...rows.map((r) => ml('mtr', {}, ...r)));
  }
}
summary();
problems();
first();
"""
