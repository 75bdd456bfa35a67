// The charts of metrics: one for those that share a unit. Only those in sight are asked for.

import { ask } from "./api.js";
import { Chart } from "./chart.js";
import { legendOf, linesOf, sharedAxis, valueAxis } from "./lines.js";
import { chosenMetrics, chosenRuns, look } from "./chosen.js";
import { state } from "./state.js";

export class MetricsView {
  constructor(place, refresh) {
    this.place = place;
    this.charts = new Map(); // by panel
    this.seen = new Set();
    this.observer = new IntersectionObserver((entries) => this.sighted(entries), { rootMargin: "200px" });
    this.refresh = refresh;
  }

  get needs() {
    return "Choose a metric in the list.";
  }

  async update(there) {
    const panels = this.arrange(there);
    if (!panels.size) return false;
    const inSight = [...panels].filter(([panel]) => this.seen.has(panel));
    const metrics = inSight.flatMap(([, names]) => names);
    if (!metrics.length) return true; // the observer calls again
    const points = Math.max(...inSight.map(([panel]) => this.charts.get(panel).points));
    const curves = await ask("curves", { ...look(points), metric: metrics, run: chosenRuns(there) });
    const { axis, unit } = sharedAxis(there, curves);
    for (const [panel, names] of inSight) {
      const chart = this.charts.get(panel);
      if (!chart) continue; // put away meanwhile
      const mine = curves.filter((curve) => names.includes(curve.metric));
      chart.rename(names.length === 1 ? names[0] : panel);
      await chart.draw(linesOf(mine, there), {
        x: axis,
        y: valueAxis(mine, state.log),
        unit,
        legend: () => legendOf(mine, there),
      });
      chart.say(mine.length ? "" : `No values that have ${state.axis}.`);
    }
    return true;
  }

  // The cards of the panels, in order.
  arrange(there) {
    const panels = new Map();
    const chosen = new Set(chosenMetrics(there));
    for (const { name, panel } of there.metrics) {
      if (chosen.has(name)) panels.set(panel, [...(panels.get(panel) ?? []), name]);
    }
    for (const [panel, chart] of this.charts) if (!panels.has(panel)) this.drop(panel, chart);
    const isNew = [];
    for (const panel of panels.keys()) {
      if (this.charts.has(panel)) continue;
      const chart = new Chart(panel);
      chart.card.dataset.panel = panel;
      this.charts.set(panel, chart);
      isNew.push([panel, chart.card]);
    }
    const cards = [...panels.keys()].map((panel) => this.charts.get(panel).card);
    if (cards.some((card, index) => this.place.children[index] !== card)) this.place.replaceChildren(...cards);
    for (const [panel, card] of isNew) {
      if (card.getBoundingClientRect().top < innerHeight) this.seen.add(panel); // sooner than it is told
      this.observer.observe(card);
    }
    return panels;
  }

  drop(panel, chart) {
    this.observer.unobserve(chart.card);
    this.seen.delete(panel);
    chart.forget();
    chart.card.remove();
    this.charts.delete(panel);
  }

  sighted(entries) {
    let isNew = false;
    for (const { target, isIntersecting } of entries) {
      const { panel } = target.dataset;
      if (isIntersecting && !this.seen.has(panel)) isNew = true;
      if (isIntersecting) this.seen.add(panel);
      else this.seen.delete(panel);
    }
    if (isNew) this.refresh();
  }

  close() {
    this.observer.disconnect();
    for (const chart of this.charts.values()) chart.forget();
  }
}
