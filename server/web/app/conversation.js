// A conversation as a tree: an edited question and an answer asked for again are branches. Pure.

export const FORMAT = 1;

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36)).join("");

// `children` is by parent, "" for the top; `chosen` says which child of a parent is shown.
export function newConversation() {
  const now = Date.now();
  return { format: FORMAT, id: newId(), created: now, updated: now, title: "", nodes: {}, children: {}, chosen: {} };
}

// Put a node below `parent` and show it. `role` is "user" or "assistant".
export function add(conversation, parent, role, fields) {
  const node = { id: newId(), parent, role, text: "", at: Date.now(), ...fields };
  conversation.nodes[node.id] = node;
  (conversation.children[parent] ??= []).push(node.id);
  conversation.chosen[parent] = node.id;
  conversation.updated = node.at;
  if (role === "user" && !conversation.title) conversation.title = node.text.slice(0, 80);
  return node;
}

// The nodes that are shown, from the top down to `until`, or to the end.
export function shown(conversation, until = null) {
  const nodes = [];
  if (until !== null) {
    for (let at = until; at; at = conversation.nodes[at].parent) nodes.unshift(conversation.nodes[at]);
    return nodes;
  }
  for (let at = ""; ;) {
    const below = conversation.children[at];
    if (!below?.length) return nodes;
    at = below.includes(conversation.chosen[at]) ? conversation.chosen[at] : below[below.length - 1];
    nodes.push(conversation.nodes[at]);
  }
}

// Where a node stands among its branches: [its place from 1, how many].
export function branches(conversation, node) {
  const all = conversation.children[node.parent];
  return [all.indexOf(node.id) + 1, all.length];
}

// Show the branch `by` places further.
export function turn(conversation, node, by) {
  const all = conversation.children[node.parent];
  conversation.chosen[node.parent] = all[all.indexOf(node.id) + by];
}

// The messages of a request that answers the question `id`. An answer without text is left out.
export function messages(conversation, id, system) {
  const turns = shown(conversation, id).filter((node) => node.text);
  const said = turns.map(({ role, text }) => ({ role, content: text }));
  return system ? [{ role: "system", content: system }, ...said] : said;
}

// Add to `ours` what another tab has put into the same conversation. What ended there is no longer cut off here.
export function join(ours, theirs) {
  for (const [id, node] of Object.entries(theirs.nodes)) {
    const known = ours.nodes[id];
    const isBehind = known?.state === "cut" && (node.state !== "cut" || node.text.length > known.text.length);
    if (!known || isBehind) ours.nodes[id] = node;
  }
  for (const [parent, below] of Object.entries(theirs.children)) {
    const own = (ours.children[parent] ??= []);
    own.push(...below.filter((one) => !own.includes(one)));
    if (theirs.chosen[parent]) ours.chosen[parent] ??= theirs.chosen[parent];
  }
  ours.title ||= theirs.title;
  ours.updated = Math.max(ours.updated, theirs.updated);
}

// What was being answered when the page went away never will be: say so.
export function mendCut(conversation) {
  for (const node of Object.values(conversation.nodes)) {
    if (node.state === "streaming") node.state = "cut";
  }
  return conversation;
}

// Not the name of what every object has, such as "constructor": ids are the names of nodes.
const ID = /^(?!constructor$)[a-z0-9]{1,64}$/;
const STATES = ["streaming", "done", "stopped", "cut", "error"];
const isText = (value) => typeof value === "string";
const isList = (value) => Array.isArray(value) && value.every(isText);

const isNumber = (value) => typeof value === "number";

const isMissing = (value) => value === null || value === undefined;

// Whether a receipt has what the page shows of one.
function isReceipt(value) {
  const route = value?.route;
  return isText(value?.adapter) && isText(value.request_id) && isText(route?.reason) && isNumber(route.confidence)
    && [route.language, value.digest].every((one) => isMissing(one) || isText(one))
    && [value.tokens_per_second, value.first_token_seconds].every((one) => isMissing(one) || isNumber(one))
    && Array.isArray(route.runners_up)
    && route.runners_up.every((one) => isText(one?.language) && isNumber(one.confidence));
}

// A node with nothing in it but what the page shows or sends again.
function readNode(node) {
  const { id, parent, role, text, finish, adapter, language, accept, keyed } = node;
  const read = { id, parent, role, text, at: Number(node.at) || 0 };
  if (role === "user") return read;
  read.state = STATES.includes(node.state) ? node.state : "cut";
  if (isReceipt(node.receipt)) read.receipt = node.receipt;
  const cached = node.usage?.prompt_tokens_details?.cached_tokens;
  if (isNumber(node.usage?.prompt_tokens) && isNumber(node.usage.completion_tokens) && (isMissing(cached) || isNumber(cached))) read.usage = node.usage;
  if (node.body !== null && typeof node.body === "object") read.body = node.body;
  if (isText(node.error?.message)) {
    const { status, code, message, after } = node.error;
    read.error = { status: Number(status) || 0, code: String(code ?? ""), message, after: Number(after) || 0 };
  }
  for (const [name, value] of Object.entries({ finish, adapter, language, accept })) if (isText(value)) read[name] = value;
  read.keyed = keyed === true;
  return read;
}

// `value` as a conversation, with nothing in it that this page did not write; null if it is none.
export function read(value) {
  if (value?.format !== FORMAT || !ID.test(value.id) || value.nodes === null || typeof value.nodes !== "object") return null;
  const found = newConversation();
  found.id = value.id;
  found.title = isText(value.title) ? value.title.slice(0, 200) : "";
  found.created = Number(value.created) || found.created;
  found.updated = Number(value.updated) || found.updated;
  for (const [id, node] of Object.entries(value.nodes)) {
    const whole = node?.id === id && ID.test(id) && isText(node.text) && ["user", "assistant"].includes(node.role)
      && (node.parent === "" || (ID.test(node.parent) && Object.hasOwn(value.nodes, node.parent)));
    if (!whole) return null;
    found.nodes[id] = readNode(node);
  }
  for (const [id, below] of Object.entries(value.children ?? {})) {
    if (!isList(below) || !below.every((one) => Object.hasOwn(found.nodes, one) && found.nodes[one].parent === id)) return null;
    if (below.length) found.children[id] = below;
  }
  for (const [id, one] of Object.entries(value.chosen ?? {})) {
    if (isText(one) && Object.hasOwn(found.nodes, one) && found.nodes[one].parent === id) found.chosen[id] = one;
  }
  const placed = Object.values(found.children).flat();
  return new Set(placed).size === Object.keys(found.nodes).length ? mendCut(found) : null;
}
