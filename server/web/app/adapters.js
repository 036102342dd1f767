// The view Adapters: every alias, its versions, how canaries do, and where a version is from.
import { Act, copy, html, number, percentage, short, Skeleton, useEffect, useRef, useState } from "./ui.js";
import { askForKey, get, key, ownersKey } from "./api.js";
import { Changes } from "./changes.js";
import { colour } from "./colours.js";
import { Lineage } from "./lineage.js";
import { closed, follow, look, needKey, requests } from "./recent.js";
import { aliases, modelName, overview, several } from "./server.js";
import { language, LanguageName, t } from "./words.js";

// `rest` is what follows "#/adapters/": an alias or a full name, whose row is open then.
export function Adapters({ rest }) {
  useEffect(() => follow(), []);
  useEffect(() => {
    if (closed.value) look();
  }, [key.value, ownersKey.value]);
  if (!overview.value) return html`<div class="wide"><h1>${t("adapters")}</h1><${Skeleton} lines=${6} /></div>`;
  const wanted = wantedAlias(rest.slice(rest.indexOf(":") + 1).split("@")[0].toLowerCase());
  return html`<div class="adapters wide data"><h1>${t("adapters")}</h1>
    ${aliases.value.length ? html`<div class="scroll" tabindex="0" role="region" aria-label=${t("adapters")}><table>
      <thead><tr><th scope="col">${t("alias")}</th><th scope="col">${t("language")}</th><th scope="col">${t("active")}</th><th scope="col">${t("state")}</th><th scope="col" class="count">${t("requests")}</th><th scope="col">${t("canary")}</th></tr></thead>
      <tbody>${aliases.value.map((one) => html`<${Row} key=${`${one.base_name}:${one.alias}`} alias=${one} isOpen=${one === wanted} rest=${rest} />`)}</tbody></table></div>`
      : html`<div class="empty"><h2>${t("noAdapters")}</h2><p>${t("noAdaptersHint")}</p></div>`}</div>`;
}

// The alias of that name, else the one that speaks that language.
const wantedAlias = (name) => aliases.value.find((one) => one.alias.toLowerCase() === name) ?? aliases.value.find((one) => one.language === name);

const activeOf = (alias) => alias.versions.find((one) => one.version === alias.active);
const state = (version) => (version.problem ? t("broken") : version.tier ? t(`tier_${version.tier}`) : t("cold"));

function Row({ alias, isOpen, rest }) {
  const name = modelName(alias.base_name, alias.alias);
  const active = activeOf(alias);
  const row = useRef(null);
  // A link may lead far down the table.
  useEffect(() => {
    if (isOpen) row.current.scrollIntoView({ block: "nearest" });
  }, [isOpen]);
  return html`<tr ref=${row} class=${isOpen ? "is-open" : ""}>
      <th scope="row"><a href=${isOpen ? "#/adapters" : `#/adapters/${encodeURIComponent(name)}`} aria-expanded=${isOpen}><i class="swatch" style=${{ background: colour(alias.alias) }}></i>${name}</a></th>
      <td>${alias.language ? LanguageName(alias.language) : "–"}</td><td><code>${alias.active}</code></td>
      <td><span class=${active.problem ? "bad" : ""}>${state(active)}</span></td>
      <td class="count"><${Requests} alias=${alias} /></td><td><${Canary} alias=${alias} /></td></tr>
    ${isOpen && html`<tr class="detail"><td colspan="6"><div class="inner"><${Detail} alias=${alias} rest=${rest} /></div></td></tr>`}`;
}

// Names in samples have their base before them if a server has several.
const counted = (version, alias) => requests.value.get(several.value ? `${alias.base_name}:${version.name}` : version.name) ?? [0, 0];

function Requests({ alias }) {
  if (closed.value) return html`<button type="button" class="plain" onClick=${needKey}>${t("requestsHidden")}</button>`;
  const sum = alias.versions.reduce((total, version) => total + counted(version, alias)[0], 0);
  return number(sum, 0, language.value);
}

function Canary({ alias }) {
  const trial = alias.versions.filter((one) => one.version !== alias.active && (one.share !== null || one.shadow !== null));
  if (!trial.length) return "–";
  return trial.map((one) => html`<div key=${one.version}><code>${one.version}</code> ${one.share !== null
    ? t("share", { share: number(one.share, 0, language.value) }) : t("shadowShare", { share: number(one.shadow, 0, language.value) })}
    <${Beside} ours=${one.figures} theirs=${activeOf(alias).figures} /></div>`);
}

const rate = ({ answers, errors }) => (answers ? percentage(errors / answers, 1, language.value) : "–");
const time = (value) => (value === null || value === undefined ? "–" : `${number(value, value < 10 ? 1 : 0, language.value)} ms`);

// A canary's figures beside the active version's.
function Beside({ ours, theirs }) {
  if (!ours) return null;
  const other = theirs ?? { answers: 0, errors: 0, first_token_ms: null };
  return html`<div class="quiet">${t("errorRate")} ${rate(ours)} / ${rate(other)} · ${t("firstToken")} ${time(ours.first_token_ms)} / ${time(other.first_token_ms)}</div>`;
}

function Detail({ alias, rest }) {
  const asked = rest.includes("@") ? rest.split("@")[1].toLowerCase() : "";
  const first = alias.versions.find((one) => one.version.toLowerCase() === asked) ?? activeOf(alias);
  const [chosen, choose] = useState(first.name);
  useEffect(() => choose(first.name), [rest]);
  const version = alias.versions.find((one) => one.name === chosen) ?? first;
  return html`<div class="version-list" role="group" aria-label=${t("versions")}>${alias.versions.map((one) => html`
      <button key=${one.name} type="button" aria-pressed=${one.name === version.name} onClick=${() => choose(one.name)}>
        <i class="swatch" style=${{ background: colour(one.name) }}></i>${one.version}
        ${one.version === alias.active && html`<span class="tag calm">${t("isActive")}</span>`}
        ${one.share !== null && one.version !== alias.active && html`<span class="tag calm">${percentage(one.share / 100, 0, language.value)}</span>`}</button>`)}</div>
    <${Version} alias=${alias} version=${version} /><${Changes} key=${alias.alias} alias=${alias} />`;
}

function Version({ alias, version }) {
  const [found, setFound] = useState(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    let gone = false;
    setProblem("");
    get(`v1/adapters/${encodeURIComponent(modelName(alias.base_name, version.name))}`).then((one) => {
      if (!gone) setFound(one);
    }, (error) => {
      askForKey(error);
      if (!gone) setProblem(error.message);
    });
    return () => {
      gone = true;
    };
  }, [version.name, version.digest]);
  if (problem) return html`<p class="failure" role="alert">${problem}</p>`;
  if (found?.name !== version.name) return html`<${Skeleton} lines=${4} />`;
  const [answered, failed] = counted(version, alias);
  return html`<div class="sheets"><div><h3>${t("card")}</h3><${Card} version=${found} /></div>
    <div><h3>${t("last15")}</h3><dl class="facts">
      <dt>${t("state")}</dt><dd>${version.problem ?? state(version)}</dd>
      <dt>${t("answers")}</dt><dd>${closed.value ? "–" : number(answered, 0, language.value)}</dd>
      <dt>${t("errorRate")}</dt><dd>${closed.value ? "–" : rate(version.figures ?? { answers: answered, errors: failed })}</dd>
      <dt>${t("firstToken")}</dt><dd>${time(version.figures?.first_token_ms)}</dd>
      <dt>${t("betweenTokens")}</dt><dd>${time(version.figures?.between_tokens_ms)}</dd></dl></div></div>
    <${Lineage} version=${found} />`;
}

function Card({ version }) {
  const { card } = version;
  const facts = [
    [t("dataset"), [card.dataset ?? []].flat().join(", ")],
    [t("rows"), typeof card.rows === "number" ? number(card.rows, 0, language.value) : ""],
    [t("rank"), card.rank ? `${card.rank}, ${card.alpha}` : ""],
    [t("targets"), [card.targets ?? []].flat().join(", ")],
    [t("loss"), typeof card.metrics?.loss === "number" ? number(card.metrics.loss, 3, language.value) : ""],
    [t("created"), card.created ? new Date(card.created).toLocaleDateString(language.value, { dateStyle: "medium" }) : ""],
  ];
  return html`<dl class="facts">${version.digest && html`<dt>${t("digest")}</dt><dd><${Act} class="plain code" act=${() => copy(version.digest)} done=${t("copied")} title=${`${t("copyDigest")}: ${version.digest}`}>sha256:${short(version.digest)}…<//></dd>`}
    ${facts.filter(([, value]) => value).map(([name, value]) => html`<dt key=${name}>${name}</dt><dd key=${`v${name}`}>${value}</dd>`)}</dl>`;
}
