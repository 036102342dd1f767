// Where a version is from, as a small graph: data on the left, then what was made of it, then the signature.
import { Act, copy, html, number, short } from "./ui.js";
import { language, t } from "./words.js";

const WIDTH = 216;
const HEIGHT = 64;
const ACROSS = 48;
const DOWN = 20;

// What moves an alias to a version makes nothing.
const MOVES = ["promote", "rollback"];

const words = (role) => {
  const key = `role_${role}`;
  const text = t(key);
  return text === key ? role : text;
};

// The tree of the ledger, or what the maker noted, as { label, title, detail, sources }.
function fromLedger(node, names, top = true) {
  const made = [...new Set(node.made.map((entry) => entry.action))].filter((action) => !MOVES.includes(action)).join(", ");
  const known = names.get(node.digest);
  return {
    label: top ? t("role_adapter") : words(node.role),
    title: node.subject ?? known ?? (node.digest ? short(node.digest) : "–"),
    detail: [made || t("outside"), node.subject || known ? short(node.digest ?? "") : ""].filter(Boolean).join(" · "),
    digest: node.digest,
    sources: node.sources.map((source) => fromLedger(source, names, false)),
  };
}

// What the ledger knows by digest alone and the card by name.
function namesOf({ card, base_name: base }) {
  const data = [card.dataset ?? []].flat();
  const title = data.length > 1 ? `${data[0]} +${data.length - 1}` : data[0];
  return new Map([[card.base_digest, base], [card.dataset_digest, title]].filter(([digest, name]) => digest && name));
}

function fromCard(version) {
  const { card } = version;
  const sources = [];
  if (card.dataset_digest || card.dataset) {
    const names = [card.dataset ?? []].flat();
    const rows = typeof card.rows === "number" ? `${number(card.rows, 0, language.value)} ${t("rows").toLowerCase()}` : "";
    sources.push({ label: words("data"), title: names.length > 1 ? `${names[0]} +${names.length - 1}` : names[0] ?? "–", full: names.join(", "), detail: rows, digest: card.dataset_digest, sources: [] });
  }
  if (card.base_digest) sources.push({ label: words("base"), title: version.base_name, detail: short(card.base_digest), digest: card.base_digest, sources: [] });
  return { label: t("role_adapter"), title: version.name, detail: version.digest ? short(version.digest) : "–", digest: version.digest, sources };
}

const depth = (node) => 1 + Math.max(0, ...node.sources.map(depth));

// A place for each node: sources one column to the left, one below the other, each node in their middle.
function placed(node, column, next, nodes, edges) {
  const rows = node.sources.map((source) => placed(source, column - 1, next, nodes, edges));
  const row = rows.length ? (rows[0].row + rows.at(-1).row) / 2 : next.row++;
  const at = { node, row, x: column * (WIDTH + ACROSS), y: row * (HEIGHT + DOWN) };
  nodes.push(at);
  for (const source of rows) edges.push([source, at]);
  return at;
}

export function Lineage({ version }) {
  const signed = version.ledger === "signed" && version.lineage;
  const root = signed ? fromLedger(version.lineage, namesOf(version)) : fromCard(version);
  const entries = signed ? [...version.lineage.made, ...version.lineage.since].sort((one, other) => one.sequence - other.sequence) : [];
  const columns = depth(root);
  const nodes = [];
  const edges = [];
  const next = { row: 0 };
  const top = placed(root, columns - 1, next, nodes, edges);
  const last = entries.at(-1);
  const seal = {
    node: { label: signed ? t("signedNode") : t("notSigned"), title: last ? t("entry", { number: last.sequence }) : "–", detail: last ? short(last.hash) : "", digest: last?.hash, isOpen: !signed },
    row: top.row, x: columns * (WIDTH + ACROSS), y: top.y,
  };
  nodes.push(seal);
  edges.push([top, seal]);
  const width = columns * (WIDTH + ACROSS) + WIDTH;
  const height = next.row * (HEIGHT + DOWN) - DOWN;
  const note = signed ? "ledgerSigned" : version.ledger === "damaged" ? "ledgerDamaged" : "ledgerNone";
  return html`<div class="lineage"><h3>${t("lineage")}</h3><p class="quiet">${t(note)}</p>
    <div class="graph" tabindex="0" role="group" aria-label=${t("lineageOf", { name: version.name })}><div style=${{ width: `${width}px`, height: `${height}px` }}>
      <svg width=${width} height=${height} aria-hidden="true">${edges.map(([from, to], place) => html`<path key=${place} class=${to === seal && !signed ? "open" : ""}
        d=${`M${from.x + WIDTH} ${from.y + HEIGHT / 2} C${from.x + WIDTH + ACROSS / 2} ${from.y + HEIGHT / 2} ${to.x - ACROSS / 2} ${to.y + HEIGHT / 2} ${to.x} ${to.y + HEIGHT / 2}`} />`)}</svg>
      <ol>${nodes.map(({ node, x, y }, place) => html`<${Node} key=${place} node=${node} x=${x} y=${y} />`)}</ol></div></div>
    ${entries.length > 0 && html`<ol class="entries">${entries.map((entry) => html`<li key=${entry.sequence}>
      <span class="figure">#${entry.sequence}</span> ${entry.action} <span class="quiet">${entry.subject} · ${when(entry.time)}</span></li>`)}</ol>`}</div>`;
}

function when(time) {
  const at = new Date(time);
  return Number.isNaN(at.getTime()) ? time : at.toLocaleString(language.value, { dateStyle: "medium", timeStyle: "short" });
}

function Node({ node, x, y }) {
  const body = html`<span class="quiet">${node.label}</span><b title=${node.full ?? node.title}>${node.title}</b><span class="quiet">${node.detail}</span>`;
  return html`<li class=${node.isOpen ? "open" : ""} style=${{ left: `${x}px`, top: `${y}px`, width: `${WIDTH}px`, height: `${HEIGHT}px` }}>
    ${node.digest ? html`<${Act} class="node" act=${() => copy(node.digest)} done=${t("copied")} title=${node.digest}>${body}<//>` : html`<span class="node">${body}</span>`}</li>`;
}
