// The controls above the charts.

import { oneRun, chosenRuns } from "./chosen.js";
import { byId, element, setText } from "./dom.js";
import { unitOf } from "./lines.js";
import { change, state } from "./state.js";

const WIDEST = 2000; // points of smoothing at the slider's end
const WINDOWS = windows(); // that the slider has, in steps that grow

let there = null;

export function startToolbar() {
  byId("smooth").max = WINDOWS.length - 1;
  byId("toolbar").addEventListener("submit", (event) => event.preventDefault());
  for (const name of ["axis", "mode"]) {
    byId(name).addEventListener("change", () => {
      change(name === "axis" ? { axis: byId("axis").value, from: null, to: null } : { mode: byId("mode").value });
    });
  }
  byId("smooth").addEventListener("input", () => change({ smooth: WINDOWS[byId("smooth").value] }));
  byId("log").addEventListener("change", () => change({ log: byId("log").checked }));
  byId("window").addEventListener("change", () => {
    change({ window: Math.min(Math.max(Math.round(byId("window").valueAsNumber) || 100, 1), 100000) });
  });
  byId("one-run").addEventListener("change", () => change({ of: byId("one-run").value }));
  for (const name of ["from", "to"]) byId(name).addEventListener("change", () => typed(name));
  byId("reset").addEventListener("click", () => {
    for (const name of ["from", "to"]) byId(name).setCustomValidity("");
    change({ [ends().from]: null, [ends().to]: null });
  });
}

export function showToolbar(now) {
  there = now;
  for (const control of document.querySelectorAll("[data-for]")) {
    control.hidden = !control.dataset.for.split(" ").includes(state.tab);
  }
  for (const option of byId("axis").options) option.disabled = !now.axes.includes(option.value);
  byId("axis").value = state.axis;
  byId("mode").value = state.mode;
  if (document.activeElement !== byId("smooth")) byId("smooth").value = placeOf(state.smooth);
  setText(byId("smooth-shown"), state.smooth > 1 ? `${state.smooth} points` : "off");
  byId("smooth").setAttribute("aria-valuetext", byId("smooth-shown").textContent);
  byId("log").checked = state.log;
  if (document.activeElement !== byId("window")) byId("window").value = state.window;
  showRuns(now);
  const { from, to, unit, name } = ends();
  setText(byId("range-unit"), name);
  for (const [id, value] of [["from", state[from]], ["to", state[to]]]) {
    if (document.activeElement !== byId(id)) byId(id).value = value === null ? "" : Number((value / unit).toPrecision(8));
  }
}

function showRuns(now) {
  const runs = chosenRuns(now).map((number) => now.runs[number]);
  if (runs.length < 2) byId("of-run").hidden = true;
  const options = byId("one-run").options;
  if (runs.length !== options.length || runs.some((run, n) => options[n].value !== run)) {
    byId("one-run").replaceChildren(...runs.map((run) => element("option", { value: run, textContent: run })));
  }
  byId("one-run").value = now.runs[oneRun(now)] ?? "";
}

// The ends of the axis of the open tab, as the state has them.
function ends() {
  if (state.tab === "spans") return { from: "spanFrom", to: "spanTo", unit: 1, name: "Seconds" };
  const name = state.axis === "time" ? `Time (${there?.unit.name ?? "seconds"})` : state.axis[0].toUpperCase() + state.axis.slice(1);
  return { from: "from", to: "to", unit: there ? unitOf(there) : 1, name };
}

// Both ends are looked at, whichever was typed: they have to fit each other.
function typed(name) {
  const [from, to] = ["from", "to"].map((each) => read(each));
  const isTurned = from !== null && to !== null && from >= to;
  for (const [id, value] of [["from", from], ["to", to]]) {
    byId(id).setCustomValidity(
      Number.isNaN(value) ? "A number, or nothing for the whole run."
        : isTurned && id === name ? "The range has to begin before it ends." : "",
    );
  }
  if (!byId(name).reportValidity()) return;
  const { unit, ...names } = ends();
  const scaled = (value) => (value === null || Number.isNaN(value) ? null : value * unit);
  change({ [names[name]]: scaled(name === "from" ? from : to) });
}

// What stands in a field: a number, null for nothing, NaN for anything else.
function read(name) {
  const text = byId(name).value.replaceAll(",", "").trim();
  if (text === "") return null;
  return Number.isFinite(Number(text)) ? Number(text) : Number.NaN;
}

function windows() {
  const all = [...Array(101).keys()].map((place) => Math.round(WIDEST ** (place / 100)) + 1);
  return [0, ...new Set(all)];
}

// The place of the widest that is no wider; beyond the end the slider stays at its end.
function placeOf(smooth) {
  return Math.max(WINDOWS.findLastIndex((each) => each <= smooth), 0);
}
