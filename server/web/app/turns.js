// The turns of a conversation: questions that can be edited, answers with their receipts.
import { Act, copy, html, Icon, Skeleton, useLayoutEffect, useRef, useState } from "./ui.js";
import { asked } from "./api.js";
import { askAgain, askInstead, underWay } from "./asking.js";
import { branches, turn } from "./conversation.js";
import { Markdown } from "./markdown.js";
import { EarlyReceipt, Receipt } from "./receipt.js";
import { asCurl, asPython } from "./request.js";
import { changed, current } from "./storage.js";
import { t } from "./words.js";

// The header says "none" of a language that is not decided.
const LANGUAGE = /^[a-z]{2,3}$/;
const url = () => new URL("v1/chat/completions", document.baseURI).href;

function Branches({ node }) {
  const [at, of] = branches(current.value, node);
  if (of < 2) return null;
  const go = (by) => {
    turn(current.value, node, by);
    changed(current.value);
  };
  return html`<span class="branches" role="group" aria-label=${t("branch", { at, of })}>
    <button type="button" class="plain" disabled=${at === 1} aria-label=${t("before")} onClick=${() => go(-1)}><${Icon} name="left" /></button>
    <span aria-hidden="true">${at}/${of}</span>
    <button type="button" class="plain" disabled=${at === of} aria-label=${t("after")} onClick=${() => go(1)}><${Icon} name="right" /></button></span>`;
}

export function Question({ node }) {
  const [text, setText] = useState(null);
  const area = useRef(null);
  useLayoutEffect(() => area.current?.focus(), [text === null]);
  const busy = underWay.value !== null;
  if (text === null) {
    return html`<section class="turn question" aria-label=${t("you")}>
      <p class="said" dir="auto">${node.text}</p>
      <div class="acts"><${Branches} node=${node} />
        <button type="button" class="plain" disabled=${busy} onClick=${() => setText(node.text)}>${t("edit")}</button></div></section>`;
  }
  const save = () => {
    if (text.trim()) askInstead(node, text.trim());
    setText(null);
  };
  return html`<section class="turn question" aria-label=${t("you")}><form onSubmit=${(event) => { event.preventDefault(); save(); }}>
    <textarea ref=${area} rows="3" dir="auto" aria-label=${t("messageLabel")} value=${text} onInput=${(event) => setText(event.currentTarget.value)}
      onKeyDown=${(event) => { if (event.key === "Escape") setText(null); }}></textarea>
    <div class="acts open"><button type="submit" class="main" disabled=${busy}>${t("saveEdit")}</button>
      <button type="button" onClick=${() => setText(null)}>${t("cancel")}</button></div></form></section>`;
}

export function Answer({ node }) {
  const coming = node.state === "streaming";
  return html`<section class=${`turn answer ${node.state}`} aria-label=${t("answer")} aria-busy=${coming}>
    ${node.text ? html`<${Markdown} text=${node.text} lang=${LANGUAGE.test(node.language) ? node.language : undefined} />` : coming && html`<${Skeleton} lines=${2} /><span class="unseen">${t("answering")}</span>`}
    <${Ending} node=${node} />
    ${node.receipt ? html`<${Receipt} receipt=${node.receipt} usage=${node.usage} />`
      : node.adapter && html`<${EarlyReceipt} adapter=${node.adapter} lang=${node.language} />`}
    ${!coming && html`<${Acts} node=${node} />`}</section>`;
}

// How it ended, if not well.
function Ending({ node }) {
  if (node.state === "error") return html`<${Failure} error=${node.error ?? { status: 0, code: "", message: "" }} />`;
  if (node.state === "stopped") return html`<p class="ending">${t("stopped")}</p>`;
  if (node.state === "cut") return html`<p class="ending" role="alert">${t("cut")}</p>`;
  if (node.finish === "length") return html`<p class="ending">${t("length")}</p>`;
  return null;
}

function Failure({ error }) {
  const gone = error.code === "unreachable";
  return html`<div class="failure" role="alert">
    <p><strong>${gone ? t("lost") : error.status ? `${t("failed")} (${error.status})` : t("failed")}</strong></p>
    ${error.message && html`<p>${error.message}</p>`}
    <p>${remedy(error)}</p>
    ${error.status === 401 && html`<button type="button" onClick=${() => { asked.value = { why: "key", said: "" }; }}>${t("keyButton")}</button>`}</div>`;
}

function remedy({ status, code, after }) {
  if (code === "unreachable") return t("doGone");
  if (status === 401) return t("doKey");
  if (after) return t("doWait", { seconds: after });
  return status === 429 || status >= 500 ? t("doLater") : t("doChange");
}

function Acts({ node }) {
  return html`<div class="acts"><${Branches} node=${node} />
    <button type="button" class="plain" disabled=${underWay.value !== null} onClick=${() => askAgain(node)}>${t("retry")}</button>
    ${node.text && html`<${Act} class="plain" act=${() => copy(node.text)} done=${t("copied")} aria-label=${t("copyAnswer")}>${t("copy")}<//>`}
    ${node.body && html`<${Act} class="plain" act=${() => copy(asCurl(url(), node.body, node.keyed, node.accept))} done=${t("copied")} aria-label=${t("copyCurl")}>${t("curl")}<//>
      <${Act} class="plain" act=${() => copy(asPython(url(), node.body, node.keyed, node.accept))} done=${t("copied")} aria-label=${t("copyPython")}>${t("python")}<//>`}</div>`;
}
