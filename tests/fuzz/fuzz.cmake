#  tl_fuzz (name CORPUS dir SOURCES ... LIBRARIES ...): the libFuzzer target <name> in the fuzz build, and in every
#  build a test <name>_smoke that puts each seed of tests/fuzz/corpus/<dir> through it, cut and flipped.
include_guard ()
function (tl_fuzz name)
    cmake_parse_arguments (F "" "CORPUS;TIMEOUT" "SOURCES;LIBRARIES" ${ARGN})
    set (corpus ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${F_CORPUS})
    if (TL_FUZZ)
        add_executable (${name} ${F_SOURCES})
        target_link_libraries (${name} PRIVATE ${F_LIBRARIES} -fsanitize=fuzzer)
        set_target_properties (${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
    endif ()
    if (NOT F_TIMEOUT)
        set (F_TIMEOUT 120)
    endif ()
    tl_test (${name}_smoke TIMEOUT ${F_TIMEOUT} LABELS fuzz ARGS ${corpus}
             SOURCES ${F_SOURCES} fuzz/smoke.c LIBRARIES ${F_LIBRARIES})
endfunction ()
