// Where a question is written: it grows with the text, sends with Enter, breaks with Shift+Enter.
import { html, Icon, useId, useLayoutEffect, useRef } from "./ui.js";
import { t } from "./words.js";

const MOST_LINES = 12;

// `text` is a signal. `stop` is what ends an answer under way; null if there is none.
export function Composer({ text, send, stop, label, action, children }) {
  const area = useRef(null);
  const hint = useId();
  const value = text.value;
  useLayoutEffect(() => {
    const box = area.current;
    box.style.height = "auto";
    const line = parseFloat(getComputedStyle(box).lineHeight);
    box.style.height = `${Math.min(box.scrollHeight, line * MOST_LINES)}px`;
  }, [value]);
  const submit = () => {
    const said = text.value.trim();
    if (!said || stop || complained()) return;
    text.value = "";
    send(said);
  };
  // The browser would complain of a setting too, but not if it is folded away.
  const complained = () => {
    const unfit = area.current.form.querySelector("input:invalid");
    if (!unfit) return false;
    unfit.closest("details").open = true;
    return !unfit.reportValidity();
  };
  const press = (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    }
  };
  return html`<form class="composer" noValidate onSubmit=${(event) => { event.preventDefault(); submit(); }}>
    <div class="tools">${children}</div>
    <div class="writing">
      <textarea ref=${area} rows="1" dir="auto" value=${value} aria-label=${label} aria-describedby=${hint}
        placeholder=${t("messageHint")} onInput=${(event) => { text.value = event.currentTarget.value; }} onKeyDown=${press}></textarea>
      ${stop
        ? html`<button key="stop" type="button" class="main" onClick=${stop}><${Icon} name="stop" /><span>${t("stop")}</span></button>`
        : html`<button key="send" type="submit" class="main" disabled=${!value.trim()}><${Icon} name="send" /><span>${action}</span></button>`}
    </div>
    <p class="hint" id=${hint}>${t("keysHint")}</p>
  </form>`;
}
