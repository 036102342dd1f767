// The samples that the server keeps of its last 15 minutes, and those that come while the page is open.
import { computed, signal } from "./ui.js";
import { asked, get, online, ServerError } from "./api.js";

const EVERY = 5000;

export const samples = signal([]);
// False until the first answer.
export const looked = signal(false);
// True if the key opens no figures.
export const closed = signal(false);

let users = 0;
let timer = 0;

// Follow the samples for as long as something shows them; returns what ends it.
export function follow() {
  users += 1;
  if (users === 1) look();
  return () => {
    users -= 1;
    if (!users) clearTimeout(timer);
  };
}

export async function look() {
  clearTimeout(timer);
  if (!users) return;
  try {
    if (!document.hidden) await more();
    closed.value = false;
  } catch (error) {
    if (error instanceof ServerError && [401, 403, 429].includes(error.status)) {
      closed.value = true;
      return;
    }
  }
  timer = setTimeout(look, online.value ? EVERY : 2000);
}

async function more() {
  const last = samples.value.at(-1)?.number ?? 0;
  const answer = await get(`metrics/recent?since=${last}`);
  looked.value = true;
  const fresh = answer.data;
  if (last && !fresh.length) {
    // A server that was started anew counts from 1 again.
    const whole = await get("metrics/recent?since=0");
    if ((whole.data.at(-1)?.number ?? 0) < last) samples.value = whole.data;
    return;
  }
  samples.value = [...samples.value, ...fresh].slice(-answer.kept);
}

// Requests of the last 15 minutes by `alias@version`.
export const requests = computed(() => {
  const counts = new Map();
  for (const sample of samples.value) {
    for (const [name, { answered, failed }] of Object.entries(sample.requests)) {
      const before = counts.get(name) ?? [0, 0];
      counts.set(name, [before[0] + answered, before[1] + failed]);
    }
  }
  return counts;
});

export const needKey = () => {
  asked.value = { why: "metrics", said: "" };
};
