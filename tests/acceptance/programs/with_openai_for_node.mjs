// npm's `openai`, told a base URL and nothing else.
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "not needed", maxRetries: 0 });
const model = process.env.MODEL, messages = [{ role: "user", content: "Say hello." }];
const told = {};
const whole = await client.chat.completions.create({ model, messages, max_tokens: 12 });
told.whole = [whole.choices[0].message.content, whole.usage.total_tokens];
let pieces = 0;
const stream = await client.chat.completions.create({ model, messages, max_tokens: 24, stream: true });
for await (const chunk of stream) if (chunk.choices[0]?.delta.content) pieces += 1;
told.pieces = pieces;
const parameters = {
  type: "object", properties: { city: { type: "string", maxLength: 12 } }, required: ["city"],
  additionalProperties: false,
};
const gathered = client.chat.completions.stream({
  model, messages: [{ role: "user", content: "What is the weather in Paris?" }], max_tokens: 80,
  tools: [{ type: "function", function: { name: "weather", parameters } }], tool_choice: "required",
});
const final = await gathered.finalChatCompletion();
told.call = final.choices[0].message.tool_calls[0].function;
const response = await client.responses.stream({ model, input: "Say hello.", max_output_tokens: 24 }).finalResponse()
  .catch((error) => ({ error: String(error) }));
const events = [];
for await (const event of await client.responses.create({ model, input: "Hi", max_output_tokens: 8, stream: true }))
  events.push(event.type);
told.events = [events[0], events.at(-1)];
told.response = response.error ?? response.output_text;
const vectors = await client.embeddings.create({ model, input: ["hello", "world"] });
told.vectors = vectors.data.map((item) => item.embedding.length);
told.models = (await client.models.list()).data.map((item) => item.id);
try { await client.chat.completions.create({ model: "nobody", messages }); }
catch (error) { told.error = [error.constructor.name, error.status, error.code]; }
console.log(JSON.stringify(told));
