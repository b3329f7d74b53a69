"""Answering prompts: requests of many versions decoded together from one copy of the weights."""
