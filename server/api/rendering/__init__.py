"""From deltas to OpenAI's objects, without sending them; the endpoints import it."""
