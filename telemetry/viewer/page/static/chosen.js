// Which runs and metrics are shown, and how they are looked at.

import { state } from "./state.js";

export function chosenRuns(there) {
  const numbers = there.runs.map((_, number) => number);
  if (state.runs === null) return there.usual;
  return numbers.filter((number) => state.runs.includes(there.runs[number]));
}

export function chosenMetrics(there) {
  if (state.metrics !== null) return state.metrics;
  return there.metrics.filter((metric) => metric.first).map((metric) => metric.name);
}

// The run of those panels that show one only; null where none is chosen.
export function oneRun(there) {
  const runs = chosenRuns(there);
  const named = there.runs.indexOf(state.of);
  return runs.includes(named) ? named : (runs[0] ?? null);
}

export function look(points) {
  return {
    axis: state.axis,
    from: state.from,
    to: state.to,
    points,
    smooth: state.smooth,
    mode: state.mode,
  };
}
