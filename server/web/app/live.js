// The view Live: six charts over the last 15 minutes.
import { computed, html, milliseconds, number, percentage, Skeleton, useEffect } from "./ui.js";
import { key, ownersKey } from "./api.js";
import { Chart } from "./charts.js";
import { colour } from "./colours.js";
import { closed, follow, look, looked, needKey, samples } from "./recent.js";
import { language, LanguageName, t } from "./words.js";

const MOST = 7;
const LANGUAGES = { sv: "#e69f00", en: "#0072b2" };
const REST = ["#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800"];
const GREY = "#8a8f98";

const times = computed(() => samples.value.map((sample) => sample.time));

// A table of the samples as series: names with most first, the rest as one.
function series(table, label, hue, scale = () => 1) {
  const totals = new Map();
  for (const sample of samples.value) {
    for (const [name, count] of Object.entries(table(sample))) totals.set(name, (totals.get(name) ?? 0) + count);
  }
  const named = [...totals].sort((one, other) => other[1] - one[1]).map(([name]) => name).filter((name) => name !== "others");
  const kept = named.slice(0, MOST).sort();
  const made = kept.map((name, place) => ({
    name: label(name), colour: hue(name, place), values: samples.value.map((sample) => (table(sample)[name] ?? 0) * scale(sample)),
  }));
  const rest = samples.value.map((sample) => {
    const counts = table(sample);
    const others = Object.keys(counts).filter((name) => !kept.includes(name));
    return others.reduce((sum, name) => sum + counts[name], 0) * scale(sample);
  });
  if (rest.some(Boolean)) made.push({ name: t("others"), colour: GREY, values: rest });
  return made;
}

function quantiles(pick) {
  const of = (name) => samples.value.map((sample) => pick(sample)?.[name] ?? null);
  return [
    { name: t("median"), colour: "#0072b2", values: of("p50") },
    { name: t("p95"), colour: "#d55e00", values: of("p95"), dash: [6, 4] },
  ];
}

export function Live() {
  useEffect(() => follow(), []);
  // A key that was typed may open what was closed.
  useEffect(() => {
    if (closed.value) look();
  }, [key.value, ownersKey.value]);
  return html`<div class="live wide data"><h1>${t("last15")}</h1><${Body} /></div>`;
}

function Body() {
  if (closed.value) {
    return html`<div class="empty"><p>${t("keyMetrics")}.</p><p><button type="button" onClick=${needKey}>${t("keyButton")}</button></p></div>`;
  }
  if (!looked.value) {
    return html`<div class="charts">${[1, 2, 3, 4, 5, 6].map((one) => html`<figure key=${one} class="chart"><${Skeleton} lines=${5} /></figure>`)}</div>`;
  }
  if (!samples.value.length) return html`<p class="quiet">${t("noSamples")}</p>`;
  return html`<${Charts} />`;
}

function Charts() {
  const lang = language.value;
  const at = times.value;
  const whole = (value) => number(value, value < 10 && value % 1 ? 1 : 0, lang);
  const ms = (value) => milliseconds(value, lang);
  const second = (sample) => 1 / sample.seconds;
  const minute = (sample) => 60 / sample.seconds;
  const queue = [
    ...series((sample) => sample.running, (name) => `${name} ${t("running")}`, colour),
    { name: t("queued"), colour: GREY, dash: [6, 4], values: samples.value.map((sample) => sample.waiting) },
  ];
  const memory = [{ name: t("used"), colour: "#009e73", values: samples.value.map((sample) => sample.kv_usage) }];
  const hue = (code, place) => LANGUAGES[code] ?? (/^[a-z]{2,3}$/.test(code) ? REST[place % REST.length] : GREY);
  const spoken = (code) => (/^[a-z]{2,3}$/.test(code) ? LanguageName(code) : t("undecided"));
  return html`<div class="charts">
    <${Chart} title=${t("chartTokens")} times=${at} series=${series((sample) => sample.tokens, (name) => name, colour, second)} format=${whole} stack />
    <${Chart} title=${t("chartFirst")} times=${at} series=${quantiles((sample) => sample.first_token)} format=${ms} />
    <${Chart} title=${t("chartBetween")} times=${at} series=${quantiles((sample) => sample.between_tokens)} format=${ms} />
    <${Chart} title=${t("chartQueue")} times=${at} series=${queue} format=${whole} />
    <${Chart} title=${t("chartMemory")} times=${at} series=${memory} format=${(value) => percentage(value, value && value < 0.01 ? 2 : 0, lang)} />
    <${Chart} title=${t("chartRoutes")} unit=${t("perMinute")} times=${at} series=${series((sample) => sample.routes, spoken, hue, minute)} format=${whole} stack />
  </div>`;
}
