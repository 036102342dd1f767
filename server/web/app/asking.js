// A question on its way: from the conversation to the server, and the answer back, piece by piece.
import { batch, signal } from "./ui.js";
import { askForKey, events, key, open, ServerError } from "./api.js";
import { add, messages } from "./conversation.js";
import { paced } from "./pace.js";
import { wanted } from "./picker.js";
import { acceptLanguage, AUTOMATIC, chatBody } from "./request.js";
import { changed, current, options, setLive, writeNow } from "./storage.js";

const PATH = "v1/chat/completions";

// The answer under way: its conversation and node, and what ends it. One at a time.
export const underWay = signal(null);

export function stop() {
  underWay.value?.controller.abort();
}

export function ask(text) {
  if (underWay.value) return undefined;
  const conversation = current.value;
  const last = lastShown(conversation);
  const question = add(conversation, last, "user", { text });
  return answer(conversation, question.id);
}

// Another branch: `text` in the place of the question `node`.
export function askInstead(node, text) {
  if (underWay.value) return undefined;
  const conversation = current.value;
  const question = add(conversation, node.parent, "user", { text });
  return answer(conversation, question.id);
}

// Another answer to the same question.
export const askAgain = (node) => answer(current.value, node.parent);

function lastShown(conversation) {
  let at = "";
  for (;;) {
    const below = conversation.children[at];
    if (!below?.length) return at;
    at = below.includes(conversation.chosen[at]) ? conversation.chosen[at] : below[below.length - 1];
  }
}

// Show what has come of an answer: a copy takes its place, since what is drawn is what is another object.
function redraw(conversation, node) {
  conversation.nodes[node.id] = { ...node };
  changed(conversation);
}

async function answer(conversation, question) {
  if (underWay.value) return;
  const body = chatBody(wanted(), messages(conversation, question, options.value.system));
  const node = add(conversation, question, "assistant", { state: "streaming", body, keyed: Boolean(key.value), accept: body.model === AUTOMATIC ? acceptLanguage() : "" });
  const controller = new AbortController();
  setLive(conversation);
  batch(() => {
    underWay.value = { conversation: conversation.id, node: node.id, controller };
    changed(conversation);
  });
  try {
    await receive(conversation, node, controller.signal);
  } catch (error) {
    failed(node, error);
  }
  batch(() => {
    underWay.value = null;
    redraw(conversation, node);
  });
  setLive(null);
  writeNow();
}

async function receive(conversation, node, signal) {
  const reply = await open(PATH, { body: node.body, signal });
  node.adapter = reply.headers.get("X-OneSeek-Adapter") ?? "";
  node.language = reply.headers.get("X-OneSeek-Language") ?? "";
  redraw(conversation, node);
  let whole = false;
  const draw = paced(() => {
    if (node.state === "streaming") redraw(conversation, node);
  });
  for await (const event of events(reply)) {
    if (event === null) {
      whole = true;
      break;
    }
    if (event.error) throw new ServerError(Number(event.error.status) || 0, event.error, 0);
    take(node, event);
    draw();
  }
  node.state = whole ? "done" : "cut";
}

function take(node, event) {
  const choice = event.choices?.[0];
  if (choice?.delta?.content) node.text += choice.delta.content;
  if (choice?.finish_reason) node.finish = choice.finish_reason;
  if (event.usage) node.usage = event.usage;
  if (event.receipt) node.receipt = event.receipt;
}

function failed(node, error) {
  if (error.name === "AbortError") {
    node.state = "stopped";
  } else if (error instanceof ServerError) {
    node.state = "error";
    node.error = { status: error.status, code: error.code, message: error.message, after: error.after };
    askForKey(error);
  } else {
    node.state = node.text ? "cut" : "error";
    node.error = { status: 0, code: "unreachable", message: "", after: 0 };
  }
}
