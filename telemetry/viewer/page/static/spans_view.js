// The spans of a run on a time line.

import { ask } from "./api.js";
import { Chart, escaped } from "./chart.js";
import { oneRun } from "./chosen.js";
import { thousands } from "./dom.js";
import { state } from "./state.js";
import { colour, inkOn } from "./theme.js";

const LANE = 26; // pixels
const OPEN = ["start", "lost"]; // without an end: not yet, or not ever
const ENDINGS = { exception: "failed", start: "without an end yet", lost: "never ended" };

export class SpansView {
  constructor(place) {
    this.chart = new Chart("Spans", { axis: "spans" });
    place.replaceChildren(this.chart.card);
  }

  get needs() {
    return "No span was recorded in this run. telemetry.span(...) makes one.";
  }

  async update(there) {
    const told = await ask("spans", { run: oneRun(there), from: state.spanFrom, to: state.spanTo });
    const isCut = state.spanFrom !== null || state.spanTo !== null;
    if (!told.spans.length && !isCut) return false;
    const lanes = Math.max(1, ...told.spans.map((span) => span.lane + 1));
    this.chart.place.style.height = `${60 + Math.max(lanes, 3) * LANE}px`;
    const range = rangeOf(told);
    const pixel = (range[1] - range[0]) / this.chart.width;
    const names = [...new Set(told.spans.map((span) => span.name))].sort();
    const bars = names.map((name, number) =>
      barsOf(name, told.spans.filter((span) => span.name === name), there.colors[number % there.colors.length], pixel));
    await this.chart.draw(bars, {
      x: { title: { text: "seconds since the run began", standoff: 6 }, range },
      y: { autorange: false, range: [lanes - 0.4, -0.6], showticklabels: false, showgrid: false, zeroline: false },
      barmode: "overlay",
      hovermode: "closest",
    });
    this.chart.say(inWords(told));
    return true;
  }

  close() {
    this.chart.forget();
  }
}

function rangeOf(told) {
  const first = Math.min(0, ...told.spans.map((span) => span.first));
  const room = (told.end - first) * 0.01 || 1;
  return [state.spanFrom ?? first - room, state.spanTo ?? told.end + room];
}

function barsOf(name, spans, color, pixel) {
  const failed = colour("critical");
  return {
    type: "bar",
    orientation: "h",
    base: spans.map((span) => span.first),
    x: spans.map((span) => span.last - span.first),
    y: spans.map((span) => span.lane),
    width: 0.82,
    name: escaped(name),
    shown: name,
    told: `${spans.length} times ${name}, of which ${spans.filter((span) => span.ending === "exception").length} failed`,
    text: spans.map((span) => escaped(textIn(span, (span.last - span.first) / pixel))),
    textposition: "inside",
    insidetextanchor: "start",
    textangle: 0,
    constraintext: "none",
    insidetextfont: { size: 11, color: inkOn(color) },
    cliponaxis: true,
    hovertext: spans.map((span) => escaped(about(span)).replaceAll("\n", "<br>")),
    hovertemplate: "%{hovertext}<extra></extra>",
    marker: {
      color,
      line: {
        color: spans.map((span) => (span.ending === "exception" ? failed : color)),
        width: spans.map((span) => (span.ending === "exception" ? 3 : 0.6)),
      },
      pattern: { shape: spans.map((span) => (OPEN.includes(span.ending) ? "/" : "")), solidity: 0.3 },
    },
  };
}

// What stands in a bar, if there is room for it.
function textIn(span, width) {
  const text = (span.ending === "exception" ? "✖ " : "") + (span.label ?? span.name);
  return width > 7 * text.length ? text : span.ending === "exception" ? "✖" : "";
}

function about(span) {
  const lines = [span.label ? `${span.name}: ${span.label}` : span.name];
  lines.push(span.ending === "start" ? `open for ${duration(span)}` : duration(span));
  if (span.step !== null) lines.push(`step ${span.step}`);
  if (span.ending === "lost") lines.push("never ended: its attempt at the run did");
  if (span.ending === "exception") lines.push(`failed: ${(span.reason ?? "").slice(0, 200)}`);
  return lines.join("\n");
}

function duration({ first, last }) {
  const seconds = last - first;
  if (seconds >= 120) return `${(seconds / 60).toFixed(1)} min`;
  if (seconds >= 1) return `${seconds.toFixed(3)} s`;
  return seconds >= 1e-3 ? `${(seconds * 1e3).toFixed(3)} ms` : `${(seconds * 1e6).toFixed(0)} µs`;
}

function inWords({ spans, count }) {
  const ended = (ending) => spans.filter((span) => span.ending === ending).length;
  const parts = [];
  for (const [ending, words] of Object.entries(ENDINGS)) {
    if (ended(ending)) parts.push(`${thousands(ended(ending))} ${words}.`);
  }
  if (count > spans.length) {
    parts.push(`${thousands(spans.length)} of ${thousands(count)} spans are drawn: those that failed or are open, and the longest. Zoom in to see the others.`);
  }
  return parts.join(" ") || `${thousands(count)} spans.`;
}
