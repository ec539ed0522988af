"""Group attention and one model: tokens in, tokens out. Knows no text generation, document or chat."""
