#!/bin/sh
# Open WebUI in front of `selfextend serve`: sh open_webui.sh URL [OPTION ...], options of `open-webui serve`
set -e
export OPENAI_API_BASE_URL="$1/v1" OPENAI_API_KEY="${OPENAI_API_KEY:-none}" ENABLE_OLLAMA_API=false
# a document is read whole, in front of the questions about it: the second one doesn't read it again
export BYPASS_EMBEDDING_AND_RETRIEVAL=true RAG_SYSTEM_CONTEXT=true RAG_EMBEDDING_ENGINE=openai
# what it would ask the model besides: one conversation is in the cache at a time
export ENABLE_RETRIEVAL_QUERY_GENERATION=false ENABLE_TITLE_GENERATION=false ENABLE_TAGS_GENERATION=false ENABLE_FOLLOW_UP_GENERATION=false
# tools of its own, which the server refuses without --parallel
export DEFAULT_MODEL_PARAMS='{"function_calling": "legacy"}'
shift
exec open-webui serve --host 127.0.0.1 "$@"
