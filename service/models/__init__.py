"""The models that can be served besides the embedded one, and where they are: named models, GGUF files, Hugging Face."""
