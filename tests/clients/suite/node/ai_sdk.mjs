// Vercel's AI SDK.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateObject, generateText, streamText } from "ai";
import { z } from "zod";

const options = { baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, name: "oneseek" };
const provider = createOpenAICompatible({ ...options, supportsStructuredOutputs: true, includeUsage: true });
const asked = { model: provider("oneseek-mini-en"), prompt: "Who are you?", maxOutputTokens: 60, temperature: 0, maxRetries: 0 };
const schema = z.object({ colour: z.enum(["red", "blue"]), certain: z.boolean() });

test("answers whole and streamed alike", async () => {
  const whole = await generateText(asked);
  const streamed = streamText(asked);
  let text = "";
  for await (const part of streamed.textStream) text += part;
  assert.equal(text, whole.text);
  assert.ok((await streamed.usage).outputTokens > 0);
});

test("makes objects", async () => {
  schema.parse((await generateObject({ ...asked, schema })).object);
  const given = await generateText({ ...asked, output: Output.object({ schema }) });
  schema.parse(given.output);
});

test("says what failed", async () => {
  await assert.rejects(generateText({ ...asked, model: provider("nobody") }), (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 404);
    return true;
  });
  const wrong = createOpenAICompatible({ ...options, apiKey: "wrong" });
  await assert.rejects(generateText({ ...asked, model: wrong("oneseek") }), (error) => error.statusCode === 401);
});
