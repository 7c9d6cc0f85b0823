"""A run as one page that needs nothing else: no network, no other file.

Owns the page. Does not own what stands on it: figures, curves, samples and forecasts
come from their modules.

The idea: the content is plain HTML that also reads without styles and scripts; one
short script turns the samples into a slider. Everything that somebody else has chosen,
such as the names of machines, is escaped, and the page's policy lets no other script
run and nothing be loaded.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from utilities.config import Config
from utilities.credits import Credit
from utilities.curves import BY
from utilities.display import bits
from utilities.inspect.console import harmless
from utilities.inspect.samples import Sample
from utilities.inspect.summary import Overview, facts
from utilities.inspect.words import shown
from utilities.plots import Level
from utilities.svgplot import loss_svg

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#666;--mark:#d55e00}
body{font:16px/1.5 system-ui,sans-serif;max-width:800px;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
table{border-collapse:collapse}
th,td{text-align:left;padding:.15rem .9rem .15rem 0;vertical-align:top;
border-bottom:1px solid var(--line)}th{font-weight:600;white-space:nowrap}
td{overflow-wrap:anywhere}
td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
tr.differs th{color:var(--mark)}
.wide{overflow-x:auto}.tabs svg{width:100%;min-width:560px;height:auto}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#8881;padding:.75rem;
border-radius:4px;margin:.25rem 0}
.wide pre{white-space:pre;overflow-wrap:normal;overflow-x:auto}
.tabs>input{position:absolute;opacity:0}
.tabs>label{display:inline-block;padding:.2rem .8rem;border:1px solid var(--line);
border-radius:4px;cursor:pointer}
.tabs>input:checked+label{background:#8883}
.tabs>input:focus-visible+label{outline:2px solid var(--mark)}
.tabs>div{display:none;overflow-x:auto}
#by0:checked~#plot0,#by1:checked~#plot1,#by2:checked~#plot2{display:block}
#slider{width:100%}ol{list-style:none;padding:0}small,.soft{color:var(--soft)}
@media (max-width:600px){table,.wide pre{font-size:.8rem}
th,td{padding-right:.5rem}th:last-child,td:last-child{padding-right:0}}
@media (prefers-color-scheme:dark){:root{--soft:#aaa;--mark:#ff8c42}}
"""

_SCRIPT = """
const items = [...document.querySelectorAll('#samples li')];
const slider = document.getElementById('slider');
function show() {
  items.forEach((item, i) => { item.hidden = i !== Number(slider.value); });
}
if (items.length > 1) {
  slider.max = items.length - 1;
  slider.value = items.length - 1;
  slider.closest('p').hidden = false;
  slider.addEventListener('input', show);
  show();
}
"""


@dataclass(frozen=True, eq=False)
class Content:
    """What a report shows."""

    overview: Overview
    now: float  # seconds since 1970
    date: str  # in words
    levels: Sequence[Level]
    prompt: str
    samples: Sequence[Sample]
    credits: Sequence[Credit]
    forecast: Sequence[str]  # lines


def report_html(content: Content) -> str:
    """Return the page."""
    run = content.overview.run
    title = _cell(f"Run {run.number}: {run.record.text_name}")
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        f'<p class="soft">Written {_cell(content.date)}.</p>',
        *_facts(content),
        *_plots(content),
        *_samples(content),
        *_forecast(content.forecast),
        *_machines(content.credits),
        *_settings(run.record.config),
        f"<script>{_SCRIPT}</script></body></html>",
        "",
    ]
    return "\n".join(parts)


def _policy() -> str:
    """Return what the page may do: its own styles, its one script, nothing else."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _cell(text: str) -> str:
    return escape(harmless(text))


def _facts(content: Content) -> Iterable[str]:
    yield '<div class="wide"><table>'
    for name, words in facts(content.overview, content.now):
        yield f"<tr><th>{_cell(name)}</th><td>{_cell(words)}</td></tr>"
    yield "</table></div>"


def _plots(content: Content) -> Iterable[str]:
    """Yield the loss over steps, time and trials, one of which is shown."""
    name = f"run {content.overview.run.number}"
    yield '<h2>Loss</h2><div class="tabs">'
    for number, by in enumerate(BY):
        checked = " checked" if number == 0 else ""
        yield f'<input type="radio" name="by" id="by{number}"{checked}>'
        yield f'<label for="by{number}">by {by}</label>'
    for number, by in enumerate(BY):
        svg = loss_svg([(name, content.overview.curves)], by, content.levels)
        yield f'<div id="plot{number}">{svg}</div>'
    yield "</div>"
    if content.levels:
        yield '<p class="soft">For comparison, nats (bits) per character: '
        yield ", ".join(
            f"{_cell(level.name)} {level.nats:.3f} ({bits(level.nats):.3f})"
            for level in content.levels
        )
        yield "</p>"


def _samples(content: Content) -> Iterable[str]:
    if not content.samples:
        return
    prompt = f"after “{_cell(content.prompt)}”" if content.prompt else "from nothing"
    yield f"<h2>Watch it learn</h2><p>What it writes {prompt}, the same draws each "
    yield "time, as the steps go by.</p>"
    yield '<p hidden><label>step <input type="range" id="slider" min="0"></label></p>'
    yield '<ol id="samples" aria-live="polite">'
    for sample in content.samples:
        loss = ""
        if sample.validation is not None:
            nats = sample.validation
            loss = f", validation loss {nats:.3f} nats ({bits(nats):.3f} bits)"
        text = sample.trouble if sample.text is None else content.prompt + sample.text
        yield f"<li><small>step {sample.step}{loss}</small>"
        yield f"<pre>{_cell(text)}</pre></li>"
    yield "</ol>"


def _forecast(lines: Sequence[str]) -> Iterable[str]:
    if lines:
        text = "\n".join(map(_cell, lines))
        yield f'<h2>Forecast</h2><div class="wide"><pre>{text}</pre></div>'


def _machines(credits: Sequence[Credit]) -> Iterable[str]:
    if not credits:
        return
    trials = sum(credit.trials for credit in credits) or 1
    reward = sum(credit.reward for credit in credits) or 1.0
    yield '<h2>Machines</h2><div class="wide"><table><tr><th>name</th>'
    yield '<th class="n">steps</th><th class="n">trials</th>'
    yield '<th class="n">share</th><th class="n">of the gradient</th></tr>'
    for credit in credits:
        yield (
            f'<tr><td>{_cell(credit.name)}</td><td class="n">{credit.steps:,}</td>'
            f'<td class="n">{credit.trials:,}</td>'
            f'<td class="n">{credit.trials / trials:.1%}</td>'
            f'<td class="n">{credit.reward / reward:.1%}</td></tr>'
        )
    yield "</table></div>"


def _settings(config: Config) -> Iterable[str]:
    defaults = Config().to_json()
    yield '<h2>Configuration</h2><p class="soft">Coloured: not the default.</p>'
    yield '<div class="wide"><table><tr><th>key</th><th>value</th><th>default</th></tr>'
    for key, value in config.to_json().items():
        differs = "" if value == defaults[key] else ' class="differs"'
        yield (
            f"<tr{differs}><th>{key}</th><td>{_cell(shown(value))}</td>"
            f"<td>{_cell(shown(defaults[key]))}</td></tr>"
        )
    yield "</table></div>"
