#pragma once

// The first passes of a Walsh-Hadamard transform, between values that lie in one vector: ggml takes them one by one. Quantised
// caches have each query, key, value and outcome transformed. The bits are those of ggml's loop.
//
// Must not know: what is transformed.

#include "simd-mappings.h"

#include <stdint.h>

// Those passes of a row of n values; returns the length of the next pass, 1 if nothing was done.
static inline int64_t ggml_fwht_lanes(float * row, int64_t n) {
#if defined(__AVX512F__)
    if (n >= 16) {
        const __m512 one = _mm512_set1_ps(1.0f);
        for (int64_t i = 0; i < n; i += 16) {
            __m512 x = _mm512_loadu_ps(row + i);
            // the other one of each pair, plus or minus this one
            x = _mm512_fmadd_ps(x, _mm512_mask_sub_ps(one, 0xAAAA, _mm512_setzero_ps(), one), _mm512_permute_ps(x, 0xB1));
            x = _mm512_fmadd_ps(x, _mm512_mask_sub_ps(one, 0xCCCC, _mm512_setzero_ps(), one), _mm512_permute_ps(x, 0x4E));
            x = _mm512_fmadd_ps(x, _mm512_mask_sub_ps(one, 0xF0F0, _mm512_setzero_ps(), one), _mm512_shuffle_f32x4(x, x, 0xB1));
            x = _mm512_fmadd_ps(x, _mm512_mask_sub_ps(one, 0xFF00, _mm512_setzero_ps(), one), _mm512_shuffle_f32x4(x, x, 0x4E));
            _mm512_storeu_ps(row + i, x);
        }
        return 16;
    }
#elif defined(__AVX2__)
    if (n >= 8) {
        const __m256 first  = _mm256_setr_ps(0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f);
        const __m256 second = _mm256_setr_ps(0.0f, 0.0f, -0.0f, -0.0f, 0.0f, 0.0f, -0.0f, -0.0f);
        const __m256 third  = _mm256_setr_ps(0.0f, 0.0f, 0.0f, 0.0f, -0.0f, -0.0f, -0.0f, -0.0f);
        for (int64_t i = 0; i < n; i += 8) {
            __m256 x = _mm256_loadu_ps(row + i);
            x = _mm256_add_ps(_mm256_permute_ps(x, 0xB1), _mm256_xor_ps(x, first));
            x = _mm256_add_ps(_mm256_permute_ps(x, 0x4E), _mm256_xor_ps(x, second));
            x = _mm256_add_ps(_mm256_permute2f128_ps(x, x, 0x01), _mm256_xor_ps(x, third));
            _mm256_storeu_ps(row + i, x);
        }
        return 8;
    }
#endif
    (void) row;
    (void) n;
    return 1;
}
