// The tabs, as https://www.w3.org/WAI/ARIA/apg/patterns/tabs/ has them.

import { byId } from "./dom.js";
import { change, state } from "./state.js";

const tabs = () => [...byId("tabs").querySelectorAll("[role=tab]")];
const nameOf = (tab) => tab.id.slice("tab-".length);

export function startTabs() {
  for (const tab of tabs()) tab.addEventListener("click", () => change({ tab: nameOf(tab) }));
  byId("tabs").addEventListener("keydown", (event) => {
    const all = tabs();
    const here = all.indexOf(document.activeElement);
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || here < 0) return;
    event.preventDefault();
    const next = all[(to + all.length) % all.length];
    next.focus();
    change({ tab: nameOf(next) });
  });
}

export function showTabs() {
  for (const tab of tabs()) {
    const isOpen = nameOf(tab) === state.tab;
    tab.setAttribute("aria-selected", isOpen);
    tab.tabIndex = isOpen ? 0 : -1;
    if (isOpen) byId("view").setAttribute("aria-labelledby", tab.id);
  }
}
