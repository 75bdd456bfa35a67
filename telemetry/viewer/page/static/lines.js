// The lines of charts: which colour and dash each has, and what is marked on it.

import { escaped } from "./chart.js";
import { state } from "./state.js";
import { colour } from "./theme.js";

const DASHES = ["solid", "dash", "dot", "dashdot"];

// A run has one colour in all charts; where there is one run only, colours tell the metrics.
export function strokes(curves, there) {
  const metrics = [...new Set(curves.map((curve) => curve.metric))];
  return curves.map((curve) => {
    const number = metrics.indexOf(curve.metric);
    return there.runs.length > 1
      ? { color: there.colors[curve.run], dash: DASHES[number % DASHES.length] }
      : { color: there.colors[number % there.colors.length], dash: "solid" };
  });
}

export function nameOf(curve, there, several) {
  const run = there.runs[curve.run];
  if (there.runs.length === 1) return curve.metric;
  return several ? `${curve.metric} · ${run}` : run;
}

export function linesOf(curves, there, { log = state.log, told = null } = {}) {
  const stroke = strokes(curves, there);
  const several = new Set(curves.map((curve) => curve.metric)).size > 1;
  const faint = [];
  const lines = [];
  curves.forEach((curve, number) => {
    const name = nameOf(curve, there, several);
    const line = { width: 1.6, ...stroke[number] };
    const common = { type: "scatter", mode: curve.x.length > 1 ? "lines" : "markers" };
    if (curve.raw) {
      faint.push({ ...common, x: curve.raw.x, y: curve.raw.y, line, opacity: 0.25, hoverinfo: "skip" });
    }
    lines.push({
      ...common,
      x: curve.x,
      y: curve.y,
      line,
      marker: { color: line.color },
      name: escaped(name),
      shown: several && there.runs.length > 1 ? null : name, // see legendOf
      told: told ?? `${name} ends at ${short(curve.y.at(-1))}`,
    });
    if (curve.odd.length) lines.push(odd(curve, name, log));
  });
  return [...faint, ...lines];
}

// Where lines differ in their metrics and in their runs, dashes tell the ones and colours the others.
export function legendOf(curves, there) {
  const metrics = [...new Set(curves.map((curve) => curve.metric))];
  const runs = [...new Set(curves.map((curve) => curve.run))];
  if (metrics.length < 2 || there.runs.length < 2) return [];
  return [
    ...metrics.map((metric, number) => ({
      shown: metric,
      line: { color: colour("ink"), dash: DASHES[number % DASHES.length] },
    })),
    ...runs.map((run) => ({ shown: there.runs[run], line: { color: there.colors[run] } })),
  ];
}

// NaN and infinity have no place on an axis: they are marked where the curve was before.
function odd(curve, name, log) {
  const placed = curve.odd.filter((each) => !log || each.y > 0);
  return {
    type: "scatter",
    mode: "markers",
    x: placed.map((each) => each.x),
    y: placed.map((each) => each.y),
    text: placed.map((each) => escaped(each.text)),
    hovertemplate: "%{text}",
    name: escaped(name),
    marker: { symbol: "x", size: 9, color: colour("critical") },
    told: `${name} is not finite at ${curve.odd.length} points`,
  };
}

export function short(value) {
  return value === null || value === undefined ? "a value that is not finite" : Number(value.toPrecision(4));
}

// The horizontal axis that charts share, so that what is at one place is above each other.
export function sharedAxis(there, curves) {
  const unit = unitOf(there);
  const isTime = state.axis === "time";
  const axis = { title: { text: isTime ? `time (${there.unit.name})` : state.axis, standoff: 6 } };
  const drawn = curves.filter((curve) => curve.x.length);
  if (drawn.length) {
    const first = Math.min(...drawn.map((curve) => curve.x[0]));
    const last = Math.max(...drawn.map((curve) => curve.x.at(-1)));
    const room = (last - first) * 0.01 || 0.5;
    const scaled = (end, otherwise) => (end === null ? otherwise : end / unit);
    axis.range = [scaled(state.from, first - room), scaled(state.to, last + room)];
  }
  return { axis, unit };
}

// The vertical axis. Values that are all the same get room around them, and not from -1 to 1.
export function valueAxis(curves, log) {
  const type = log ? "log" : "linear";
  const [first] = curves.flatMap((curve) => curve.y.find((value) => value !== null) ?? []);
  const isFlat = first !== undefined && curves.every((curve) => curve.y.every((value) => value === first || value === null));
  if (!isFlat || first === 0 || log) return { type };
  const room = Math.abs(first) / 10;
  return { type, range: [first - room, first + room] };
}

export const unitOf = (there) => (state.axis === "time" ? there.unit.seconds : 1);
