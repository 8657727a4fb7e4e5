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

function setStale(isStale) {
  const note = document.getElementById("stale");
  if (!note || note.hidden === !isStale) return;
  if (isStale) note.querySelector("span").textContent = local(new Date());
  note.hidden = !isStale;
}

async function refresh(part) {
  const address = new URL(part.dataset.refresh, location.href);
  address.searchParams.set("part", "1");
  let answer;
  try {
    answer = await fetch(address, { credentials: "same-origin", cache: "no-store" });
  } catch {
    setStale(true);
    return;
  }
  if (answer.status === 401) {
    location.reload();
    return;
  }
  setStale(!answer.ok);
  if (!answer.ok) return;
  const html = await answer.text();
  if (!isInUse(part)) replace(part, html);
}

function follow(part) {
  const seconds = Number(part.dataset.every) || 5;
  const turn = async () => {
    if (!document.hidden && !isInUse(part)) await refresh(part);
    setTimeout(turn, seconds * 1000);
  };
  setTimeout(turn, seconds * 1000);
}

showTimes(document);
document.querySelectorAll("[data-refresh]").forEach(follow);
