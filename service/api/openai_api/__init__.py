"""The OpenAI API over the versions of a store: `/v1`. What its clients expect, in their words, and nothing of it unsaid."""
