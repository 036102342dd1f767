// A full queue, with OpenAI's own library for JavaScript.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const asked = { model: "oneseek", messages: [{ role: "user", content: "Who?" }], max_tokens: 2 };

test("asks again", async () => {
  const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 9 });
  assert.ok((await client.chat.completions.create(asked)).choices.length);
});
