// A loop of tools with Vercel's AI SDK.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const provider = createOpenAICompatible({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, name: "oneseek" });
const called = [];
const get_weather = tool({
  description: "The weather of a city",
  inputSchema: z.object({ city: z.enum(["Oslo", "Rome"]) }),
  execute: async ({ city }) => {
    called.push(city);
    return "sunny";
  },
});
const asked = { model: provider("oneseek"), prompt: "The weather?", tools: { get_weather }, maxOutputTokens: 200,
  // One call: a small model would go on until its context is full.
  providerOptions: { oneseek: { parallel_tool_calls: false } } };
const once = { stopWhen: stepCountIs(2), prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber ? "none" : "required" }) };

test("goes round", async () => {
  const answer = await generateText({ ...asked, ...once });
  assert.equal(answer.steps.length, 2);
  assert.ok(called.length);
});

test("goes round, streamed", async () => {
  const answer = streamText({ ...asked, ...once });
  await answer.consumeStream();
  assert.ok((await answer.steps)[0].toolCalls.length);
});
