// Elements, made without HTML: whatever a log has in it is text.

export const byId = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  const { dataset = {}, ...others } = properties;
  Object.assign(made.dataset, dataset);
  for (const [key, value] of Object.entries(others)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// Change an element's text only if it is another, so that nothing is read out twice.
export function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

export const thousands = (number) => number.toLocaleString("en");

export function bytes(number) {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  const power = Math.min(Math.floor(Math.log10(Math.max(number, 1)) / 3), units.length - 1);
  return `${(number / 1000 ** power).toFixed(power > 1 ? 1 : 0)} ${units[power]}`;
}
