"""`selfextend summarize`: a folder of documents, and its progress."""
