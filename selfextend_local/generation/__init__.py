"""Prompts in, text out: the chat template, sampling, and the loop from tokens to text. Knows no documents."""
