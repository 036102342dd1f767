// Where a key is typed. It is held by this page's memory alone.
import { html, useEffect, useId, useRef } from "./ui.js";
import { asked, key, ownersKey } from "./api.js";
import { forgetKeys, useKey } from "./server.js";
import { t } from "./words.js";

// What no header can carry, such as a quotation mark that a text editor made round, or an invisible space.
const UNFIT = /[^\x20-\x7e\xa0-\xff]/u;
const codeOf = (sign) => `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

const TITLES = { key: "keyTitle", admin: "keyAdmin", metrics: "keyMetrics", own: "keyButton" };

export function KeyDialog() {
  const { why, said } = asked.value;
  const held = key.value || ownersKey.value;
  const dialog = useRef(null);
  const field = useRef(null);
  const title = useId();
  const id = useId();
  useEffect(() => {
    if (why && !dialog.current.open) dialog.current.showModal();
    if (!why && dialog.current.open) dialog.current.close();
  }, [why]);
  const use = (event) => {
    event.preventDefault();
    const { value } = field.current;
    field.current.value = "";
    const [sign] = value.match(UNFIT) ?? [];
    if (sign) asked.value = { why, said: t("keyUnfit", { sign, code: codeOf(sign) }) };
    else useKey(value, why);
  };
  const leave = () => {
    asked.value = { why: "", said: "" };
  };
  return html`<dialog ref=${dialog} aria-labelledby=${title} onCancel=${leave}>
    <form onSubmit=${use} autocomplete="off">
      <h2 id=${title}>${t(TITLES[why] ?? "keyTitle")}</h2>
      ${said && html`<p class="failure" role="alert">${said}</p>`}
      <p class="quiet">${held ? t("keyHeld") : t("keyNone")} ${t("keyWhy")}</p>
      <label for=${id}>${t("keyLabel")}</label>
      <input id=${id} ref=${field} type="password" autocomplete="off" spellcheck=${false} required />
      <div class="acts open"><button type="submit" class="main">${t("keyUse")}</button>
        ${held && html`<button type="button" onClick=${forgetKeys}>${t("keyForget")}</button>`}
        <button type="button" onClick=${leave}>${t("cancel")}</button></div>
    </form></dialog>`;
}
