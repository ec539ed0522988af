"""An HTTP server with OpenAI's chat interface, and documents that are read once (extra `serve`)."""
