// The receipt under an answer: one line that says who answered, which opens into all of it.
import { Act, copy, html, milliseconds, number, short } from "./ui.js";
import { colour, parts } from "./colours.js";
import { language, languageName, LanguageName, t } from "./words.js";

const percent = (value) => number(value, 2, language.value);

// A voice's colour, with its name beside it: colour alone says nothing.
export function Voice({ name }) {
  const swatch = parts(name).length === 1 && html`<i class="swatch" style=${{ background: colour(name) }}></i>`;
  return html`<span class="voice">${swatch}${name.replaceAll(",", ", ")}</span>`;
}

// A blend's weights as a bar of its colours.
export function Weights({ name }) {
  const terms = parts(name);
  if (terms.length < 2) return null;
  return html`<span class="weights" aria-hidden="true">${terms.map(([voice, weight]) => html`
    <i key=${voice} style=${{ background: colour(voice), flexGrow: weight }}></i>`)}</span>`;
}

// Why this adapter answered, in a sentence.
export function reason({ route }) {
  const key = `because_${route.reason}`;
  const values = { language: languageName(route.language), confidence: percent(route.confidence) };
  const text = t(key, values);
  return text === key ? route.reason : text;
}

// What is known while the answer still comes: the headers.
export function EarlyReceipt({ adapter, lang }) {
  return html`<p class="receipt early"><span class="code">${lang || "–"}</span>
    <${Voice} name=${adapter} /><${Weights} name=${adapter} /></p>`;
}

export function Receipt({ receipt, usage }) {
  const { route, adapter } = receipt;
  const lang = language.value;
  const facts = [`${LanguageName(route.language)}, ${percent(route.confidence)}`];
  if (receipt.tokens_per_second) {
    facts.push(t("rate", { rate: number(receipt.tokens_per_second, receipt.tokens_per_second < 10 ? 1 : 0, lang) }));
  }
  if (receipt.first_token_seconds !== null && receipt.first_token_seconds !== undefined) {
    facts.push(milliseconds(receipt.first_token_seconds, lang));
  }
  return html`<details class="receipt">
    <summary><span class="unseen">${t("receipt")}: </span><span class="code">${route.language ?? "–"}</span>
      <${Voice} name=${adapter} /><${Weights} name=${adapter} />
      ${facts.map((fact) => html`<span key=${fact} class="fact">${fact}</span>`)}</summary>
    <${Whole} receipt=${receipt} usage=${usage} />
  </details>`;
}

function Whole({ receipt, usage }) {
  const { route, adapter } = receipt;
  const voices = parts(adapter);
  const digests = receipt.digest ? receipt.digest.split(",") : [];
  return html`<dl>
    <dt>${t("why")}</dt><dd>${reason(receipt)}</dd>
    ${voices.length > 1 && html`<dt>${t("blendOf")}</dt><dd>${voices.map(([name, weight]) => html`
      <div key=${name} class="bar"><${Voice} name=${name} /><span class="track"><i style=${{ width: `${Math.min(1, weight) * 100}%`, background: colour(name) }}></i></span><span class="figure">${percent(weight)}</span></div>`)}</dd>`}
    <dt>${t("runnersUp")}</dt><dd>${route.runners_up.length ? route.runners_up.map((one) => html`
      <div key=${one.language} class="bar"><span>${LanguageName(one.language)}</span><span class="track"><i style=${{ width: `${one.confidence * 100}%` }}></i></span><span class="figure">${number(one.confidence, 3, language.value)}</span></div>`) : t("none")}</dd>
    ${digests.map((digest) => html`<dt key=${`t${digest}`}>${t("digest")}</dt><dd key=${digest}>
      <${Act} class="plain code" act=${() => copy(digest)} done=${t("copied")} title=${`${t("copyDigest")}: ${digest}`}>sha256:${short(digest)}…<//></dd>`)}
    ${usage && html`<dt>${t("tokens")}</dt><dd>${t("tokensOf", {
      prompt: usage.prompt_tokens, cached: usage.prompt_tokens_details?.cached_tokens ?? 0, completion: usage.completion_tokens,
    })}</dd>`}
    <${Times} receipt=${receipt} />
    <dt>${t("requestId")}</dt><dd><${Act} class="plain code" act=${() => copy(receipt.request_id)} done=${t("copied")}>${receipt.request_id}<//></dd>
    ${receipt.digest && html`<dt>${t("lineage")}</dt><dd>${voices.map(([name]) => html`
      <a key=${name} href=${`#/adapters/${encodeURIComponent(name)}`}>${t("lineageOf", { name })}</a> `)}</dd>`}
  </dl>`;
}

function Times({ receipt }) {
  const { queue_seconds: queue, prefill_seconds: prefill, first_token_seconds: first } = receipt;
  if (typeof queue !== "number" || typeof prefill !== "number" || typeof first !== "number") return null;
  const [a, b, c] = [queue, prefill, first].map((value) => milliseconds(value, language.value));
  return html`<dt>${t("times")}</dt><dd>${t("timesOf", { queue: a, prefill: b, first: c })}</dd>`;
}
