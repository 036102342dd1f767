// Who is to answer: automatic, an adapter, the base, or a blend of two with a slider.
import { html, Icon, useId } from "./ui.js";
import { aliases, bases, modelName, overview, several } from "./server.js";
import { colour } from "./colours.js";
import { modelOf } from "./request.js";
import { options, setOptions } from "./storage.js";
import { languageName, t } from "./words.js";

// Every voice by the name that a request gives it, with what to show.
export function everyVoice({ versions = false } = {}) {
  const list = [];
  for (const one of aliases.value) {
    if (!bases.value.some((base) => base.name === one.base_name)) continue;
    const said = one.language ? ` · ${languageName(one.language)}` : "";
    list.push({ value: modelName(one.base_name, one.alias), label: `${one.alias}${said} · ${one.active}`, base: one.base_name });
    if (!versions || one.versions.length < 2) continue;
    for (const version of one.versions) {
      list.push({ value: modelName(one.base_name, version.name), label: version.name });
    }
  }
  for (const base of bases.value) {
    const own = several.value ? base.name : "base";
    list.push({ value: own, label: `${base.name} · ${t("baseWhy")}` });
  }
  return list;
}

// The aliases that a blend can have. All adapters of a blend are on one base.
function blendable() {
  const blending = bases.value.filter((base) => base.blends).map((base) => base.name);
  const voices = everyVoice().filter((one) => blending.includes(one.base));
  return voices.filter((one) => voices.some((other) => other !== one && other.base === one.base));
}

const canBlend = () => blendable().length > 0;

// The blend as this server can make it: a name that it does not serve gives way to one that it serves.
function blended() {
  const { first, second, weight } = options.value.blend ?? {};
  const voices = blendable();
  const one = voices.find(({ value }) => value === first) ?? voices.find(({ value }) => value !== second);
  const partners = voices.filter((other) => other !== one && other.base === one.base);
  const other = partners.find(({ value }) => value === second) ?? partners[0];
  return { first: one.value, second: other.value, weight: weight >= 0 && weight <= 1 ? weight : 0.5 };
}

// The options with a voice that this server serves; until the server has named its voices, as they were kept.
export function wanted() {
  if (!overview.value) return options.value;
  const voice = chosen();
  return { ...options.value, voice, blend: voice === "blend" ? blended() : null };
}

function chosen() {
  const { voice } = options.value;
  const known = voice === "auto" || (voice === "blend" && canBlend()) || everyVoice().some((one) => one.value === voice);
  return known ? voice : "auto";
}

const choose = (voice) => setOptions(voice === "blend" ? { voice, blend: blended() } : { voice });

export function Picker() {
  const id = useId();
  const voice = chosen();
  return html`<span class="picker">
    <label for=${id} class="unseen">${t("voice")}</label>
    ${voice !== "auto" && voice !== "blend" && html`<i class="swatch" style=${{ background: colour(voice) }}></i>`}
    <select id=${id} value=${voice} onChange=${(event) => choose(event.currentTarget.value)}>
      <option value="auto">${t("automatic")} · ${t("automaticWhy")}</option>
      ${everyVoice().map(({ value, label }) => html`<option key=${value} value=${value}>${label}</option>`)}
      ${canBlend() && html`<option value="blend">${t("blend")}</option>`}
    </select></span>`;
}

// Two sliders that sum to one.
export function Blend() {
  if (chosen() !== "blend") return null;
  const blend = blended();
  const voices = blendable();
  const { base } = voices.find((one) => one.value === blend.first);
  const set = (changes) => setOptions({ blend: { ...blend, ...changes } });
  return html`<fieldset class="blend"><legend>${t("blendOf")} <code>${modelOf(wanted())}</code></legend>
    <${Term} name=${blend.first} voices=${voices.filter((one) => one.value !== blend.second)} weight=${blend.weight} label=${t("first")}
      rename=${(first) => set({ first })} weigh=${(weight) => set({ weight })} />
    <${Term} name=${blend.second} voices=${voices.filter((one) => one.base === base && one.value !== blend.first)} weight=${Number((1 - blend.weight).toFixed(2))} label=${t("second")}
      rename=${(second) => set({ second })} weigh=${(weight) => set({ weight: Number((1 - weight).toFixed(2)) })} />
  </fieldset>`;
}

function Term({ name, voices, weight, label, rename, weigh }) {
  return html`<div class="term"><i class="swatch" style=${{ background: colour(name) }}></i>
    <select aria-label=${label} value=${name} onChange=${(event) => rename(event.currentTarget.value)}>
      ${voices.map(({ value, label: text }) => html`<option key=${value} value=${value}>${text}</option>`)}
    </select>
    <input type="range" min="0" max="1" step="0.05" value=${weight} aria-label=${t("weight", { name })}
      onInput=${(event) => weigh(Number(event.currentTarget.value))} />
    <output>${weight.toFixed(2)}</output></div>`;
}

const FIELDS = [
  ["temperature", "temperature", { min: 0, max: 2, step: 0.01 }],
  ["topP", "topP", { min: 0.01, max: 1, step: 0.01 }],
  ["maxTokens", "maxTokens", { min: 1, step: 1 }],
  ["seed", "seed", { step: 1 }],
];

// What goes with every request; empty leaves it to the server.
export function Settings() {
  const set = FIELDS.filter(([name]) => options.value[name] !== "").length + (options.value.system ? 1 : 0);
  const close = (event) => {
    if (event.key !== "Escape") return;
    event.currentTarget.open = false;
    event.currentTarget.firstElementChild.focus();
  };
  return html`<details class="settings" onKeyDown=${close}>
    <summary><${Icon} name="settings" />${t("settings")}${set ? html` <b class="count">${set}</b>` : ""}</summary>
    <div class="sheet">
      <label>${t("system")}<textarea rows="2" value=${options.value.system} onChange=${(event) => setOptions({ system: event.currentTarget.value.trim() })}></textarea></label>
      <div class="fields">${FIELDS.map(([name, word, bounds]) => html`<label key=${name}>${t(word)}
        <input type="number" ...${bounds} value=${options.value[name]} placeholder=${t("serverDefault")}
          onChange=${(event) => event.currentTarget.checkValidity() ? setOptions({ [name]: event.currentTarget.value }) : event.currentTarget.reportValidity()} /></label>`)}</div>
      <button type="button" onClick=${() => setOptions({ system: "", temperature: "", topP: "", maxTokens: "", seed: "" })}>${t("reset")}</button>
    </div></details>`;
}
