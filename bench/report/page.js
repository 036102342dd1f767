"use strict";
const report = JSON.parse(document.getElementById("report").textContent);
const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
const line = getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
const colours = ["#2f6fb3", "#c4622d", "#3f8f5b", "#8a5bb0", "#b03a55", "#7c7a2a", "#3a9aa6", "#6b6f76"];
const colour = (number) => colours[number % colours.length];

function axes(x, y, more = {}) {
  const common = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
  return [{ ...common, label: x, ...more }, { ...common, label: y, size: 70 }];
}

function draw(place, data, series, x, y, options = {}) {
  const box = document.createElement("div");
  place.append(box);
  const width = Math.min(1100, document.body.clientWidth - 20);
  return new uPlot({
    width, height: 320, scales: { x: { time: false } }, axes: axes(x, y, options.axis),
    series: [{ label: x }, ...series], ...options.more,
  }, data, box);
}

function nothing(place, text) {
  const said = document.createElement("p");
  said.className = "none";
  said.textContent = text;
  place.append(said);
}

/** A choice among the scenarios, whose plots `show` draws into the place that it is given. */
function choose(id, keep, show, otherwise) {
  const place = document.getElementById(id);
  const found = report.scenarios.filter(keep);
  if (!found.length) return nothing(place, otherwise);
  const picker = document.createElement("select");
  found.forEach((scenario, number) => picker.add(new Option(`${scenario.name}, ${scenario.load}`, number)));
  const inner = document.createElement("div");
  const redraw = () => { inner.replaceChildren(); show(inner, found[picker.value]); };
  picker.addEventListener("change", redraw);
  place.append(picker, inner);
  redraw();
}

function bars(place, names, values, label, unit) {
  const spread = uPlot.paths.bars({ size: [0.7, 80] });
  const series = values.map((set, number) => ({
    label: set.label, stroke: colour(number), fill: colour(number) + "66", paths: spread, points: { show: false },
  }));
  const axis = {
    values: (_, ticks) => ticks.map((tick) => Number.isInteger(tick) ? (names[tick] || "") : ""),
    splits: () => names.map((_, number) => number), rotate: names.length > 6 ? -40 : 0, size: names.length > 6 ? 110 : 40,
  };
  const scales = {
    x: { time: false, range: () => [-0.6, names.length - 0.4] },
    y: { range: (_, __, most) => [0, (most || 1) * 1.05] },
  };
  draw(place, [names.map((_, number) => number), ...values.map((set) => set.values)], series, label, unit, { axis, more: { scales } });
}

function byLoad() {
  const place = document.getElementById("load");
  const lines = report.loads.filter((found) => found.points.length > 1);
  if (!lines.length) return nothing(place, "Only one load was measured; --ramp measures several.");
  for (const found of lines) {
    const heading = document.createElement("h3");
    heading.textContent = found.name;
    place.append(heading);
    const column = (name) => found.points.map((point) => point[name]);
    const names = ["ttft_p50_ms", "ttft_p95_ms", "itl_p95_ms"];
    const labels = ["TTFT p50", "TTFT p95", "inter-token p95"];
    draw(place, [column("load"), ...names.map(column)],
      labels.map((label, number) => ({ label, stroke: colour(number), width: 2 })), "load", "ms");
    draw(place, [column("load"), column("tokens_per_second")],
      [{ label: "tokens/s", stroke: colour(3), width: 2 }], "load", "tokens/s");
  }
}

function firstTokens() {
  const place = document.getElementById("ttft");
  const found = report.scenarios.map((scenario) => ({
    name: `${scenario.name}, ${scenario.load}`,
    times: scenario.requests.map((request) => request.ttft_ms).filter((time) => time !== null).sort((a, b) => a - b),
  })).filter((entry) => entry.times.length);
  if (!found.length) return nothing(place, "There is no distribution, because no streamed answer was measured.");
  const tables = found.map((entry) => [entry.times, entry.times.map((_, number) => (number + 1) / entry.times.length)]);
  draw(place, uPlot.join(tables), found.map((entry, number) => ({
    label: entry.name, stroke: colour(number), width: 2, spanGaps: true, points: { show: false },
  })), "TTFT, ms", "share of requests");
}

byLoad();
firstTokens();
choose("batch", (scenario) => scenario.batch.length > 1, (place, scenario) => {
  const column = (name) => scenario.batch.map((sample) => sample[name]);
  draw(place, [column("at"), column("running"), column("waiting")],
    [{ label: "running", stroke: colour(0), width: 2 }, { label: "waiting", stroke: colour(1), width: 2 }],
    "seconds", "requests");
}, "The server does not report its batch, or the run was too short for two samples.");
choose("adapters", (scenario) => Object.keys(scenario.adapters).length, (place, scenario) => {
  const names = Object.keys(scenario.adapters).slice(0, 40);
  const column = (name) => names.map((adapter) => scenario.adapters[adapter][name]);
  bars(place, names, [{ label: "tokens/s", values: column("tokens_per_second") }], "adapter", "tokens/s");
  bars(place, names, [{ label: "TTFT p95", values: column("ttft_p95_ms") }], "adapter", "ms");
}, "No request was answered.");
(() => {
  const place = document.getElementById("limit");
  const found = report.scenarios.filter((scenario) => scenario.share_of_limit !== null);
  if (!found.length) return nothing(place, "The run was not compared with a limit. Give one with --limit-tokens-per-second; oneseek bench limits computes it.");
  bars(place, found.map((scenario) => scenario.name),
    [{ label: "share of the limit", values: found.map((scenario) => scenario.share_of_limit) }], "scenario", "share");
})();
