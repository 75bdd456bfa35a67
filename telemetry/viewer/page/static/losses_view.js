// A composed loss: its terms on top of each other, and how much of the gradient each makes.

import { ask } from "./api.js";
import { Chart, escaped } from "./chart.js";
import { look, oneRun } from "./chosen.js";
import { linesOf, sharedAxis, short } from "./lines.js";
import { state } from "./state.js";
import { colour } from "./theme.js";

export class LossesView {
  constructor(place) {
    this.terms = new Chart("Loss by its terms", { height: 320 });
    this.shares = new Chart("Gradient norm of each term, by that of the total");
    place.replaceChildren(this.terms.card, this.shares.card);
  }

  get needs() {
    return "No composed loss has reported in these runs. regularizers.compute reports the loss and each regularizer.";
  }

  async update(there) {
    if (!there.losses) return false;
    const told = await ask("losses", { ...look(this.terms.points), run: oneRun(there) });
    if (!told.total && !told.terms.length && !told.shares.length && state.from === null && state.to === null) return false;
    const { axis, unit } = sharedAxis(there, [...told.terms, ...told.shares]);
    const bars = told.terms.map((term, number) => stack(term, told.width, there.colors[number % there.colors.length]));
    if (told.total) bars.push(total(told.total));
    await this.terms.draw(bars, { x: axis, unit, barmode: "relative", bargap: 0 });
    this.terms.say(bars.length ? "Each stack is the mean over its stretch of the axis. What lowers the loss is below zero." : "No values.");
    const names = told.terms.map((term) => term.name);
    const lines = told.shares.map((share) => ({ ...share, metric: share.name, run: 0 }));
    // The colour of a term is the same in both charts.
    const colors = lines.map((line) => there.colors[Math.max(names.indexOf(line.name), 0) % there.colors.length]);
    await this.shares.draw(linesOf(lines, { runs: [""], colors }), { x: axis, y: { tickformat: ".0%", rangemode: "tozero" }, unit });
    this.shares.say(lines.length ? "" : "Gradient norms were not tracked: compute(..., track_grad_norms=True) does.");
    return true;
  }

  close() {
    this.terms.forget();
    this.shares.forget();
  }
}

function stack({ name, x, y }, width, color) {
  return {
    type: "bar",
    x,
    y,
    width,
    name: escaped(name),
    shown: name,
    told: `${name} ends at ${short(y.at(-1))}`,
    marker: { color, line: { width: 0 } },
  };
}

function total(curve) {
  return {
    type: "scatter",
    mode: "lines",
    x: curve.x,
    y: curve.y,
    name: "total",
    shown: "total",
    told: `total ends at ${short(curve.y.at(-1))}`,
    line: { color: colour("ink"), width: 1.4 },
  };
}
