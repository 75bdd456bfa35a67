// Alerts and failures: the latest first, and news of them to whoever does not see the list.

import { ask } from "./api.js";
import { byId, element, setText, thousands } from "./dom.js";

let last = null; // the row of the latest that was told

// How many there are, on the tab, whichever is open.
export async function count() {
  const told = await ask("problems");
  setText(byId("problem-count"), told.alarms ? thousands(told.alarms) : "");
  const isNew = (problem) => problem.severity !== "info" && problem.row > last;
  if (last !== null) announce(told.problems.filter(isNew));
  last = told.last;
  return told;
}

function announce(news) {
  if (!news.length) return;
  const more = news.length > 1 ? ` And ${thousands(news.length - 1)} more.` : "";
  setText(byId("news"), `${news[0].kind}: ${news[0].text}${more}`);
}

export class ProblemsView {
  constructor(place) {
    this.list = element("ol", { className: "problems" });
    this.note = element("p", { className: "note" });
    this.rows = "";
    place.replaceChildren(this.list, this.note);
  }

  get needs() {
    return "No alert, failure or exception was recorded. telemetry.alerts.attach(...) watches a run.";
  }

  async update(there) {
    const told = await count();
    if (!told.count) return false;
    const rows = told.problems.map((problem) => `${problem.run} ${problem.row}`).join();
    if (rows !== this.rows) this.list.replaceChildren(...told.problems.map((problem) => item(problem, there)));
    this.rows = rows;
    const isCut = told.count > told.problems.length;
    setText(this.note, isCut ? `The latest ${thousands(told.problems.length)} of ${thousands(told.count)}.` : "");
    return true;
  }

  close() {}
}

function item(problem, there) {
  const where = [];
  if (there.runs.length > 1) where.push(problem.run);
  if (problem.step !== null) where.push(`step ${thousands(problem.step)}`);
  if (problem.time !== null) where.push(new Date(problem.time * 1000).toLocaleString());
  return element("li", { className: problem.severity },
    element("span", { className: "what", textContent: problem.kind }),
    element("span", { className: "where", textContent: where.join(" · ") }),
    element("div", { className: "text", textContent: problem.text }));
}
