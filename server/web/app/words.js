// What the page says, in the reader's language.
import { signal } from "./ui.js";
import { keep, kept } from "./kept.js";
import { PHRASES } from "./phrases.js";

const LANGUAGES = ["en", "sv"];
const REMEMBERED = "oneseek.language";

function preferred() {
  const remembered = kept.getItem(REMEMBERED);
  const wanted = [remembered, ...navigator.languages].filter(Boolean);
  return wanted.map((tag) => tag.slice(0, 2).toLowerCase()).find((code) => LANGUAGES.includes(code)) ?? "en";
}

export const language = signal(preferred());
document.documentElement.lang = language.value;

export function speak(code) {
  language.value = code;
  keep(REMEMBERED, code);
  document.documentElement.lang = code;
}

// The words for a key, with `{name}` replaced. A key without words is shown as it is, so that a test sees it.
export function t(key, values = {}) {
  const text = PHRASES[key]?.[LANGUAGES.indexOf(language.value)] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// The name of a language by its code, such as "Swedish".
export function languageName(code) {
  if (!code || !/^[a-z]{2,3}$/.test(code)) return code || t("undecided");
  return new Intl.DisplayNames([language.value], { type: "language" }).of(code);
}

// The same at the start of a sentence or alone.
export function LanguageName(code) {
  const name = languageName(code);
  return name[0].toLocaleUpperCase(language.value) + name.slice(1);
}
