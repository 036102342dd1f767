// Conversations in this browser, each under a key of its own. Two tabs do not undo each other: what a tab writes is
// joined with what is kept, and a tab shows what another has written.
import { signal } from "./ui.js";
import { FORMAT, join, newConversation, read } from "./conversation.js";
import { keep, kept, names } from "./kept.js";

const PREFIX = "oneseek.conversation.";
const OPEN = "oneseek.open";
const OPTIONS = "oneseek.options";
const PAUSE = 400;

// The one that is shown. A change replaces the object by a copy, so that what shows it notices.
export const current = signal(null);
// True if the browser has no room for more.
export const full = signal(false);
// How answers are asked for: voice, blend, and what goes with every request.
export const options = signal({
  voice: "auto", blend: null, system: "", temperature: "", topP: "", maxTokens: "", seed: "", ...load(OPTIONS),
});

function load(name) {
  try {
    return JSON.parse(kept.getItem(name) ?? "null");
  } catch {
    return null;
  }
}

export function setOptions(changes) {
  options.value = { ...options.value, ...changes };
  keep(OPTIONS, JSON.stringify(options.value));
}

// The conversation that an answer still comes to: what is kept of it lags behind.
let live = null;
let pending = null;
let timer = 0;

// Show what has changed in `conversation`, and write it soon. An empty one is not kept.
export function changed(conversation) {
  if (current.value?.id === conversation.id) current.value = { ...conversation };
  if (pending && pending.id !== conversation.id) writeNow();
  pending = conversation;
  timer ||= setTimeout(writeNow, PAUSE);
}

export function setLive(conversation) {
  live = conversation;
}

// Write a conversation, with what is kept of it. False if there is no room.
function put(one) {
  const theirs = read(load(PREFIX + one.id));
  if (theirs) join(one, theirs);
  return keep(PREFIX + one.id, JSON.stringify(one));
}

export function writeNow() {
  clearTimeout(timer);
  timer = 0;
  if (!pending) return;
  const one = pending;
  pending = null;
  if (!Object.keys(one.nodes).length) return;
  full.value = !put(one);
  keep(OPEN, one.id);
}

addEventListener("pagehide", writeNow);

addEventListener("storage", ({ key }) => {
  const theirs = key === PREFIX + current.value.id ? read(load(key)) : null;
  if (!theirs) return;
  join(current.value, theirs);
  current.value = { ...current.value };
});

// Every conversation, the latest first.
export function all() {
  return names().filter((name) => name.startsWith(PREFIX))
    .map((name) => read(load(name))).filter(Boolean)
    .sort((one, other) => other.updated - one.updated);
}

export function show(id) {
  writeNow();
  current.value = live?.id === id ? { ...live } : read(load(PREFIX + id)) ?? newConversation();
  keep(OPEN, current.value.id);
}

export function begin() {
  writeNow();
  current.value = newConversation();
  kept.removeItem(OPEN);
}

export function remove(id) {
  if (pending?.id === id) pending = null;
  kept.removeItem(PREFIX + id);
  full.value = false;
  if (current.value.id === id) begin();
}

export function exported() {
  writeNow();
  return JSON.stringify({ format: FORMAT, conversations: all() }, null, 2);
}

// How many conversations of `text` are now kept. Throws SyntaxError or TypeError if it is no export.
export function imported(text) {
  const found = JSON.parse(text).conversations.map(read);
  if (!found.length || found.includes(null)) throw new TypeError("not an export");
  writeNow();
  const stored = found.filter(put);
  full.value = stored.length < found.length;
  if (stored.length) show(stored[0].id);
  return stored.length;
}

// What was shown last. At once: no view is drawn without a conversation.
show(kept.getItem(OPEN) ?? "");
