// What the server is: its bases and voices, looked up again and again while the page is looked at.
import { computed, effect, signal } from "./ui.js";
import { asked, askForKey, get, key, online, ownersKey, ServerError } from "./api.js";

const EVERY = 5000;
const EVERY_IF_GONE = 2000;

// The answer of /v1/adapters; null until it first came.
export const overview = signal(null);
export const aliases = computed(() => overview.value?.data ?? []);
export const bases = computed(() => (overview.value?.bases ?? []).filter((base) => base.task === "generate"));
export const several = computed(() => (overview.value?.bases.length ?? 0) > 1);

// The name by which a request asks for an alias, or for `alias@version`.
export function modelName(baseName, name) {
  return several.value ? `${baseName}:${name}` : name;
}

let timer = 0;

export async function refresh() {
  clearTimeout(timer);
  try {
    if (!document.hidden) overview.value = await get("v1/adapters");
  } catch (error) {
    // One question for a key at a time, and none in a loop: a wrong one would be counted each time.
    if (askForKey(error)) return;
    if (error instanceof ServerError && error.status >= 500) online.value = false;
  }
  timer = setTimeout(refresh, online.value ? EVERY : EVERY_IF_GONE);
}

// Who finds that the server is gone need not be this module.
effect(() => {
  if (online.value) return;
  clearTimeout(timer);
  timer = setTimeout(refresh, EVERY_IF_GONE);
});

export function forgetKeys() {
  ownersKey.value = "";
  return useKey("", "key");
}

// `why` is what the key was asked for.
export function useKey(value, why) {
  const held = why === "admin" || why === "metrics" ? ownersKey : key;
  held.value = value.trim();
  asked.value = { why: "", said: "" };
  return refresh();
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !asked.value.why) refresh();
});
