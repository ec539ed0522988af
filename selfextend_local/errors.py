"""The exceptions of selfextend-local.

    SelfExtendError
    ├── DocumentError
    │   ├── DocumentNotFound
    │   ├── DocumentEncrypted
    │   ├── DocumentDamaged
    │   ├── DocumentEmpty
    │   ├── DocumentUnsupported
    │   ├── ReaderTimeout
    │   ├── ReaderOutOfMemory
    │   ├── ReaderCrashed
    │   └── ReaderFailed
    ├── LibraryError
    ├── ModelError
    │   ├── ModelNotFound
    │   └── ModelUnsupported
    ├── GroupAttentionError
    ├── ContextOverflow
    ├── MemoryBudgetError
    ├── NothingAsked
    ├── CommandError
    ├── SessionError
    ├── BatchError
    └── Interrupted

Each message says what is wrong and names the next step. All of them survive
pickling, because batch workers send them between processes. This file imports
nothing and knows nothing of the code that raises.
"""

from __future__ import annotations


class SelfExtendError(Exception):
    """Base of everything that this package raises on purpose."""


class DocumentError(SelfExtendError):
    """A document could not be turned into text."""


class DocumentNotFound(DocumentError):
    """The path names nothing, a directory, or something that we may not read."""


class DocumentEncrypted(DocumentError):
    """The document needs a password, or its encryption is not known to us."""


class DocumentDamaged(DocumentError):
    """The file claims to be a document of a known kind but cannot be parsed."""


class DocumentEmpty(DocumentError):
    """The document was read and holds no text: zero bytes, or scanned pages."""


class DocumentUnsupported(DocumentError):
    """Not a kind of document that we read: a web address, binary data, an image."""


class ReaderTimeout(DocumentError):
    """Reading the document took longer than it may."""


class ReaderOutOfMemory(DocumentError):
    """Reading the document took more memory than it may."""


class ReaderCrashed(DocumentError):
    """The document ended the process that read it."""


class ReaderFailed(DocumentError):
    """An error of ours while reading, which is not the document's fault."""


class LibraryError(SelfExtendError):
    """The native llama.cpp library is missing, or lacks the SelfExtend patch."""


class ModelError(SelfExtendError):
    """A model file could not be used."""


class ModelNotFound(ModelError, ValueError):
    """As llama-cpp-python's, a ValueError. No model was named and none is installed, or the named file is not there."""


class ModelUnsupported(ModelError):
    """The model was read, but its architecture cannot run with group attention."""


class GroupAttentionError(SelfExtendError):
    """The group size n or the neighbour window w is invalid, or they do not agree."""


class ContextOverflow(SelfExtendError, ValueError):
    """The prompt has more tokens than the context can hold. As llama-cpp-python's, a ValueError.

    Attributes:
        n_tokens: length of the prompt, in tokens.
        capacity: tokens that fit.
        over: ``n_tokens - capacity``, the tokens to lose.
    """

    def __init__(self, message: str, n_tokens: int, capacity: int) -> None:
        # All arguments go to the base class, since pickle rebuilds from args.
        super().__init__(message, n_tokens, capacity)
        self.message = message
        self.n_tokens = n_tokens
        self.capacity = capacity

    @property
    def over(self) -> int:
        """Tokens beyond the capacity."""
        return self.n_tokens - self.capacity

    def __str__(self) -> str:
        return self.message


class MemoryBudgetError(SelfExtendError):
    """The context would need more memory than is free; nothing was allocated."""


class NothingAsked(SelfExtendError):
    """The chat has no turn yet that could be undone, repeated or shown."""


class CommandError(SelfExtendError):
    """A command of the terminal chat was used in a way that it can't follow."""


class SessionError(SelfExtendError):
    """A saved chat or state is missing, damaged or can't be written, or its name can't be a file's."""


class BatchError(SelfExtendError):
    """A batch can't start or go on: its inputs are ambiguous, its output is in use, damaged or full, no server answers."""


class Interrupted(SelfExtendError):
    """The user stopped the prefill.

    Attributes:
        n_done: tokens that had been evaluated, and remain valid, at the stop.
    """

    def __init__(self, message: str, n_done: int) -> None:
        super().__init__(message, n_done)
        self.message = message
        self.n_done = n_done

    def __str__(self) -> str:
        return self.message
