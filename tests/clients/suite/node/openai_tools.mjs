// Tools with OpenAI's own library for JavaScript.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0 });
const parameters = { type: "object", properties: { city: { enum: ["Oslo", "Rome"] } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
const asked = { model: "oneseek", tools, max_tokens: 150, parallel_tool_calls: false };

test("goes round", async () => {
  const messages = [{ role: "user", content: "The weather?" }];
  const first = await client.chat.completions.create({ ...asked, messages, tool_choice: "required" });
  const [call] = first.choices[0].message.tool_calls;
  assert.ok(["Oslo", "Rome"].includes(JSON.parse(call.function.arguments).city));
  messages.push(first.choices[0].message, { role: "tool", tool_call_id: call.id, content: "sunny" });
  const second = await client.chat.completions.create({ ...asked, messages });
  assert.ok(second.choices[0].message.content);
});

test("streams calls", async () => {
  const messages = [{ role: "user", content: "The weather?" }];
  const named = { type: "function", function: { name: "get_weather" } };
  const stream = client.chat.completions.stream({ ...asked, messages, tool_choice: named });
  const message = await stream.finalMessage();
  assert.equal(message.tool_calls[0].function.name, "get_weather");
});
