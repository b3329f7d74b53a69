"""How the embedded model was made: its training text, its tokenizer, its training and its card."""
