// Clipping: gradient norms with what clips them, the clip rate, and the scale.

import { ask } from "./api.js";
import { Chart } from "./chart.js";
import { chosenRuns, look } from "./chosen.js";
import { thousands } from "./dom.js";
import { legendOf, linesOf, nameOf, sharedAxis, valueAxis } from "./lines.js";
import { state } from "./state.js";
import { colour } from "./theme.js";

const SHARES = { range: [-0.02, 1.02], tickformat: ".0%" };

export class ClippingView {
  constructor(place) {
    this.charts = {
      norm: new Chart("Gradient norm and threshold"),
      rate: new Chart("Clip rate"),
      scale: new Chart("Scale"),
    };
    place.replaceChildren(...Object.values(this.charts).map((chart) => chart.card));
  }

  get needs() {
    return "No gradient clipper has reported in these runs. clipping.clip_context, or a callback of your framework, reports each clipping.";
  }

  async update(there) {
    if (!there.clipping) return false;
    const { points } = this.charts.norm;
    const told = await ask("clipping", { ...look(points), run: chosenRuns(there), window: state.window });
    const { axis, unit } = sharedAxis(there, told.curves);
    for (const [panel, chart] of Object.entries(this.charts)) {
      const curves = told.curves.filter((curve) => curve.panel === panel);
      const log = state.log && panel !== "rate";
      const lines = linesOf(curves, there, { log });
      if (panel === "norm") lines.push(...told.marks.map(marked));
      await chart.draw(lines, {
        x: axis,
        y: panel === "rate" ? SHARES : valueAxis(curves, log),
        unit,
        legend: () => legendOf(curves, there),
      });
    }
    this.charts.rate.say(told.totals.map((total) => inWords(total, there)).join("\n"));
    return true;
  }

  close() {
    for (const chart of Object.values(this.charts)) chart.forget();
  }
}

function marked(mark, number) {
  const clipped = mark.dry_run ? "would be clipped" : "clipped";
  return {
    type: "scatter",
    mode: "markers",
    x: mark.x,
    y: mark.y,
    name: clipped,
    shown: number === 0 ? clipped : null,
    told: `${thousands(mark.x.length)} points are marked: ${clipped}`,
    hoverinfo: "skip",
    marker: { size: 7, symbol: "circle-open", color: colour("ink"), line: { width: 1.5 } },
  };
}

function inWords({ run, clippings, clipped, dry_run }, there) {
  const share = `${((100 * clipped) / clippings).toFixed(1)} %`;
  const which = there.runs.length > 1 ? `${nameOf({ run }, there)}: ` : "";
  const were = dry_run ? "would have been clipped" : "were clipped";
  return `${which}${thousands(clipped)} of ${thousands(clippings)} steps ${were} (${share}).`;
}
