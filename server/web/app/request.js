// A request as it is sent, and the same as curl and as Python.

// The name of no voice, by which the server chooses one.
export const AUTOMATIC = "oneseek";

// The `model` that the options name.
export function modelOf(options) {
  if (options.voice === "auto") return AUTOMATIC;
  if (options.voice !== "blend") return options.voice;
  const { first, second, weight } = options.blend;
  const rest = Number((1 - weight).toFixed(2));
  if (!rest) return first;
  if (!weight) return second;
  return `${first}=${weight},${second}=${rest}`;
}

// What goes with every request that the options ask for.
export function sampling({ temperature, topP, maxTokens, seed }) {
  const set = { temperature, top_p: topP, max_tokens: maxTokens, seed };
  return Object.fromEntries(Object.entries(set).filter(([, value]) => value !== "").map(([name, value]) => [name, Number(value)]));
}

export function chatBody(options, messages) {
  return {
    model: modelOf(options),
    messages,
    stream: true,
    stream_options: { include_usage: true },
    receipt: true,
    ...sampling(options),
  };
}

// The header by which a browser says which languages its reader prefers.
export function acceptLanguage(languages = navigator.languages) {
  return languages.map((tag, place) => (place ? `${tag};q=${Math.max(0.1, 1 - place / 10).toFixed(1)}` : tag)).join(",");
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

// `keyed` says whether a key went with the request; `accept` is its Accept-Language if that may have mattered.
export function asCurl(url, body, keyed, accept = "") {
  const lines = [`curl -N ${quoted(url)}`, "-H 'Content-Type: application/json'"];
  if (keyed) lines.push('-H "Authorization: Bearer $ONESEEK_API_KEY"');
  if (accept) lines.push(`-H ${quoted(`Accept-Language: ${accept}`)}`);
  lines.push(`-d ${quoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

const LITERALS = { true: "True", false: "False", null: "None" };

// A JSON value as Python writes it. JSON's strings are Python's too.
export function asLiteral(value, indent = "") {
  const deeper = `${indent}    `;
  if (Array.isArray(value)) {
    return value.length ? `[\n${value.map((one) => deeper + asLiteral(one, deeper)).join(",\n")},\n${indent}]` : "[]";
  }
  if (value !== null && typeof value === "object") {
    const items = Object.entries(value).map(([name, one]) => `${deeper}${JSON.stringify(name)}: ${asLiteral(one, deeper)}`);
    return items.length ? `{\n${items.join(",\n")},\n${indent}}` : "{}";
  }
  return LITERALS[String(value)] && typeof value !== "string" ? LITERALS[String(value)] : JSON.stringify(value);
}

// With Python's standard library alone: it runs wherever Python does.
export function asPython(url, body, keyed, accept = "") {
  const key = keyed ? '\n        "Authorization": "Bearer " + os.environ["ONESEEK_API_KEY"],' : "";
  const languages = accept ? `\n        "Accept-Language": ${JSON.stringify(accept)},` : "";
  return `import json${keyed ? "\nimport os" : ""}
import urllib.request

body = ${asLiteral(body)}
request = urllib.request.Request(
    ${JSON.stringify(url)},
    data=json.dumps(body).encode(),
    headers={
        "Content-Type": "application/json",${key}${languages}
    },
)
with urllib.request.urlopen(request) as answer:
    for line in answer:
        print(line.decode(), end="")
`;
}
