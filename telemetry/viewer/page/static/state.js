// What the reader has chosen, kept in the address, so that it can be shared and gone back to.

const TEXTS = { tab: "metrics", axis: "step", mode: "mean", of: "" };
const NUMBERS = { smooth: 0, window: 100, from: null, to: null, spanFrom: null, spanTo: null };
const FLAGS = { log: false };
const LISTS = { runs: null, metrics: null }; // null: the usual ones

// What a value may be; another one in an address is as none.
const IS_ALLOWED = {
  axis: (value) => ["step", "time", "epoch"].includes(value),
  mode: (value) => ["mean", "centered", "ema", "median"].includes(value),
  smooth: (value) => Number.isInteger(value) && value >= 0 && value <= 100000,
  window: (value) => Number.isInteger(value) && value >= 1 && value <= 100000,
};

const listeners = [];
export const state = { ...TEXTS, ...NUMBERS, ...FLAGS, ...LISTS };
let defaults = { ...TEXTS, ...NUMBERS, ...FLAGS };

export function onChange(listener) {
  listeners.push(listener);
}

export function change(changes) {
  Object.assign(state, changes);
  const hash = written();
  if (hash !== location.hash.slice(1)) {
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }
  for (const listener of listeners) listener(Object.keys(changes));
}

// What the command line has said is where the page begins, unless the address says otherwise.
export function begin(settings) {
  defaults = { ...defaults, ...settings };
  const given = new URLSearchParams(location.hash.slice(1));
  Object.assign(state, defaults, LISTS, read(given));
}

export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1));
  const token = given.get("token");
  if (token !== null) {
    given.delete("token");
    history.replaceState(null, "", given.size ? `#${given}` : location.pathname);
  }
  return token;
}

function read(given) {
  const found = {};
  for (const name of Object.keys(TEXTS)) if (given.has(name)) found[name] = given.get(name);
  for (const name of Object.keys(FLAGS)) if (given.has(name)) found[name] = given.get(name) === "1";
  for (const name of Object.keys(LISTS)) {
    if (given.has(name)) found[name] = given.getAll(name).filter((each) => each !== "");
  }
  for (const name of Object.keys(NUMBERS)) {
    const number = Number(given.get(name) || "none");
    if (Number.isFinite(number)) found[name] = number;
  }
  for (const [name, isAllowed] of Object.entries(IS_ALLOWED)) {
    if (name in found && !isAllowed(found[name])) delete found[name];
  }
  for (const [from, to] of [["from", "to"], ["spanFrom", "spanTo"]]) {
    if (found[from] >= found[to]) for (const name of [from, to]) delete found[name];
  }
  return found;
}

function written() {
  const hash = new URLSearchParams();
  for (const name of [...Object.keys(TEXTS), ...Object.keys(NUMBERS)]) {
    if (state[name] !== defaults[name] && state[name] !== null) hash.set(name, state[name]);
  }
  for (const name of Object.keys(FLAGS)) {
    if (state[name] !== defaults[name]) hash.set(name, state[name] ? "1" : "0");
  }
  for (const name of Object.keys(LISTS)) {
    if (state[name] === null) continue;
    for (const each of state[name].length ? state[name] : [""]) hash.append(name, each);
  }
  return hash.toString();
}
