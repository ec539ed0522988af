"""Sessions: what survives the end of the program.

    StateCache   what a model has read, on disk, so that a document is read once
    ChatStore    chats, so that they can be continued
"""

from selfextend_local.sessions.chats import ChatMessage, ChatRecord, ChatStore, DocumentReference
from selfextend_local.sessions.export import export_json, export_markdown

from .state_file import Entry, StateInfo
from .states import StateCache

__all__ = [
    "ChatMessage",
    "ChatRecord",
    "ChatStore",
    "DocumentReference",
    "Entry",
    "StateCache",
    "StateInfo",
    "export_json",
    "export_markdown",
]
