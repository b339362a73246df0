"""One batch of OmniGen rows: prompts, images, the engine, and the actor that runs them. Knows nothing of Ray."""
