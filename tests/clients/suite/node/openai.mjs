// OpenAI's own library for JavaScript.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const options = { baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0 };
const client = new OpenAI(options);
const messages = [{ role: "user", content: "Who are you?" }];
const asked = { model: "oneseek", messages, max_tokens: 60, temperature: 0 };

test("lists models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("oneseek-mini-sv"));
});

test("streams what it answers whole", async () => {
  const whole = await client.chat.completions.create(asked);
  let text = "";
  let usage;
  const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

test("chooses an adapter by header", async () => {
  const answer = await client.chat.completions
    .create(asked, { headers: { "X-OneSeek-Adapter": "oneseek-mini-sv" } })
    .withResponse();
  assert.match(answer.response.headers.get("X-OneSeek-Adapter"), /^oneseek-mini-sv/);
});

test("parses structured output", async () => {
  const Answer = z.object({ colour: z.enum(["red", "blue"]), certain: z.boolean() });
  const answer = await client.chat.completions.parse({ ...asked, response_format: zodResponseFormat(Answer, "answer") });
  Answer.parse(answer.choices[0].message.parsed);
});

test("has errors of its own", async () => {
  await assert.rejects(client.chat.completions.create({ ...asked, model: "nobody" }), OpenAI.NotFoundError);
  await assert.rejects(new OpenAI({ ...options, apiKey: "wrong" }).models.list(), OpenAI.AuthenticationError);
  const long = [{ role: "user", content: "word ".repeat(2000) }];
  await assert.rejects(client.chat.completions.create({ ...asked, messages: long }), (error) => {
    assert.equal(error.code, "context_length_exceeded");
    return error instanceof OpenAI.BadRequestError;
  });
});
