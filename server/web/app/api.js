// Asking the server: keys in memory, errors in the server's own words, streams of events.
import { signal } from "./ui.js";

// Kept in these variables and nowhere else: the key for everything, and one for figures and changes.
export const key = signal("");
export const ownersKey = signal("");
const OWNERS = /^(admin|metrics)\//;
// Why a key is asked for: "" (it is not), "key", "admin" or "metrics"; and what the server said.
export const asked = signal({ why: "", said: "" });
// False from the first request that gets no answer to the next that gets one.
export const online = signal(true);

export class ServerError extends Error {
  constructor(status, detail, after) {
    super(detail.message || `HTTP ${status}`);
    this.status = status;
    this.code = detail.code ?? "";
    // Seconds to wait, if the server says.
    this.after = after;
  }
}

export class Unreachable extends Error {}

// The answer to a request, its head read. Throws ServerError, Unreachable, or AbortError.
export async function open(path, { body, signal: stop, method } = {}) {
  const headers = {};
  const held = (OWNERS.test(path) && ownersKey.value) || key.value;
  if (held) headers.Authorization = `Bearer ${held}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: stop,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    online.value = false;
    throw new Unreachable(error.message);
  }
  online.value = true;
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  let detail = {};
  try {
    detail = (await answer.json()).error ?? {};
  } catch {
    // A proxy's page, or nothing: the status has to do.
  }
  const after = Number(answer.headers.get("Retry-After")) || 0;
  return new ServerError(answer.status, detail, after);
}

export async function get(path) {
  return (await open(path)).json();
}

export async function post(path, body) {
  const answer = await open(path, { body: body ?? {}, method: "POST" });
  return { live: answer.status === 200, ...(await answer.json()) };
}

// Ask for a key if an error says that one is needed; true if so.
export function askForKey(error, why = "key") {
  const needed = error instanceof ServerError
    && (error.status === 401 || error.code === "admin_key_needed" || error.code === "metrics_key_needed"
      || error.code === "too_many_wrong_keys");
  // A first visitor has presented nothing: the server's words would only repeat the title.
  if (needed) asked.value = { why, said: key.value || ownersKey.value ? error.message : "" };
  return needed;
}

// The JSON of each event of a stream. Ends early, without an error, if the connection does; `done` says.
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const frames = text.split("\n\n");
      text = frames.pop();
      for (const frame of frames) {
        const data = frame.split("\n").filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5).trimStart()).join("\n");
        if (data === "[DONE]") {
          yield null;
          return;
        }
        if (data) yield JSON.parse(data);
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    online.value = false;
    throw new Unreachable(error.message);
  } finally {
    reader.cancel().catch(() => {});
  }
}
