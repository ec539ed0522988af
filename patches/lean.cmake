# CMake reads this after llama.cpp's project() call. The Python package ships llama, ggml and mtmd;
# llama-common (argument parsing, chat templates, HTTP) is half the compile time and is never loaded.
set(LLAMA_BUILD_COMMON OFF)
