# As lean.cmake, for a wheel that suits every CPU of an architecture: libraries for kinds of CPUs, of which one is loaded at run time.
include(${CMAKE_CURRENT_LIST_DIR}/../lean.cmake)

# zig's linker knows no --exclude-libs. Its own C++ library is hidden anyway, in a namespace that the system's doesn't use.
if (CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    string(REPLACE "-Wl,--exclude-libs,libstdc++.a" "" CMAKE_SHARED_LINKER_FLAGS "${CMAKE_SHARED_LINKER_FLAGS}")
endif()

# lean.cmake's, less the libraries that only ask which CPU this is.
function(selfextend_add_all_sources)
    get_property(cpu DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/ggml/src PROPERTY BUILDSYSTEM_TARGETS)
    list(FILTER cpu INCLUDE REGEX "^ggml-cpu")
    list(FILTER cpu EXCLUDE REGEX "-feats$")
    selfextend_add_sources(${SELFEXTEND_SOURCES}/ggml-cpu ${CMAKE_CURRENT_SOURCE_DIR}/ggml/src/ggml-cpu ${cpu})
    selfextend_add_sources(${SELFEXTEND_SOURCES} ${CMAKE_CURRENT_SOURCE_DIR}/src llama)
endfunction()
