// A request as it is sent, and the same as curl and as Python.

// The `model` that the options name.
export function modelOf(options) {
  if (options.voice === "auto") return "oneseek";
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

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function asCurl(url, body, keyed) {
  const lines = [`curl -N ${quoted(url)}`, "-H 'Content-Type: application/json'"];
  if (keyed) lines.push('-H "Authorization: Bearer $ONESEEK_API_KEY"');
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
export function asPython(url, body, keyed) {
  const key = keyed ? '\n        "Authorization": "Bearer " + os.environ["ONESEEK_API_KEY"],' : "";
  return `import json${keyed ? "\nimport os" : ""}
import urllib.request

body = ${asLiteral(body)}
request = urllib.request.Request(
    ${JSON.stringify(url)},
    data=json.dumps(body).encode(),
    headers={
        "Content-Type": "application/json",${key}
    },
)
with urllib.request.urlopen(request) as answer:
    for line in answer:
        print(line.decode(), end="")
`;
}
