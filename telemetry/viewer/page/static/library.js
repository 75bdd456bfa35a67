// Plotly, which draws the charts. To execute it takes a browser a second, in which it does nothing
// else: so what is drawn is asked for before.

import { Failed } from "./api.js";

let loading = null;

export function library() {
  loading ??= new Promise((loaded, failed) => {
    const script = document.createElement("script");
    script.src = document.getElementById("library").href;
    script.onload = () => loaded(window.Plotly);
    script.onerror = () => {
      loading = null; // another draw tries again
      script.remove();
      failed(new Failed("What draws the charts could not be loaded from the server. Trying again with the next change …"));
    };
    document.head.append(script);
  });
  return loading;
}
