"""What a batch sets otherwise than a chat."""

from __future__ import annotations

from selfextend_local.engine.plan import Settings

BATCH = Settings(kv_type="f16")
"""One KV type whatever memory is free, so that an answer doesn't depend on what else the machine does, or on the texts before."""
