// The page: asks what there is, shows the open tab, and does both again when something is new.

import { ask, Failed, listen, login, Lost, Refused } from "./api.js";
import { redrawAll } from "./chart.js";
import { chosenRuns } from "./chosen.js";
import { ClippingView } from "./clipping_view.js";
import { byId, bytes, setText, thousands } from "./dom.js";
import { library } from "./library.js";
import { LossesView } from "./losses_view.js";
import { MetricsView } from "./metrics_view.js";
import { showPickers, startPickers } from "./pickers.js";
import { count, ProblemsView } from "./problems_view.js";
import { SpansView } from "./spans_view.js";
import { begin, change, onChange, state, takeToken } from "./state.js";
import { showTabs, startTabs } from "./tabs.js";
import { readable, startTheme } from "./theme.js";
import { showToolbar, startToolbar } from "./toolbar.js";

const VIEWS = {
  metrics: MetricsView,
  clipping: ClippingView,
  losses: LossesView,
  spans: SpansView,
  problems: ProblemsView,
};
const MOST_TOLD_APART = 7; // runs whose colours were chosen with care; those of more are made
const WAIT = 300; // milliseconds between two questions while the server reads

let there = null;
let view = null;
let opened = "";
let isBusy = false;
let isStale = false;
let hasBegun = false;

// Ask again and show; while that goes on, further calls are one more.
async function refresh({ again = true } = {}) {
  isStale = isStale || again;
  if (isBusy) return;
  isBusy = true;
  try {
    while (isStale) {
      isStale = false;
      await showAll();
    }
    byId("lost").hidden = true;
  } catch (error) {
    failed(error);
  } finally {
    isBusy = false;
  }
}

async function showAll() {
  there = await ask("state");
  library().catch(failed); // to execute it takes long: what is drawn is asked for meanwhile
  if (there.runs?.length > MOST_TOLD_APART) there.colors = there.colors.map(readable);
  if (!hasBegun) {
    begin(there.settings);
    hasBegun = true;
  }
  setText(byId("status"), summary());
  byId("status").classList.toggle("busy", (!there.ready || there.unread > 0) && !there.problem);
  if (!there.ready) {
    setTimeout(refresh, WAIT);
    return;
  }
  if (!there.axes.includes(state.axis) && there.axes.length) change({ axis: there.axes[0] });
  if (!Object.hasOwn(VIEWS, state.tab)) change({ tab: "metrics" });
  document.title = there.runs.length === 1 ? there.runs[0] : `${there.runs.length} runs`;
  showTabs();
  showPickers(there);
  showToolbar(there);
  await showView();
  if (state.tab !== "problems") count().catch(failed);
}

async function showView() {
  if (opened !== state.tab) {
    view?.close();
    byId("view").replaceChildren();
    byId("empty").hidden = true; // what it says is of another tab
    byId("view").classList.toggle("single", ["spans", "problems", "losses"].includes(state.tab));
    view = new VIEWS[state.tab](byId("view"), refresh);
    opened = state.tab;
  }
  const shown = view;
  const hasAny = there.metrics.length > 0 || ["spans", "problems"].includes(state.tab);
  const hasRun = chosenRuns(there).length > 0 || state.tab === "problems" || !there.runs.length;
  const isFilled = hasAny && hasRun && (await view.update(there));
  if (shown !== view) return;
  byId("view").hidden = !isFilled;
  byId("empty").hidden = isFilled;
  setText(byId("empty"), !hasAny ? noMetrics() : hasRun ? view.needs : "Choose a run in the list.");
}

function summary() {
  if (there.problem) return there.problem;
  if (!there.ready) {
    const where = there.paths.join(", ");
    return there.unread ? `Reading ${bytes(there.unread)} …` : `Waiting for the first log in ${where} …`;
  }
  const runs = there.runs.length === 1 ? there.runs[0] : `${thousands(there.runs.length)} runs`;
  const bad = there.left_out ? `, ${thousands(there.left_out)} lines left out that are no records` : "";
  const more = there.unread ? `, reading ${bytes(there.unread)} more …` : "";
  return `${runs}: ${thousands(there.records)} records${bad}${more}`;
}

function noMetrics() {
  return there.records
    ? "These records have no metrics. One needs an object 'measurements' or 'metrics' with numbers in it, or numbers at its top level."
    : "There is no record yet. What is written appears here by itself.";
}

// Say what is wrong; what the page itself has done wrong is for the browser's console as well.
function failed(error) {
  const isLost = error instanceof Lost;
  const isOurs = !isLost && !(error instanceof Refused) && !(error instanceof Failed);
  setText(byId("lost"), isLost ? LOST : isOurs ? `The page has failed: ${error}` : error.message);
  byId("lost").hidden = false;
  if (isOurs) console.error(error);
}

const LOST = "The server does not answer: telemetry view has ended, or the connection is gone. Trying again …";

// A token in the address is exchanged for a cookie, and taken out of it.
async function enter() {
  const token = takeToken();
  if (token !== null) await login(token);
}

async function start() {
  startTheme(() => {
    redrawAll().catch(failed);
    if (there) refresh();
  });
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address has what was chosen behind its #
    byId("main").focus();
  });
  startTabs();
  startPickers();
  startToolbar();
  onChange(() => refresh());
  window.addEventListener("hashchange", () => {
    enter().then(() => {
      begin({});
      refresh();
    }, failed);
  });
  try {
    await enter();
    refresh();
  } catch (error) {
    failed(error);
  }
  listen(() => refresh(), () => refresh()); // which says what is wrong
}

start();
