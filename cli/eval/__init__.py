"""`selfextend eval` and `selfextend tune`: measure a model, and find its settings."""
