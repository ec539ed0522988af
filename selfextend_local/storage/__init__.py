"""Bytes on disk: folders, files, free space, and which model a file is. Knows nothing of documents, models or chats."""
