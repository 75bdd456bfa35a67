// What the page asks of the server that it came from.

const AGAIN = 3000; // milliseconds until a server that has refused to tell of changes is asked again

export class Refused extends Error {} // it needs a token
export class Failed extends Error {} // it has said why
export class Lost extends Error {} // it has said nothing

async function fetched(...question) {
  let answer;
  try {
    answer = await fetch(...question);
  } catch (error) {
    throw new Lost("no answer", { cause: error });
  }
  if (answer.status === 401) throw new Refused(await answer.text());
  if (!answer.ok) throw new Failed(`${answer.status}: ${await answer.text()}`);
  return answer;
}

export async function ask(what, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined) query.append(name, each);
    }
  }
  const answer = await fetched(`api/${what}?${query}`);
  return answer.json();
}

export async function login(token) {
  const headers = { authorization: `Bearer ${token}` };
  await fetched("api/login", { method: "POST", headers });
}

// Hear of each change, as long as the page is seen: a browser has few connections to one server, of
// which tabs in the background would hold all. It connects again by itself when the server is back.
export function listen(changed, lost) {
  let source = null;
  let again = 0;
  const close = () => {
    clearTimeout(again);
    source?.close();
    source = null;
  };
  const open = () => {
    close();
    if (document.hidden) return;
    source = new EventSource("api/events");
    source.onmessage = changed;
    source.onerror = () => {
      lost();
      if (source?.readyState === EventSource.CLOSED) again = setTimeout(open, AGAIN);
    };
  };
  document.addEventListener("visibilitychange", () => {
    open();
    if (!document.hidden) changed();
  });
  open();
}
