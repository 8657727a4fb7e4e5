// Turns times to the reader's zone, and replaces parts of a page while it is looked at. Pages work without it.
"use strict";

const two = (number) => String(number).padStart(2, "0");

// An ISO 8601 time in the reader's zone, with its offset; the element's title keeps the exact one in UTC.
function local(date) {
  const ahead = -date.getTimezoneOffset();
  const zone = (ahead < 0 ? "-" : "+") + two(Math.trunc(Math.abs(ahead) / 60)) + ":" + two(Math.abs(ahead) % 60);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ` +
    `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}${zone}`;
}

function showTimes(root) {
  for (const each of root.querySelectorAll("time[datetime]")) {
    const date = new Date(each.dateTime);
    if (!Number.isNaN(date.getTime())) each.textContent = local(date);
  }
}

// What a reader has done to a part outlives its replacement: open details, the scrolled place, the focus.
const places = (root) => [...root.querySelectorAll("details, .scroll, pre")];
const focusable = (root) => [...root.querySelectorAll("a, button, input, select, textarea, summary, [tabindex]")];

function replace(part, html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").body;
  showTimes(fresh);
  const before = places(part);
  const at = focusable(part).indexOf(document.activeElement);
  const scrolled = before.map((each) => [each.tagName, each.open, each.scrollLeft, each.scrollTop]);
  part.replaceChildren(...fresh.childNodes);
  places(part).forEach((each, index) => {
    const [tag, open, left, top] = scrolled[index] || [];
    if (tag !== each.tagName) return;
    if (tag === "DETAILS") each.open = open;
    each.scrollLeft = left;
    each.scrollTop = top;
  });
  if (at >= 0 && focusable(part)[at]) focusable(part)[at].focus({ preventScroll: true });
}

// A form that is being filled in, or a text that is being selected, is left alone.
function isInUse(part) {
  const active = document.activeElement;
  if (active && part.contains(active) && /^(INPUT|SELECT|TEXTAREA)$/.test(active.tagName)) return true;
  const selection = document.getSelection();
  return Boolean(selection && !selection.isCollapsed && part.contains(selection.anchorNode));
}

const UNREACHABLE = "The server cannot be reached.";

// Says why what is shown is old, and as of when; null when it is not.
function setStale(why) {
  const note = document.getElementById("stale");
  if (!note) return;
  const [reason, at] = note.querySelectorAll("span");
  if (why) {
    reason.textContent = /[.!?]$/.test(why) ? why : why + ".";
    if (note.hidden) at.textContent = local(new Date());
  }
  note.hidden = !why;
}

// Shows a part at once, or as soon as nothing of it is in use; only the newest counts.
class Part {
  constructor(element) {
    this.element = element;
    this.latest = null;
    setInterval(() => this.apply(), 1000);
  }

  show(html) {
    this.latest = html;
    setStale(null);
    this.apply();
  }

  apply() {
    if (this.latest === null || isInUse(this.element)) return;
    replace(this.element, this.latest);
    this.latest = null;
  }
}

function addressOf(element, option) {
  const address = new URL(element.dataset.refresh, location.href);
  address.searchParams.set(option, "1");
  return address;
}

async function ask(part) {
  let answer;
  try {
    answer = await fetch(addressOf(part.element, "part"), { credentials: "same-origin", cache: "no-store" });
  } catch {
    setStale(UNREACHABLE);
    return;
  }
  const body = await answer.text();
  if (answer.status === 401) location.reload();
  else if (answer.ok) part.show(body);
  else setStale(body.trim() || UNREACHABLE);
}

// Follows a part by a stream while the page can be seen. Where the server refuses one, as it does when it has enough of
// them, the part is asked for every few seconds, and a stream again after a while.
// So it is where nothing comes on a stream at all, as behind a proxy that keeps answers until they end.
const AGAIN = 30000;
const SILENT = 10000;

function follow(element) {
  const part = new Part(element);
  const every = (Number(element.dataset.every) || 5) * 1000;
  let source = null;
  let asking = null;
  let again = null;
  let silent = null;

  const stop = () => {
    if (source) source.close();
    clearInterval(asking);
    clearTimeout(again);
    clearTimeout(silent);
    source = asking = again = silent = null;
  };

  const poll = () => {
    stop();
    ask(part);
    asking = setInterval(() => ask(part), every);
    again = setTimeout(listen, AGAIN);
  };

  function listen() {
    stop();
    if (document.hidden) return;
    source = new EventSource(addressOf(element, "stream"));
    silent = setTimeout(poll, SILENT);
    source.onmessage = (event) => {
      clearTimeout(silent);
      part.show(event.data);
    };
    source.addEventListener("stale", (event) => {
      clearTimeout(silent);
      setStale(event.data);
    });
    source.addEventListener("over", () => { stop(); location.reload(); });
    source.onerror = () => {
      if (source && source.readyState === EventSource.CLOSED) poll();
      else setStale(`${UNREACHABLE} Trying again.`);
    };
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : listen()));
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
  listen();
}

showTimes(document);
document.querySelectorAll("[data-refresh]").forEach(follow);
