// Keeps the page up to date while somebody looks at it. Every page works without it.
"use strict";
(() => {
  // What goes on is shown more often.
  const every = () => 1000 * Number(document.querySelector("#main [data-every]")?.dataset.every ?? 10);
  const late = 30_000;
  const place = document.getElementById("updated");
  if (!place) return;
  let seen = Date.now();
  let etag = null;
  let paused = sessionStorage.getItem("paused") === "1";

  const button = document.createElement("button");
  button.type = "button";
  button.className = "slim";
  const label = () => { button.textContent = paused ? "Go on" : "Pause"; };
  button.addEventListener("click", () => {
    paused = !paused;
    sessionStorage.setItem("paused", paused ? "1" : "0");
    label();
    if (!paused) update();
  });
  label();
  place.after(" ", button);

  // What somebody types, ticks or has focused stays as it is.
  const busy = () => {
    const main = document.getElementById("main");
    const active = document.activeElement;
    if (active && active !== document.body && active !== main && main.contains(active)) return true;
    if (document.getSelection() && !document.getSelection().isCollapsed) return true;
    return [...main.querySelectorAll("input, textarea")].some(
      (field) => (field.type === "checkbox" ? field.checked !== field.defaultChecked : field.value !== field.defaultValue));
  };

  async function update() {
    if (paused || document.hidden || busy()) return;
    try {
      const headers = etag ? { "If-None-Match": etag } : {};
      const answer = await fetch(location.href, { headers, signal: AbortSignal.timeout(8000) });
      if (answer.status !== 200 && answer.status !== 304) throw new Error(answer.status);
      seen = Date.now();
      place.textContent = "Updated " + new Date().toLocaleTimeString();
      if (answer.status === 304) return;
      etag = answer.headers.get("ETag");
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = fresh.getElementById("main");
      if (!main || busy()) return;
      const opened = [...document.querySelectorAll("#main details")].map((details) => details.open);
      document.getElementById("main").replaceChildren(...main.childNodes);
      document.querySelectorAll("#main details").forEach((details, at) => { details.open = opened[at] ?? details.open; });
      document.title = fresh.title;
    } catch {
      if (Date.now() - seen > late) {
        place.textContent = "Not updated since " + new Date(seen).toLocaleTimeString();
      }
    }
  }
  const goOn = () => setTimeout(() => update().finally(goOn), every());
  goOn();
  document.addEventListener("visibilitychange", update);
})();
