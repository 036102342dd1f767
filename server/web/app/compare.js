// The view Compare: one question, a column for each voice, and what they agree on.
import { Act, computed, copy, html, number, signal, Skeleton, useEffect, useId } from "./ui.js";
import { askForKey, events, key, open, ServerError } from "./api.js";
import { colour } from "./colours.js";
import { Composer } from "./composer.js";
import { marked } from "./differ.js";
import { paced } from "./pace.js";
import { everyVoice } from "./picker.js";
import { Receipt } from "./receipt.js";
import { asCurl, asPython, sampling } from "./request.js";
import { aliases, modelName } from "./server.js";
import { options } from "./storage.js";
import { language, languageName, t } from "./words.js";

const PATH = "api/oqt/multi-model-query";
const MOST = 8;

const draft = signal("");
// The voices that the reader chose; null: each base and each alias.
const picked = signal(null);
// What was asked last and what has come of it; null before.
const comparison = signal(null);
const controller = signal(null);

const usual = computed(() => {
  const voices = everyVoice();
  const named = voices.map((one) => one.value);
  const adapters = aliases.value.map((one) => modelName(one.base_name, one.alias)).filter((one) => named.includes(one));
  return [...named.filter((one) => !adapters.includes(one)), ...adapters].slice(0, MOST);
});
const voices = computed(() => picked.value ?? usual.value);

async function ask(question) {
  const body = { question, models: voices.value, stream: true, ...sampling(options.value) };
  const state = { body, keyed: Boolean(key.value), answers: body.models.map(() => ({ text: "", state: "waiting" })), consensus: null, error: null };
  const show = () => {
    comparison.value = { ...state };
  };
  controller.value = new AbortController();
  show();
  try {
    await receive(state, show, controller.value.signal);
  } catch (error) {
    fail(state, error);
  }
  controller.value = null;
  show();
}

async function receive(state, show, stop) {
  const reply = await open(PATH, { body: state.body, signal: stop });
  const draw = paced(() => {
    if (controller.value?.signal === stop) show();
  });
  for await (const event of events(reply)) {
    if (event === null) return;
    if (event.error && event.type === undefined) throw new ServerError(0, event.error, 0);
    take(state, event);
    draw();
  }
  fail(state, null);
}

function take(state, event) {
  if (event.type === "voices") {
    state.answers = event.voices.map((voice) => ({ ...voice, text: "", state: "waiting" }));
  } else if (event.type === "delta") {
    const answer = state.answers[event.voice];
    state.answers[event.voice] = { ...answer, text: answer.text + event.text, state: "streaming" };
  } else if (event.type === "voice") {
    state.answers[event.voice] = { ...state.answers[event.voice], ...event, state: event.status };
  } else if (event.type === "consensus") {
    state.consensus = event.consensus;
  }
}

function fail(state, error) {
  const aborted = error?.name === "AbortError";
  for (const [place, one] of state.answers.entries()) {
    if (["waiting", "streaming"].includes(one.state)) state.answers[place] = { ...one, state: aborted ? "stopped" : "cut" };
  }
  if (error && !aborted) {
    state.error = { message: error instanceof ServerError ? error.message : t("lost") };
    askForKey(error);
  }
}

const stop = () => controller.value?.abort();

export function Compare() {
  useEffect(() => {
    const press = (event) => {
      if (event.key === "Escape") stop();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
  const state = comparison.value;
  return html`<div class="compare wide"><h1>${t("compareFirst")}</h1>
    <${Composer} text=${draft} send=${ask} stop=${controller.value && stop} label=${t("question")} action=${t("compareSend")}>
      <${Voices} /><//>
    ${state ? html`<${Outcome} state=${state} />` : html`<p class="quiet intro">${t("compareHint")}</p>`}</div>`;
}

function Voices() {
  const id = useId();
  const known = everyVoice({ versions: true });
  const rest = known.filter((one) => !voices.value.includes(one.value));
  const add = (event) => {
    const { value } = event.currentTarget;
    event.currentTarget.value = "";
    if (value) picked.value = [...voices.value, value];
  };
  return html`<div class="voices" role="group" aria-label=${t("voices")}>
    ${voices.value.map((name) => html`<span key=${name} class="chip"><i class="swatch" style=${{ background: colour(name) }}></i>${name}
      <button type="button" class="plain" disabled=${voices.value.length < 2} aria-label=${t("removeVoice", { name })}
        onClick=${() => { picked.value = voices.value.filter((one) => one !== name); }}>×</button></span>`)}
    ${voices.value.length < MOST ? rest.length > 0 && html`<label class="unseen" for=${id}>${t("addVoice")}</label>
      <select id=${id} value="" onChange=${add}><option value="">${t("addVoice")}</option>
        ${rest.map(({ value, label }) => html`<option key=${value} value=${value}>${label}</option>`)}</select>`
      : html`<span class="quiet">${t("mostVoices", { most: MOST })}</span>`}</div>`;
}

const voiceName = (answer, place, state) => (answer.asked?.[0] ?? state.body.models[place]);

function Outcome({ state }) {
  const { consensus, answers, body } = state;
  const url = new URL(PATH, document.baseURI).href;
  return html`<section class="outcome" aria-label=${body.question}>
    <div class="asked"><h2 dir="auto">${body.question}</h2>
      <span class="acts open"><${Act} class="plain" act=${() => copy(asCurl(url, body, state.keyed))} done=${t("copied")} aria-label=${t("copyCurl")}>${t("curl")}<//>
      <${Act} class="plain" act=${() => copy(asPython(url, body, state.keyed))} done=${t("copied")} aria-label=${t("copyPython")}>${t("python")}<//></span></div>
    ${state.error && html`<div class="failure" role="alert"><p>${state.error.message}</p></div>`}
    <div class="verdict" role="status">${consensus && html`<${Verdict} consensus=${consensus} answers=${answers} state=${state} />`}</div>
    <div class="columns" tabindex="0" role="group" aria-label=${t("voices")}>${answers.map((answer, place) => html`
      <${Column} key=${place} answer=${answer} name=${voiceName(answer, place, state)} others=${othersOf(place, state)}
        isDissenting=${consensus?.dissenting.includes(place)} isMedoid=${consensus?.medoid === place && consensus.pairs.some((pair) => pair.comparable)} />`)}</div></section>`;
}

// The other answers in the language of one, once all are whole.
function othersOf(place, { consensus, answers }) {
  const group = consensus?.languages.find((one) => one.voices.includes(place));
  return group ? group.voices.filter((one) => one !== place).map((one) => answers[one].text) : [];
}

function Verdict({ consensus, answers, state }) {
  const why = useId();
  const name = (place) => voiceName(answers[place], place, state);
  const compared = consensus.languages.filter((one) => one.voices.length > 1);
  const value = consensus.agreement;
  return html`${value !== null && value !== undefined && html`<span class="agreement" tabindex="0" aria-describedby=${why}>
      <b>${t("agreement", { value: number(value, 2, language.value) })}</b><span class="track"><i style=${{ width: `${value * 100}%` }}></i></span>
      <span class="tip" role="tooltip" id=${why}>${t(consensus.base ? "vectorsWhy" : "agreementWhy", { base: consensus.base, threshold: number(consensus.threshold, 1, language.value) })} ${t("differ")}</span></span>`}
    ${compared.length ? compared.map((group) => html`<span key=${group.language}>${finding(group)}
        ${group.dissenting.map((place) => html` <strong key=${place}>${t("dissents", { name: name(place) })}</strong>`)}</span>`)
      : html`<span>${t("nothingCompared")}</span>`}
    ${compared.length > 0 && consensus.languages.filter((one) => one.voices.length === 1).map((group) => html`
      <span key=${group.voices[0]} class="quiet">${t("alone", { name: name(group.voices[0]), language: languageName(group.language) })}</span>`)}`;
}

function finding(group) {
  const largest = Math.max(...group.clusters.map((cluster) => cluster.length));
  const values = { count: group.voices.length, agree: largest, language: languageName(group.language) };
  if (largest === group.voices.length) return t("allAgree", values);
  return largest === 1 ? t("noneAgree", values) : t("someAgree", values);
}

function Column({ answer, name, others, isDissenting, isMedoid }) {
  const coming = ["waiting", "streaming"].includes(answer.state);
  return html`<article class=${`column ${isDissenting ? "dissenting" : ""}`} aria-label=${name} aria-busy=${coming} style=${{ borderTopColor: colour(name) }}>
    <h3><i class="swatch" style=${{ background: colour(name) }}></i>${name}
      ${isDissenting && html`<span class="tag">${t("dissenting")}</span>`}${isMedoid && html`<span class="tag calm">${t("medoid")}</span>`}</h3>
    ${answer.text ? html`<p class="said" dir="auto" lang=${answer.language ?? undefined}>${marked(answer.text, others).map(([piece, differs], place) => (differs
        ? html`<mark key=${place}>${piece}</mark>` : html`<span key=${place}>${piece}</span>`))}</p>`
      : coming && html`<${Skeleton} lines=${2} />`}
    ${answer.error && html`<div class="failure"><p>${answer.error.message}</p></div>`}
    ${answer.state === "stopped" && html`<p class="ending">${t("stopped")}</p>`}
    ${answer.state === "cut" && html`<p class="ending">${t("cut")}</p>`}
    ${answer.receipt?.route && html`<${Receipt} receipt=${answer.receipt} usage=${usage(answer.tokens)} />`}</article>`;
}

function usage(tokens) {
  return tokens && { prompt_tokens: tokens.prompt, completion_tokens: tokens.completion, prompt_tokens_details: { cached_tokens: tokens.cached } };
}
