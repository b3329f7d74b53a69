"""The training of the embedded model: its text, its tokenizer, its checkpoints and its card."""
