# CMake reads this after llama.cpp's project() call. The Python package ships llama, ggml and mtmd;
# llama-common (argument parsing, chat templates, HTTP) is half the compile time and is never loaded.
set(LLAMA_BUILD_COMMON OFF)

# A toolchain that links libstdc++ statically would have each library export its copy. In a process that has loaded the
# system's, as Python has, the two mix: std::regex then crashes in the tokenizer.
if (CMAKE_SYSTEM_NAME STREQUAL "Linux")
    string(APPEND CMAKE_SHARED_LINKER_FLAGS " -Wl,--exclude-libs,libstdc++.a")
endif()

# Our own sources: those of patches/src that lie in this tree, besides the ones that llama.cpp's CMake files name.
set(SELFEXTEND_SOURCES ${CMAKE_CURRENT_LIST_DIR}/src)

function(selfextend_add_sources folder place)
    file(GLOB names CONFIGURE_DEPENDS RELATIVE ${folder} ${folder}/*.cpp)
    foreach (name ${names})
        if (EXISTS ${place}/${name})
            foreach (target ${ARGN})
                target_sources(${target} PRIVATE ${place}/${name})
                set_source_files_properties(${place}/${name} TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
            endforeach()
        endif()
    endforeach()
endfunction()

function(selfextend_add_all_sources)
    # with GGML_CPU_ALL_VARIANTS there is a library for each kind of CPU
    get_property(cpu DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/ggml/src PROPERTY BUILDSYSTEM_TARGETS)
    list(FILTER cpu INCLUDE REGEX "^ggml-cpu")
    selfextend_add_sources(${SELFEXTEND_SOURCES}/ggml-cpu ${CMAKE_CURRENT_SOURCE_DIR}/ggml/src/ggml-cpu ${cpu})
    selfextend_add_sources(${SELFEXTEND_SOURCES} ${CMAKE_CURRENT_SOURCE_DIR}/src llama)
endfunction()

# the targets don't exist yet
cmake_language(DEFER CALL selfextend_add_all_sources)
