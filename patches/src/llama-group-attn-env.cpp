// Group attention by environment variables, for programs that set nothing: servers, bindings, scripts.
//
//   LLAMA_GROUP_ATTN_N            group size, a power of two, or "auto": the smallest that reads the whole context well
//   LLAMA_GROUP_ATTN_W            tokens that keep their exact distance (default: an eighth of the trained window)
//   LLAMA_GROUP_ATTN_MODE         two-level (default with a number); progressive: the farther the keys, the larger their groups;
//                                 recall: far text is fetched; auto (default with N=auto): progressive, or recall where the context is
//                                 long enough for it and takes it
//   LLAMA_GROUP_ATTN_RECALL       far tokens that recall fetches (default: 2048, fewer with a small window, and of more than three windows)
//   LLAMA_GROUP_ATTN_TEMPERATURE  attention temperature c, see llama-attn-temperature.h
//
// A later llama_set_group_attn() wins. What can't be done is a warning: the context goes on without.
// The rules are those of the Python package (positions.py); tests/native hold the two against each other.

#include "llama-attn-temperature.h"
#include "llama-context.h"
#include "llama-group-attn-api.h"
#include "llama-impl.h"
#include "llama-kv-keys.h"
#include "llama-model.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>

namespace {

constexpr int32_t MAX_STEP       = 2048;
constexpr int32_t MAX_GROUP_SIZE = 64; // of the automatic choice
constexpr int32_t NEAREST        = 4;  // size of the nearest groups of the progressive form

// how much of its trained window a model is trusted to read well
constexpr int32_t RELIABLE_OF_8 = 3;

int32_t default_step(int32_t window) {
    int32_t step = MAX_STEP;

    while (step > 1 && step > window/16) {
        step /= 2;
    }

    return step;
}

int32_t default_neighbours(int32_t window, int32_t n_swa) {
    const int32_t grid = std::max(1, default_step(window)/2);
    const int32_t w    = std::max({ std::min(window/8, 4096), n_swa, grid });

    return (w + grid - 1)/grid*grid;
}

// of recall, in tokens
constexpr int32_t SINKS     = 64;
constexpr int32_t FETCHED   = 2048;
constexpr int32_t LONG      = 3;    // windows. of a longer text fewer tokens are fetched, are near, and choose together
constexpr int32_t OF_LONG   = 1024; // at least
constexpr int32_t SPAN      = 32;
constexpr int32_t NEAR      = 640;  // of each WINDOW of such windows
constexpr int32_t STEP      = 64;
constexpr int32_t STRETCH   = 16;
constexpr int32_t EACH      = 32;
constexpr int32_t FIRST     = 16384;
constexpr int32_t KEEP      = 32;
constexpr int32_t WINDOW    = 8192; // from which on recall begins with what the window doesn't hold
constexpr int32_t FROM_SMALL = 8;   // windows of less

int32_t recall_step(int32_t w, int32_t window) {
    int32_t step = std::max(SPAN, std::min(STEP, default_step(window)));

    while (step*32 <= w) {
        step *= 2;
    }

    return step;
}

// w = 0: the default
llama_recall_params recall(int32_t n_fetched, int32_t w, int32_t window, int32_t n_swa, int32_t n_tokens) {
    const bool is_long = n_tokens > (int64_t) LONG*window;

    if (w == 0) {
        w = is_long && window >= WINDOW ? std::max(std::min<int32_t>((int64_t) window*NEAR/WINDOW, 4096), n_swa) : default_neighbours(window, n_swa);
    }

    const int32_t r = is_long ? recall_step(w, window) : std::max(default_step(window), SPAN);

    if (n_fetched == 0) {
        const int32_t most = is_long ? std::max(OF_LONG, std::min(FETCHED, window/8)) : FETCHED;

        n_fetched = std::max(SPAN, std::min(most, window/2 - SINKS - w - r)/SPAN*SPAN);
    }

    return { w, r, SINKS, n_fetched, SPAN, STRETCH, EACH, std::max(FIRST, n_fetched), KEEP };
}

bool fits(const llama_recall_params & p, int32_t window) {
    return (int64_t) p.n_sinks + p.n_fetched + p.w + p.r <= window;
}

// is a context of n_tokens read by recall if nothing is said?
bool recalls(int32_t n_tokens, const llama_recall_params & p, int32_t window, int32_t n_swa) {
    return n_swa == 0 && fits(p, window) && n_tokens > (window >= WINDOW ? (int64_t) window : (int64_t) FROM_SMALL*window);
}

llama_group_attn scheme(int32_t n, int32_t w, int32_t window, bool progressive) {
    llama_group_attn res;

    if (n == 1) {
        return res;
    }

    const int32_t r = std::max(default_step(window), progressive ? std::min(n, NEAREST) : n);

    if (!progressive) {
        res.levels[0] = { n, w, r };
        return res;
    }

    const int64_t unit = std::lcm<int64_t>(r, n);

    int64_t step  = std::max<int64_t>(unit, std::min<int64_t>(4ll*w, 8ll*r)/unit*unit);
    int64_t start = w;
    int32_t size  = std::min(NEAREST, n);

    res.levels[0] = { size, w, r };

    while (size < n && res.n_levels < llama_group_attn::MAX_LEVELS) {
        start += size == NEAREST ? 3ll*w : (int64_t) size*w/2;
        size   = std::min(4*size, n);

        // farther than any text: the level is never reached
        res.levels[res.n_levels++] = { size, (int32_t) std::min<int64_t>(start, 1 << 30), (int32_t) std::min<int64_t>(step, (1 << 30)/unit*unit) };

        step *= 2;
    }

    return res;
}

// the largest rotation of any of the first n_tokens tokens while they are read: the last one's, that of a token just before
// the last step of a level, or of a level's last step before one of those
int32_t largest_rotation(const llama_group_attn & ga, int32_t n_tokens) {
    std::vector<llama_pos> peaks = { n_tokens - 1 };

    for (int32_t k = 0; k < ga.n_levels; ++k) {
        for (size_t i = 0, n = peaks.size(); i < n; ++i) {
            const auto borders = ga.borders_at(peaks[i]);

            for (int32_t level = 0; level < ga.n_levels; ++level) {
                if (borders[level] > 0) {
                    peaks.push_back(borders[level] + ga.levels[level].w - 1);
                }
            }
        }

        std::sort(peaks.begin(), peaks.end());
        peaks.erase(std::unique(peaks.begin(), peaks.end()), peaks.end());
    }

    int32_t res = 0;

    for (const auto i : peaks) {
        res = std::max(res, ga.rotation(i));
    }

    return res;
}

int32_t choose(int32_t n_tokens, int32_t w, int32_t window, bool progressive) {
    const int32_t usable = std::max<int64_t>(1, (int64_t) window*RELIABLE_OF_8/8);

    if (n_tokens <= usable) {
        return 1;
    }

    const auto rotation = [&](int32_t n) {
        return largest_rotation(scheme(n, w, window, progressive), n_tokens);
    };

    int32_t n = 2;

    while (n < MAX_GROUP_SIZE && rotation(n) >= usable) {
        n *= 2;
    }

    // far groups change nothing where the text doesn't reach them
    while (progressive && n > 2 && rotation(n/2) == rotation(n)) {
        n /= 2;
    }

    return n;
}

const char * get(const char * name) {
    const char * value = getenv(name);

    return value && *value ? value : nullptr;
}

// false: not a number of that range
bool parse(const char * text, int32_t min, int32_t max, int32_t & res) {
    char * end = nullptr;

    errno = 0;
    const long value = strtol(text, &end, 10);

    if (errno != 0 || *end != '\0' || value < min || value > max) {
        return false;
    }

    res = value;
    return true;
}

} // namespace

void llama_group_attn_calls::from_environment(llama_context & ctx) {
    const char * n_text           = get("LLAMA_GROUP_ATTN_N");
    const char * w_text           = get("LLAMA_GROUP_ATTN_W");
    const char * mode_text        = get("LLAMA_GROUP_ATTN_MODE");
    const char * recall_text      = get("LLAMA_GROUP_ATTN_RECALL");
    const char * temperature_text = get("LLAMA_GROUP_ATTN_TEMPERATURE");

    const bool automatic = n_text && strcmp(n_text, "auto") == 0;

    const std::string mode = mode_text ? mode_text : recall_text ? "recall" : automatic ? "auto" : "two-level";

    const bool wanted = n_text || mode == "recall";

    // contexts without memory (embeddings), drafts and the like
    if ((!wanted && !temperature_text) || !ctx.memory || ctx.cparams.ctx_type != LLAMA_CONTEXT_TYPE_DEFAULT || ctx.cparams.ctx_other) {
        return;
    }

    const auto & hparams = ctx.model.hparams;

    const int32_t window      = hparams.n_ctx_train;
    const bool    progressive = mode == "progressive" || mode == "auto";

    int32_t n = 1;
    int32_t w = default_neighbours(window, hparams.n_swa);
    int32_t n_fetched = 0;

    std::string problem;

    if (n_text && !automatic && (!parse(n_text, 1, 1 << 20, n) || (n & (n - 1)) != 0)) {
        problem = format("LLAMA_GROUP_ATTN_N=%s is neither a power of two nor auto", n_text);
    } else if (w_text && !parse(w_text, 1, 1 << 30, w)) {
        problem = format("LLAMA_GROUP_ATTN_W=%s is not a number of tokens", w_text);
    } else if (!progressive && mode != "two-level" && mode != "recall") {
        problem = format("LLAMA_GROUP_ATTN_MODE=%s is none of two-level, progressive, recall and auto", mode.c_str());
    } else if (recall_text && (!parse(recall_text, SPAN, 1 << 30, n_fetched) || n_fetched % SPAN != 0)) {
        problem = format("LLAMA_GROUP_ATTN_RECALL=%s is not a multiple of %d tokens", recall_text, SPAN);
    } else if (mode == "recall" && n > 1) {
        problem = "recall takes no groups: leave LLAMA_GROUP_ATTN_N out";
    }

    const auto fetching = recall(n_fetched, w_text ? w : 0, window, hparams.n_swa, ctx.n_ctx_seq());

    // as the package chooses: where nothing else is said
    const bool chosen = mode == "auto" && automatic && !w_text && recalls(ctx.n_ctx_seq(), fetching, window, hparams.n_swa);

    bool fetches = false;

    if (wanted && problem.empty() && (chosen || mode == "recall")) {
        const int32_t status = fits(fetching, window) ? set_recall(ctx, fetching) : LLAMA_GROUP_ATTN_INVALID_RECALL;

        fetches = status == LLAMA_GROUP_ATTN_OK;

        if (fetches) {
            LLAMA_LOG_INFO("%s: recall of %d, w = %d\n", __func__, fetching.n_fetched, fetching.w);
        } else if (!chosen) {
            problem = llama_group_attn_reason(status);
        }
    }

    if (wanted && problem.empty() && !fetches) {
        if (automatic) {
            n = choose(ctx.n_ctx_seq(), w, window, progressive);
        }

        const auto value = scheme(n, w, window, progressive);

        if (value.enabled() && (int64_t) w + value.levels[0].r > window) {
            problem = format("w=%d doesn't fit the trained window of %d tokens: with steps of %d take at most LLAMA_GROUP_ATTN_W=%d",
                    w, window, value.levels[0].r, window - value.levels[0].r);
        } else if (const int32_t status = set(ctx, value); status != LLAMA_GROUP_ATTN_OK) {
            problem = llama_group_attn_reason(status);
        } else {
            LLAMA_LOG_INFO("%s: group attention n = %d, w = %d%s\n", __func__, n, w, progressive ? ", progressive" : "");
        }
    }

    if (!problem.empty()) {
        LLAMA_LOG_WARN("%s: no group attention: %s\n", __func__, problem.c_str());
    }

    if (temperature_text) {
        char * end = nullptr;

        const float c = strtof(temperature_text, &end);

        const int32_t status = *end == '\0' ? set_temperature(ctx, c) : LLAMA_GROUP_ATTN_INVALID;

        if (status != LLAMA_GROUP_ATTN_OK) {
            LLAMA_LOG_WARN("%s: no attention temperature: LLAMA_GROUP_ATTN_TEMPERATURE=%s: %s\n", __func__, temperature_text,
                    status == LLAMA_GROUP_ATTN_INVALID ? "not a number from 0 to 10" : llama_group_attn_reason(status));
        }
    }
}
