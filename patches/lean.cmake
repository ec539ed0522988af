# CMake reads this after llama.cpp's project() call. The Python package ships llama, ggml and mtmd;
# llama-common (argument parsing, chat templates, HTTP) is half the compile time and is never loaded.
set(LLAMA_BUILD_COMMON OFF)

# A toolchain that links libstdc++ statically would have each library export its copy. In a process that has loaded the
# system's, as Python has, the two mix: std::regex then crashes in the tokenizer.
if (CMAKE_SYSTEM_NAME STREQUAL "Linux")
    string(APPEND CMAKE_SHARED_LINKER_FLAGS " -Wl,--exclude-libs,libstdc++.a")
endif()
