// Light and dark: as the system has it, until the reader chooses.

import { byId } from "./dom.js";

const KEY = "trainbus-theme";
const LEAST_CONTRAST = 3;
const system = matchMedia("(prefers-color-scheme: dark)");

export function startTheme(changed) {
  const apply = () => {
    const theme = chosen() ?? (system.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    const other = theme === "dark" ? "Light" : "Dark";
    byId("theme").textContent = other;
    byId("theme").setAttribute("aria-label", `${other} colours`);
    changed();
  };
  system.addEventListener("change", apply);
  byId("theme").addEventListener("click", () => {
    keep(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  });
  apply();
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Black or white, whichever is read better on a colour.
export const inkOn = (color) => (luminance(partsOf(color)) > 0.179 ? "#000000" : "#ffffff");

// A colour of a line, mixed with the ink until it stands out from the paper of the theme:
// https://www.w3.org/TR/WCAG22/#non-text-contrast
export function readable(color) {
  const [paper, ink] = ["paper", "ink"].map((name) => partsOf(colour(name)));
  const line = partsOf(color);
  for (let share = 0; share <= 1; share += 0.05) {
    const mixed = line.map((part, index) => Math.round(part + (ink[index] - part) * share));
    if (contrast(mixed, paper) >= LEAST_CONTRAST) {
      return `#${mixed.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
    }
  }
  return colour("ink");
}

const partsOf = (color) => [1, 3, 5].map((start) => Number.parseInt(color.slice(start, start + 2), 16));

// https://www.w3.org/TR/WCAG22/#dfn-relative-luminance
function luminance(parts) {
  const [red, green, blue] = parts
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

let unkept = null; // where the browser keeps nothing, for as long as the page is open

function chosen() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return unkept;
  }
}

function keep(theme) {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    unkept = theme;
  }
}
