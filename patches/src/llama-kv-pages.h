#pragma once

// Zeros the buffers of the KV cache in such a way that cells which nothing has been written to take no memory of the host.
// It knows no cells, and leaves the buffers of devices as they are.

#include "ggml-backend.h"

void llama_kv_zero(ggml_backend_buffer_t buffer);
