// What every view is made of: Preact, htm and signals, and the smallest shared parts.
import {
  Component, batch, computed, effect, h, htm, render, signal,
  useEffect, useId, useLayoutEffect, useMemo, useRef, useState,
} from "../vendor/preact.js";

export const html = htm.bind(h);
export {
  Component, batch, computed, effect, render, signal,
  useEffect, useId, useLayoutEffect, useMemo, useRef, useState,
};

const PATHS = {
  ask: "M4 5h16v11H9l-5 4z",
  compare: "M4 5h4.5v14H4zM9.8 5h4.5v14H9.8zM15.5 5H20v14h-4.5z",
  adapters: "M12 3l8 4-8 4-8-4zM4 12l8 4 8-4M4 16.5l8 4 8-4",
  live: "M3 15l4-5 4 4 4-8 3 5h3",
  send: "M4 12h15M13 6l6 6-6 6",
  stop: "M7 7h10v10H7z",
  key: "M14 10a4 4 0 1 0-2.8 3.8L13 15.5h2v2h2v2h3v-3z",
  settings: "M4 7h9M17 7h3M4 12h3M11 12h9M4 17h9M17 17h3M15 5v4M9 10v4M15 15v4",
  list: "M4 6h16M4 12h16M4 18h10",
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
};

// A picture beside a word; it says nothing to a screen reader.
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
    <path d=${PATHS[name]} /></svg>`;
}

// A button that does `act`, and says `done` for a moment afterwards, if there is such a word.
export function Act({ act, done = "", children, ...rest }) {
  const [said, say] = useState("");
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const click = async () => {
    await act();
    if (!done) return;
    say(done);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => say(""), 1600);
  };
  return html`<button type="button" onClick=${click} ...${rest}>
    ${said || children}${done && html`<span class="unseen" role="status">${said}</span>`}</button>`;
}

// Copy text; pages on plain http have no clipboard, and select it instead.
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return;
    } catch {
      // A browser may refuse, for want of focus or permission; the older way is next.
    }
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  // Beside what has the focus, since a modal dialog makes everything outside it inert.
  const before = document.activeElement;
  (before?.closest("dialog") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  before?.focus();
}

export function Skeleton({ lines = 3 }) {
  return html`<div class="skeleton" aria-hidden="true">
    ${Array.from({ length: lines }, (_, line) => html`<span key=${line}></span>`)}</div>`;
}

// A number with so many decimals, as the reader's language writes it.
export function number(value, decimals, locale) {
  return value.toLocaleString(locale, { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

// A fraction as a percentage, written as the locale does: 2.5% in English, 2,5 % in Swedish.
export function percentage(fraction, decimals, locale) {
  return fraction.toLocaleString(locale, { style: "percent", minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

// A time in seconds as milliseconds, with more digits where it is short, or as seconds where it is long.
export function milliseconds(seconds, locale) {
  const value = seconds * 1000;
  if (value >= 10_000) return `${number(seconds, 1, locale)} s`;
  return `${number(value, value < 10 && value % 1 ? 1 : 0, locale)} ms`;
}

export const short = (digest) => digest.replace("sha256:", "").slice(0, 12);
