"use strict";
const byId = (id) => document.getElementById(id);
// Where the API begins, also behind a proxy that serves it below a path.
const ROOT = location.pathname.replace(/docs\/?$/, "");
const EXAMPLES = {
  ChatFields: { messages: [{ role: "user", content: "Who are you?" }], max_tokens: 64, stream: true },
  CompletionFields: { prompt: "Once upon a time", max_tokens: 32 },
  ResponseFields: { input: "Who are you?", max_output_tokens: 64 },
  EmbeddingFields: { input: "Who are you?" },
  TokenizeFields: { prompt: "Who are you?" },
  DetokenizeFields: { tokens: [1] },
  LegacyFields: { text: "Vem är du?" },
};

// Everything is put in as text, so nothing in the document can become markup.
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function schemaOf(root, schema) {
  const name = schema && schema.$ref && schema.$ref.split("/").pop();
  return name ? { name, schema: root.components.schemas[name] } : { name: "", schema: schema || {} };
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const any = schema.anyOf || schema.oneOf;
  if (any) return any.map(typeOf).filter((one) => one !== "null").join(" | ");
  if (schema.type === "array") return "array of " + typeOf(schema.items || {});
  return Array.isArray(schema.type) ? schema.type.join(" | ") : schema.type || "any";
}

function limits(schema) {
  const one = [schema, ...(schema.anyOf || [])].find((part) => part.minimum !== undefined || part.maximum !== undefined
    || part.exclusiveMinimum !== undefined || part.maxLength !== undefined || part.maxItems !== undefined) || {};
  const said = [];
  if (one.minimum !== undefined) said.push("from " + one.minimum);
  if (one.exclusiveMinimum !== undefined) said.push("above " + one.exclusiveMinimum);
  if (one.maximum !== undefined) said.push("to " + one.maximum);
  if (one.maxLength !== undefined) said.push("at most " + one.maxLength + " characters");
  if (one.maxItems !== undefined) said.push("at most " + one.maxItems);
  if (schema.default !== undefined && schema.default !== null) said.push("default " + JSON.stringify(schema.default));
  if (schema.description) said.push(schema.description);
  return said.join(", ");
}

function fields(schema) {
  const table = make("table", {}, make("tr", {}, make("th", {}, "field"), make("th", {}, "type"), make("th", {}, "")));
  for (const [name, field] of Object.entries(schema.properties || {})) {
    const required = (schema.required || []).includes(name);
    table.append(make("tr", {},
      make("td", {}, make("code", required ? { class: "required" } : {}, name)),
      make("td", {}, typeOf(field)), make("td", {}, limits(field))));
  }
  return table;
}

async function send(method, path, body, answer) {
  const headers = {};
  if (body !== null) headers["Content-Type"] = "application/json";
  if (byId("key").value) headers.Authorization = "Bearer " + byId("key").value;
  answer.textContent = "…";
  try {
    const reply = await fetch(path, { method, headers, body: body === null ? undefined : body });
    const receipt = [...reply.headers].filter(([name]) => name.startsWith("x-") || name === "content-type");
    answer.textContent = reply.status + "\n" + receipt.map((pair) => pair.join(": ")).join("\n") + "\n\n";
    const json = (reply.headers.get("content-type") || "").startsWith("application/json");
    if (json) {
      answer.textContent += JSON.stringify(await reply.json(), null, 2);
      return;
    }
    const reader = reply.body.getReader(), decoder = new TextDecoder();
    for (let part = await reader.read(); !part.done; part = await reader.read())
      answer.textContent += decoder.decode(part.value, { stream: true });
  } catch (error) {
    answer.textContent += String(error);
  }
}

function form(root, method, path, operation) {
  const box = make("div", {});
  const inputs = {};
  for (const parameter of (operation.parameters || []).filter((one) => one.in === "path")) {
    inputs[parameter.name] = make("input", { placeholder: parameter.name });
    box.append(make("label", {}, parameter.name + " ", inputs[parameter.name]), make("br"));
  }
  let text = null;
  if (operation.requestBody) {
    const content = operation.requestBody.content["application/json"].schema;
    for (const one of content.anyOf || [content]) {
      const { name, schema } = schemaOf(root, one);
      box.append(make("h4", {}, name), fields(schema));
      if (!text) {
        text = make("textarea", { "aria-label": "body", spellcheck: "false" });
        text.value = JSON.stringify(EXAMPLES[name] || {}, null, 2);
      }
    }
    box.append(make("p", {}, "Body"), text);
  }
  const answer = make("pre", { hidden: "" }), button = make("button", { type: "button" }, "Send");
  button.addEventListener("click", () => {
    const target = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(inputs[name].value));
    answer.removeAttribute("hidden");
    send(method.toUpperCase(), ROOT + target.replace(/^\//, ""), text && text.value ? text.value : null, answer);
  });
  const statuses = Object.entries(operation.responses).map(([status, one]) => {
    const said = one.$ref ? root.components.responses[one.$ref.split("/").pop()] : one;
    return make("tr", {}, make("td", {}, status), make("td", {}, said.description));
  });
  box.append(make("p", {}, button), answer, make("h4", {}, "Answers"), make("table", {}, ...statuses));
  return box;
}

function show(root) {
  byId("about").textContent = root.info.description;
  const main = byId("operations");
  main.replaceChildren();
  for (const { name: tag } of root.tags) {
    const section = make("section", {}, make("h2", {}, tag));
    for (const [path, methods] of Object.entries(root.paths))
      for (const [method, operation] of Object.entries(methods))
        if (operation.tags.includes(tag)) {
          const head = make("summary", operation.deprecated ? { class: "deprecated" } : {},
            make("span", { class: "method " + method }, method.toUpperCase()), " ", make("code", {}, path), " ",
            make("span", { class: "summary" }, operation.summary));
          const details = make("details", { "data-text": (path + " " + operation.summary).toLowerCase() }, head);
          details.addEventListener("toggle", () => {
            if (details.open && details.children.length === 1) details.append(form(root, method, path, operation));
          });
          section.append(details);
        }
    main.append(section);
  }
}

byId("find").addEventListener("input", (event) => {
  for (const details of document.querySelectorAll("details"))
    details.hidden = !details.dataset.text.includes(event.target.value.toLowerCase());
});
byId("document").href = ROOT + "openapi.json";
fetch(ROOT + "openapi.json").then((reply) => reply.json()).then(show, (error) => {
  byId("operations").textContent = "openapi.json: " + error;
});
