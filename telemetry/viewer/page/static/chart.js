// One chart: a card with a title, a legend and what Plotly draws.

import { element, setText } from "./dom.js";
import { library } from "./library.js";
import { change } from "./state.js";
import { colour } from "./theme.js";

const SVG = "http://www.w3.org/2000/svg";
const DASHES = { solid: "", dash: "6 4", dot: "2 3", dashdot: "6 3 2 3" };
const CONFIG = { displaylogo: false, responsive: true, displayModeBar: false, scrollZoom: false, doubleClick: false };

const shown = new Set(); // the charts that share their axis

// Plotly takes some HTML in names and texts: what a log calls something is none.
export const escaped = (text) =>
  String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

export class Chart {
  constructor(title, { axis = "shared", height = null } = {}) {
    this.title = element("h3", { textContent: title });
    this.legend = element("div", { className: "legend" });
    this.note = element("p", { className: "note", hidden: true });
    this.place = element("div", { className: "chart", role: "img" });
    if (height) this.place.style.height = `${height}px`;
    this.card = element("section", { className: "card", "aria-label": title }, this.title,
      this.legend, this.place, this.note);
    this.axis = axis;
    this.isDrawn = false;
    this.isForgotten = false;
  }

  get width() {
    return Math.max(this.place.clientWidth, 200);
  }

  // How many points such a chart shows: two for each pixel across, in steps, so that the same is
  // asked for when the window is a little wider.
  get points() {
    return Math.ceil((this.width * 2) / 200) * 200;
  }

  rename(title) {
    setText(this.title, title);
    this.card.setAttribute("aria-label", title);
  }

  say(text) {
    setText(this.note, text);
    this.note.hidden = !text;
  }

  async draw(traces, { x = {}, y = {}, unit = 1, legend = () => [], ...others } = {}) {
    this.traces = traces;
    this.options = { x, y, unit, legend, ...others };
    this.explain(legend());
    const Plotly = await library();
    if (this.traces !== traces || this.isForgotten) return; // it came too late
    const axes = { gridcolor: colour("grid"), zerolinecolor: colour("line"), linecolor: colour("line") };
    const layout = {
      margin: { l: 58, r: 14, t: 8, b: 38 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("ink"), size: 12 },
      showlegend: false,
      hovermode: "x unified",
      hoverlabel: { bgcolor: colour("paper"), bordercolor: colour("line"), namelength: -1 },
      dragmode: "zoom",
      xaxis: { ...axes, exponentformat: "none", separatethousands: true, ...x },
      yaxis: { ...axes, fixedrange: true, exponentformat: "power", automargin: true, ...y },
      ...others,
    };
    Plotly.react(this.place, traces, layout, CONFIG);
    this.listen();
  }

  async redraw() {
    if (this.isDrawn) await this.draw(this.traces, this.options);
  }

  // What a reader who does not see the picture is told.
  explain(legend) {
    const told = this.traces.filter((trace) => trace.told).map((trace) => trace.told);
    this.place.setAttribute("aria-label", `${this.title.textContent}: ${told.join("; ") || "no values"}`);
    const named = [...legend, ...this.traces.filter((trace) => trace.shown)];
    this.legend.replaceChildren(...named.map((trace) => element("span", {}, sample(trace), trace.shown)));
  }

  listen() {
    if (this.isDrawn) return;
    this.isDrawn = true;
    shown.add(this);
    this.place.on("plotly_relayout", (event) => this.zoomed(event));
    this.place.on("plotly_doubleclick", () => this.zoomed({ "xaxis.autorange": true }));
    if (this.axis !== "shared") return;
    this.place.on("plotly_hover", (event) => hoverAll(this, event.xvals?.[0] ?? event.points[0].x));
    this.place.on("plotly_unhover", () => hoverAll(this, null));
  }

  zoomed(event) {
    const [from, to] = this.axis === "spans" ? ["spanFrom", "spanTo"] : ["from", "to"];
    const range = event["xaxis.range"] ?? [event["xaxis.range[0]"], event["xaxis.range[1]"]];
    const { unit } = this.options;
    if (event["xaxis.autorange"]) change({ [from]: null, [to]: null });
    else if (range[0] !== undefined) change({ [from]: range[0] * unit, [to]: range[1] * unit });
  }

  forget() {
    shown.delete(this);
    if (this.isDrawn) Plotly.purge(this.place);
    this.isDrawn = false;
    this.isForgotten = true;
  }
}

export async function redrawAll() {
  await Promise.all([...shown].map((chart) => chart.redraw()));
}

let waiting = 0;

function hoverAll(source, x) {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => {
    for (const chart of shown) {
      if (chart === source || chart.axis !== "shared") continue;
      if (x === null) Plotly.Fx.unhover(chart.place);
      else Plotly.Fx.hover(chart.place, { xval: x });
    }
  });
}

function sample(trace) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("width", "22");
  picture.setAttribute("height", "6");
  picture.setAttribute("aria-hidden", "true");
  const color = trace.line?.color ?? trace.marker?.color;
  const isPoint = trace.mode === "markers";
  const drawn = document.createElementNS(SVG, isPoint ? "circle" : "line");
  const dash = DASHES[trace.line?.dash ?? "solid"];
  const attributes = isPoint
    ? { cx: 11, cy: 3, r: 3, fill: color }
    : { x1: 0, y1: 3, x2: 22, y2: 3, "stroke-width": 3, stroke: color, "stroke-dasharray": dash };
  for (const [name, value] of Object.entries(attributes)) drawn.setAttribute(name, value);
  picture.append(drawn);
  return picture;
}
