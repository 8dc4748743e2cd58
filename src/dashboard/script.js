// Keeps the page up to date while somebody looks at it, and tells times as their clock does. Every page
// works without it.
"use strict";
(() => {
  const late = 30_000;
  // What goes on is shown more often.
  const every = () => 1000 * Number(document.querySelector("#main [data-every]")?.dataset.every ?? 10);

  // --- times, in the zone of whoever reads them --------------------------------------------------------

  const parts = {
    short: { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
    day: { weekday: "short", hour: "2-digit", minute: "2-digit" },
    minute: { hour: "2-digit", minute: "2-digit" },
    second: { hour: "2-digit", minute: "2-digit", second: "2-digit" },
  };
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  function told(at, as) {
    const format = new Intl.DateTimeFormat("en-GB", { ...parts[as], hourCycle: "h23" });
    const part = Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, value]));
    const clock = [part.hour, part.minute, part.second].filter(Boolean).join(":");
    return [part.weekday, part.day, part.month?.slice(0, 3), clock].filter(Boolean).join(" ");
  }
  function localize(root) {
    for (const time of root.querySelectorAll("[data-as]")) {
      const at = new Date(time.getAttribute("datetime"));
      if (!Number.isNaN(at.getTime())) time.textContent = told(at, time.dataset.as);
    }
  }
  localize(document);
  if (zone && zone !== "UTC") document.getElementById("zone").textContent = `Times are of ${zone}.`;

  // --- what somebody writes survives a session that is over --------------------------------------------

  const draft = (field) => `draft ${location.pathname} ${field.id}`;
  const drafts = () => document.querySelectorAll("#main :is(textarea, input[name=why])");
  const sent = new URLSearchParams(location.search).has("done");
  for (const field of drafts()) {
    const kept = sessionStorage.getItem(draft(field));
    if (sent) sessionStorage.removeItem(draft(field));
    else if (kept && !field.value) field.value = kept;
  }
  document.addEventListener("input", ({ target }) => {
    if (!target.matches?.("#main :is(textarea, input[name=why])")) return;
    if (target.value) sessionStorage.setItem(draft(target), target.value);
    else sessionStorage.removeItem(draft(target));
  });

  const place = document.getElementById("updated");
  if (!place) return;

  // --- changing in place -------------------------------------------------------------------------------

  // A form is the same one if it does the same.
  const key = (node) => node.id || node.dataset?.key || (node.nodeName === "FORM" && node.getAttribute("action")) || "";
  // What this script has put between the page's own.
  const next = (node) => {
    let after = node?.nextSibling;
    while (after?.isOurs) after = after.nextSibling;
    return after ?? null;
  };
  const alike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName && key(one) === key(other);
  const edited = (field) =>
    field.type === "checkbox" || field.type === "radio" ? field.checked !== field.defaultChecked
      : field.type !== "hidden" && field.value !== field.defaultValue;
  // Somebody is at it: it has the focus, or what they have typed or ticked.
  const inUse = (node) =>
    node.nodeType === Node.ELEMENT_NODE &&
    (node.contains(document.activeElement) || [...node.querySelectorAll("input, textarea")].some(edited));

  function morph(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    // What is opened stays open, and what is closed closed.
    const own = (name) => name === "open" || name === "autofocus";
    for (const { name } of [...old.attributes]) {
      if (!own(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (!own(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    if (old.matches("[data-lines]")) lines(old, fresh);
    else children(old, fresh);
  }

  function children(old, fresh) {
    const keyed = new Map([...old.children].filter(key).map((child) => [key(child), child]));
    let at = old.firstChild?.isOurs ? next(old.firstChild) : old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const known = key(wanted) ? keyed.get(key(wanted)) : at;
      if (known && alike(known, wanted)) {
        if (known === at) at = next(at);
        else old.insertBefore(known, at);
        morph(known, wanted);
      } else {
        old.insertBefore(document.importNode(wanted, true), at);
      }
    }
    while (at) {
      const after = next(at);
      if (!inUse(at)) at.remove();
      at = after;
    }
  }

  // A list does not move under the pointer: its lines change where they stand, and others come when they
  // are asked for.
  function lines(old, fresh) {
    const wanted = new Map([...fresh.children].map((line) => [key(line), line]));
    for (const line of [...old.children]) {
      const now = wanted.get(key(line));
      line.classList.toggle("gone", !now);
      if (now) morph(line, now);
      else line.querySelector("[data-l=State]")?.replaceChildren("not in this list any more");
      wanted.delete(key(line));
    }
    document.getElementById("more")?.remove();
    const gone = old.querySelector(":scope > .gone");
    if (wanted.size === 0 && !gone) return;
    const more = document.createElement("p");
    more.id = "more";
    more.isOurs = true;
    const count = wanted.size;
    more.textContent = count === 0 ? "Some have left this list. " : count === 1 ? "1 more row " : `${count} more rows `;
    const show = document.createElement("button");
    show.type = "button";
    show.className = "slim";
    show.textContent = "Show";
    show.addEventListener("click", () => {
      more.remove();
      children(old, fresh);
      old.querySelectorAll(":scope > .gone").forEach((line) => line.remove());
    });
    more.append(show);
    old.closest("table").after(more);
  }

  // The focus stays where it is, also where what has it was moved.
  function bring(main, fresh) {
    const active = document.activeElement;
    const [from, to] = [active?.selectionStart, active?.selectionEnd];
    children(main, fresh);
    if (active && active !== document.activeElement && active.isConnected) {
      active.focus({ preventScroll: true });
      if (from !== undefined && from !== null) active.setSelectionRange(from, to);
    }
  }

  // --- asking --------------------------------------------------------------------------------------------

  let seen = new Date(), etag = null;
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

  // Told to those who do not see it, and only when it says something else.
  const voice = document.getElementById("voice");
  const headline = (root) => [...root.querySelectorAll(".banner strong")].map((words) => words.textContent.trim()).join(" ");
  let said = headline(document);

  const clock = (at) => told(at, "second");
  function stale(text) {
    const main = document.getElementById("main");
    main.classList.toggle("stale", Boolean(text));
    document.getElementById("silent")?.remove();
    if (!text) return;
    const silent = document.createElement("p");
    silent.id = "silent";
    silent.className = "why";
    silent.setAttribute("role", "alert");
    silent.textContent = text;
    main.before(silent);
  }
  function signedOut() {
    place.textContent = "You are signed out. ";
    const again = document.createElement("a");
    again.href = location.href;
    again.textContent = "Sign in";
    place.append(again);
  }

  async function update() {
    if (paused || document.hidden) return;
    // Whatever is marked may be about to be copied.
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed) return;
    let answer, text;
    try {
      const headers = etag ? { "If-None-Match": etag } : {};
      answer = await fetch(location.href, { headers, signal: AbortSignal.timeout(8000) });
      text = await answer.text();
    } catch {
      answer = null;
    }
    if (answer?.status === 503) {
      stale(`The database has not answered since ${clock(seen)}. What stands here is from then.`);
      return;
    }
    const fresh = answer?.status === 304 ? null : new DOMParser().parseFromString(text ?? "", "text/html");
    const main = fresh?.getElementById("main");
    if (answer && (answer.status === 401 || answer.status === 403 || (answer.status === 200 && !main))) {
      signedOut();
      return;
    }
    if (!answer || (answer.status !== 304 && answer.status !== 200)) {
      if (Date.now() - seen.getTime() > late) place.textContent = `Not updated since ${clock(seen)}`;
      return;
    }
    seen = new Date();
    stale("");
    place.textContent = `Updated ${clock(seen)}`;
    if (!main) return;
    etag = answer.headers.get("ETag");
    localize(fresh);
    bring(document.getElementById("main"), main);
    document.title = fresh.title;
    const says = headline(document);
    if (says !== said) voice.textContent = said = says;
  }
  const goOn = () => setTimeout(() => update().finally(goOn), every());
  goOn();
  document.addEventListener("visibilitychange", () => { update(); });
})();
