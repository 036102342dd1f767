// The view Ask: conversations, the one that is open, and the composer.
import { computed, html, Icon, signal, useEffect, useRef, useState } from "./ui.js";
import { ask, stop, underWay } from "./asking.js";
import { Composer } from "./composer.js";
import { shown } from "./conversation.js";
import { Blend, Picker, Settings } from "./picker.js";
import { all, begin, current, exported, full, imported, remove, show } from "./storage.js";
import { Answer, Question } from "./turns.js";
import { t } from "./words.js";

const SUGGESTED = ["Vem är du?", "What can you do?", "Räkna 23 + 19"];
const NEAR = 120;

const draft = signal("");
const drawer = signal(false);
const nodes = computed(() => shown(current.value));

// Not by scrollIntoView, from where the Tab key would go on.
const toTheEnd = () => scrollTo(0, document.documentElement.scrollHeight);

export function Ask() {
  const count = nodes.value.length;
  const id = current.value.id;
  useEffect(() => {
    if (count) toTheEnd();
  }, [id, count]);
  // While it streams, stay at the end if the reader is there, and only then.
  useEffect(() => {
    const left = document.documentElement.scrollHeight - innerHeight - scrollY;
    if (underWay.value && left < NEAR) toTheEnd();
  });
  useEffect(() => {
    const press = (event) => {
      if (event.key === "Escape") stop();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
  return html`<div class="ask">
    <div class="bar-top"><h1 class="unseen">${t("ask")}</h1>
      <button type="button" class="plain" aria-expanded=${drawer.value} onClick=${() => { drawer.value = !drawer.value; }}><${Icon} name="list" />${t("conversations")}</button>
      <button type="button" class="plain" onClick=${begin}><${Icon} name="plus" />${t("newConversation")}</button></div>
    ${drawer.value && html`<${Conversations} />`}
    ${full.value && html`<p class="failure" role="alert">${t("full")}</p>`}
    <div class="turns">${count ? nodes.value.map((node) => (node.role === "user"
      ? html`<${Question} key=${node.id} node=${node} />`
      : html`<${Answer} key=${node.id} node=${node} />`)) : html`<${Empty} />`}</div>
    <${Said} />
    <div class="foot"><${Composer} text=${draft} send=${ask} stop=${underWay.value && stop} label=${t("messageLabel")} action=${t("send")}>
      <${Picker} /><${Settings} /><${Blend} /><//></div>
  </div>`;
}

// For screen readers: the answer once it is whole, rather than each piece of it.
function Said() {
  const last = nodes.value[nodes.value.length - 1];
  const whole = last?.role === "assistant" && last.state !== "streaming" && Date.now() - last.at < 600_000;
  return html`<div class="unseen" role="status">${whole ? last.text : ""}</div>`;
}

// Ask what a button says, which goes: what is written next is the natural place for the focus.
function suggest(text) {
  ask(text);
  // A phone would show its keyboard.
  if (!matchMedia("(pointer: coarse)").matches) document.querySelector(".writing textarea").focus();
}

function Empty() {
  return html`<div class="empty"><h2>${t("askFirst")}</h2><p>${t("askHint")}</p>
    <ul class="suggestions">${SUGGESTED.map((text) => html`<li key=${text}><button type="button" disabled=${underWay.value !== null} onClick=${() => suggest(text)}>${text}</button></li>`)}</ul></div>`;
}

function Conversations() {
  const [sure, setSure] = useState("");
  const [said, say] = useState("");
  const file = useRef(null);
  const kept = all();
  const open = (id) => {
    show(id);
    drawer.value = false;
  };
  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([exported()], { type: "application/json" }));
    link.download = "oneseek-conversations.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const load = async (event) => {
    const [chosen] = event.currentTarget.files;
    if (!chosen) return;
    try {
      say(t("imported", { count: imported(await chosen.text()) }));
    } catch {
      say(t("importBad", { name: chosen.name }));
    }
    file.current.value = "";
  };
  return html`<section class="drawer" aria-label=${t("conversations")}>
    ${kept.length ? html`<ul>${kept.map((one) => html`<li key=${one.id} class=${one.id === current.value.id ? "here" : ""}>
      <button type="button" class="plain title" dir="auto" aria-current=${one.id === current.value.id ? "true" : undefined} onClick=${() => open(one.id)}>${one.title || t("untitled")}</button>
      ${sure === one.id
        ? html`<button type="button" class="danger" onClick=${() => { remove(one.id); setSure(""); }}>${t("removeSure")}</button>
          <button type="button" class="plain" onClick=${() => setSure("")}>${t("cancel")}</button>`
        : html`<button type="button" class="plain" aria-label=${`${t("remove")}: ${one.title}`} onClick=${() => setSure(one.id)}><${Icon} name="close" /></button>`}</li>`)}</ul>`
      : html`<p class="quiet">${t("noConversations")}</p>`}
    <div class="acts open">
      <button type="button" disabled=${!kept.length} onClick=${save}>${t("exportAll")}</button>
      <button type="button" onClick=${() => file.current.click()}>${t("importAll")}</button>
      <input ref=${file} type="file" accept="application/json" hidden aria-label=${t("importAll")} onChange=${load} />
      <span role="status">${said}</span></div></section>`;
}
