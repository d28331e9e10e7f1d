"""The status page itself: one HTML text, its style and script inside, nothing from anywhere else.

The first state is written into the page, so that it also tells without its script; the script asks again each second.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin-top: 1.6rem; }
code { overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dd { margin: 0; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .2rem .8rem .2rem 0; }
button { font: inherit; padding: .3rem 1rem; }
#gone { font-weight: bold; }
"""

_SCRIPT = """
"use strict";
const by = (id) => document.getElementById(id);
const put = (id, text) => { if (by(id).textContent !== text) by(id).textContent = text; };
const rows = (id, list, tag, cells) => by(id).replaceChildren(...list.map((item) => {
  const row = document.createElement(tag);
  for (const text of cells(item)) {
    const cell = tag === "tr" ? row.appendChild(document.createElement("td")) : row;
    cell.textContent = text;
  }
  return row;
}));
const show = (s) => {
  put("standing", s.standing); put("node", s.node); put("models", s.models.join(", "));
  put("running", `${s.running} of ${s.slots}`);
  put("ended", `${s.done} done, ${s.failed} failed, ${s.cancelled} cancelled`);
  put("speed", `${s.tokens_per_second} tokens per second`);
  put("thanks", `${s.done} answers, ${s.tokens} tokens, ${s.people_hours.toFixed(2)} hours for people`);
  put("power", s.power.watts === null ? s.power.source : `${s.power.watts} W (${s.power.source})`);
  rows("relays", s.relays, "tr", (r) => [r.url, r.state, r.detail]);
  rows("alarms", s.alarms, "p", (a) => [a.message]);
  rows("why", s.why, "li", (w) => [w.message]);
  by("reasons").hidden = s.why.length === 0;
  put("switch", s.standing === "paused" ? "Resume" : "Pause");
};
const ask = async (path, method) => {
  try {
    const answer = await fetch(path, { method, headers: { "x-tokenplace-control": "page" } });
    if (answer.ok) show(await answer.json());
    by("gone").hidden = true;
  } catch { by("gone").hidden = false; }
};
by("switch").hidden = false;
by("switch").onclick = () => ask(by("switch").textContent === "Resume" ? "/resume" : "/pause", "POST");
setInterval(() => { if (!document.hidden) ask("/status.json", "GET"); }, 1000);
"""

_BODY = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>token.place node</title><style>{style}</style></head><body>
<h1>token.place node: <span id="standing" aria-live="polite">{standing}</span></h1>
<p id="gone" role="alert" hidden>The node does not answer any more.</p>
<dl>
<dt>fingerprint</dt><dd><code id="node">{node}</code></dd>
<dt>serves</dt><dd id="models">{models}</dd>
<dt>answering now</dt><dd id="running">{running}</dd>
<dt>ended</dt><dd id="ended">{ended}</dd>
<dt>speed now</dt><dd id="speed">{speed}</dd>
<dt>given so far</dt><dd id="thanks">{thanks}</dd>
<dt>power</dt><dd id="power">{power}</dd>
</dl>
<p><button id="switch" hidden>{switch}</button></p>
<div id="alarms" role="alert">{alarms}</div>
<section id="reasons"{quiet}><h2>Why no work comes</h2><ul id="why">{why}</ul></section>
<h2>Relays</h2>
<table><thead><tr><th>address</th><th>link</th><th>what it says</th></tr></thead>
<tbody id="relays">{relays}</tbody></table>
<script>{script}</script></body></html>
"""


@dataclass(frozen=True, slots=True)
class Digests:
    """What the page's policy allows: this script and this style, no other."""

    script: str
    style: str


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


PAGE = Digests(_digest(_SCRIPT), _digest(_STYLE))


def page(status: Mapping[str, Any]) -> bytes:
    """The page for what `/status.json` shows."""
    power = status["power"]
    watts = power["source"] if power["watts"] is None else f"{power['watts']} W ({power['source']})"
    relays = "".join(
        f"<tr>{''.join(f'<td>{html.escape(str(relay[key]))}</td>' for key in ('url', 'state', 'detail'))}</tr>"
        for relay in status["relays"]
    )
    shown = {
        "standing": status["standing"],
        "node": status["node"],
        "models": ", ".join(status["models"]),
        "running": f"{status['running']} of {status['slots']}",
        "ended": f"{status['done']} done, {status['failed']} failed, {status['cancelled']} cancelled",
        "speed": f"{status['tokens_per_second']} tokens per second",
        "thanks": f"{status['done']} answers, {status['tokens']} tokens, {status['people_hours']:.2f} hours for people",
        "power": watts,
        "switch": "Resume" if status["standing"] == "paused" else "Pause",
    }
    return _BODY.format(
        **{key: html.escape(str(value)) for key, value in shown.items()},
        relays=relays,
        alarms="".join(f"<p>{html.escape(alarm['message'])}</p>" for alarm in status["alarms"]),
        why="".join(f"<li>{html.escape(why['message'])}</li>" for why in status["why"]),
        quiet="" if status["why"] else " hidden",
        style=_STYLE,
        script=_SCRIPT,
    ).encode()
