// The lists in which runs and metrics are chosen.

import { chosenMetrics, chosenRuns } from "./chosen.js";
import { byId, element, setText } from "./dom.js";
import { change, state } from "./state.js";

const FEW = 6; // so many are found without a search, and a group of so few need not be folded

let there = null;
let made = "";

export function startPickers() {
  byId("run-search").addEventListener("input", () => search("runs", byId("run-search").value));
  byId("metric-search").addEventListener("input", () => search("metrics", byId("metric-search").value));
  byId("metrics-usual").addEventListener("click", () => change({ metrics: null }));
  byId("metrics-none").addEventListener("click", () => change({ metrics: [] }));
  if (matchMedia("(max-width: 760px)").matches) byId("side").open = false;
}

// Make the lists anew if there are others, and tick what is chosen.
export function showPickers(now) {
  there = now;
  const names = JSON.stringify([now.runs, now.colors, now.metrics.map((metric) => metric.name)]);
  if (names !== made) {
    made = names;
    byId("runs").replaceChildren(...now.runs.map(runBox));
    byId("metrics").replaceChildren(...groups(now.metrics).map(groupBox));
    byId("run-search").hidden = now.runs.length <= FEW;
    search("metrics", byId("metric-search").value);
    search("runs", byId("run-search").value);
  }
  const shown = chosenRuns(now).length;
  const isCut = state.runs === null && shown < now.runs.length;
  setText(byId("runs-shown"), isCut ? `${shown} of ${now.runs.length} runs are shown: those that began last.` : "");
  tick("runs", new Set(chosenRuns(now).map((number) => now.runs[number])));
  tick("metrics", new Set(chosenMetrics(now)));
}

function runBox(run, number) {
  const swatch = element("span", { className: "swatch", hidden: there.runs.length === 1 });
  swatch.style.background = there.colors[number];
  return box(run, swatch, () => toggle("runs", run, chosenRuns(there).map((each) => there.runs[each])));
}

function groupBox([prefix, names]) {
  const boxes = names.map((name) => box(name, "", () => toggle("metrics", name, chosenMetrics(there))));
  const group = element("details", {}, element("summary", { textContent: `${prefix} (${names.length})` }), ...boxes);
  const chosen = new Set(chosenMetrics(there));
  group.open = names.length <= FEW || names.some((name) => chosen.has(name));
  return group;
}

function box(name, before, changed) {
  const input = element("input", { type: "checkbox", dataset: { name } });
  input.addEventListener("change", changed);
  return element("label", { dataset: { name } }, input, before, element("span", { textContent: name }));
}

function toggle(list, name, chosen) {
  const others = chosen.filter((each) => each !== name);
  change({ [list]: others.length === chosen.length ? [...chosen, name] : others });
}

function tick(list, chosen) {
  for (const input of byId(list).querySelectorAll("input")) input.checked = chosen.has(input.dataset.name);
}

function groups(metrics) {
  const found = new Map();
  for (const { name } of metrics) {
    const end = name.includes("[") ? name.indexOf("[") : name.lastIndexOf(".");
    const prefix = name.slice(0, Math.max(end, 0)) || "others";
    found.set(prefix, [...(found.get(prefix) ?? []), name]);
  }
  return [...found];
}

function search(list, text) {
  const wanted = text.toLowerCase().replaceAll("/", ".").split(/\s+/);
  for (const label of byId(list).querySelectorAll("label")) {
    const name = label.dataset.name.toLowerCase().replaceAll("/", ".");
    label.hidden = !wanted.every((word) => name.includes(word));
  }
  for (const group of byId(list).querySelectorAll("details")) {
    const found = group.querySelector("label:not([hidden])");
    group.hidden = !found;
    if (text && !("wasOpen" in group.dataset)) group.dataset.wasOpen = group.open ? "1" : "";
    if (text && found) group.open = true;
    if (text || !("wasOpen" in group.dataset)) continue;
    group.open = group.dataset.wasOpen === "1";
    delete group.dataset.wasOpen;
  }
  const none = ![...byId(list).querySelectorAll("label")].some((label) => !label.hidden);
  setText(byId("news"), text && none ? `No name has ${text} in it.` : "");
}
