// Promote, roll back, start and end a canary: each asks once, in place, and says what will happen.
import { html, useEffect, useState } from "./ui.js";
import { askForKey, ownersKey, post } from "./api.js";
import { modelName, overview, refresh } from "./server.js";
import { t } from "./words.js";

const USUAL_SHARE = 10;

export function Changes({ alias }) {
  const [wish, setWish] = useState(null);
  const [said, say] = useState("");
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  useEffect(() => setProblem(""), [ownersKey.value]);
  if (!overview.value?.changeable) return html`<p class="quiet">${t("closedAdmin")}</p>`;
  const others = alias.versions.filter((one) => one.version !== alias.active && !one.problem);
  const divided = alias.versions.some((one) => one.share !== null || one.shadow !== null);
  const want = (next) => {
    setWish(next);
    say("");
    setProblem("");
  };
  const act = async () => {
    setBusy(true);
    try {
      say(await make(alias, wish));
      setWish(null);
      refresh();
    } catch (error) {
      setProblem(error.message);
      askForKey(error, "admin");
    }
    setBusy(false);
  };
  return html`<div class="changes"><h3>${t("change")}</h3>
    ${wish ? html`<div class="confirm" role="group" aria-label=${t(wish.what)}>
        ${wish.what !== "rollback" && wish.what !== "endCanary" && html`<label>${t("version")} <select value=${wish.version} onChange=${(event) => setWish({ ...wish, version: event.currentTarget.value })}>
          ${others.map((one) => html`<option key=${one.version} value=${one.version}>${one.version}</option>`)}</select></label>`}
        ${wish.what === "startCanary" && html`<label>${t("percent")} <input type="number" min="1" max="99" value=${wish.share} onInput=${(event) => event.currentTarget.value && setWish({ ...wish, share: Math.min(99, Math.max(1, Number(event.currentTarget.value))) })} /></label>`}
        <p>${t(PROMISES[wish.what], { alias: alias.alias, active: alias.active, version: wish.version, share: wish.share })}</p>
        ${problem && html`<p class="failure" role="alert">${problem}</p>`}
        <div class="acts open"><button type="button" class="main" disabled=${busy} onClick=${act}>${t("sure")}</button>
          <button type="button" onClick=${() => want(null)}>${t("cancel")}</button></div></div>`
      : html`<div class="acts open">
        <button type="button" disabled=${!others.length} onClick=${() => want({ what: "promote", version: others.at(-1).version })}>${t("promote")}</button>
        <button type="button" onClick=${() => want({ what: "rollback" })}>${t("rollback")}</button>
        ${divided ? html`<button type="button" onClick=${() => want({ what: "endCanary" })}>${t("endCanary")}</button>`
          : html`<button type="button" disabled=${!others.length} onClick=${() => want({ what: "startCanary", version: others.at(-1).version, share: USUAL_SHARE })}>${t("startCanary")}</button>`}</div>`}
    <p role="status" class="quiet">${said}</p></div>`;
}

const PROMISES = { promote: "willPromote", rollback: "willRollback", startCanary: "willCanary", endCanary: "willSettle" };

// Do what was wished, and say what came of it.
async function make(alias, { what, version, share }) {
  const place = (name, verb) => `admin/adapters/${encodeURIComponent(modelName(alias.base_name, name))}/${verb}`;
  const done = {
    promote: () => post(place(`${alias.alias}@${version}`, "promote")),
    rollback: () => post(place(alias.alias, "rollback")),
    startCanary: () => post(place(alias.alias, "canary"), { shares: { [version]: share, [alias.active]: 100 - share } }),
    endCanary: () => post(place(alias.alias, "settle")),
  };
  const answer = await done[what]();
  if (!answer.live) return t("didPending");
  return what === "promote" || what === "rollback" ? t("didLive", { name: answer.name }) : t("didShares");
}
