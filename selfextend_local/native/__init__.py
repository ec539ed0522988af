"""The native boundary: the only package that touches ctypes and the C functions of llama.cpp.

    library   finding the shared library, what it can do, its devices
    model     a model file: header, vocabulary, tokens and pieces
    context   group attention, positions, states, memory use
    decoding  evaluating and drawing, stopping, what a return code means

One Python function a C call (or a short sequence that belongs together); codes become exceptions, plain Python values
come out. It knows no plans, prompts or documents. Importing it loads no C library.
"""

from .context import (
    KV_TYPES,
    REFUSALS,
    MemoryUse,
    Status,
    add_to_positions,
    clear_memory,
    copy_recurrent_state,
    divide_positions,
    drop_positions,
    load_state,
    memory_use,
    restore_recurrent_state,
    save_state,
    set_attention_temperature,
    set_group_attention,
    state_bytes,
)
from .decoding import (
    Decoder,
    DecodeStatus,
    Sequences,
    abort_when,
    decode_error,
    penalise_repeats,
)
from .library import (
    INSTALL_HINT,
    LibraryInfo,
    bindings,
    free_gpu_memory,
    is_patched,
    library_version,
    native_reason,
    probe,
    require_patched,
)
from .model import (
    Pieces,
    can_group,
    free_model,
    grammar_compiles,
    keeps_all_keys,
    metadata,
    n_layers,
    open_model_without_weights,
    opening_tokens,
    report_loading,
    sliding_window,
    tokenize,
    trained_window,
    try_grammar,
    try_model,
)

__all__ = [
    "DecodeStatus",
    "Decoder",
    "INSTALL_HINT",
    "KV_TYPES",
    "LibraryInfo",
    "MemoryUse",
    "Pieces",
    "REFUSALS",
    "Sequences",
    "Status",
    "abort_when",
    "add_to_positions",
    "bindings",
    "can_group",
    "clear_memory",
    "copy_recurrent_state",
    "decode_error",
    "divide_positions",
    "drop_positions",
    "free_gpu_memory",
    "free_model",
    "grammar_compiles",
    "is_patched",
    "keeps_all_keys",
    "library_version",
    "load_state",
    "memory_use",
    "metadata",
    "n_layers",
    "native_reason",
    "open_model_without_weights",
    "opening_tokens",
    "penalise_repeats",
    "probe",
    "report_loading",
    "require_patched",
    "restore_recurrent_state",
    "save_state",
    "set_attention_temperature",
    "set_group_attention",
    "sliding_window",
    "state_bytes",
    "tokenize",
    "trained_window",
    "try_grammar",
    "try_model",
]
