#  eval and generate through a running worker. ThreadSanitizer would else look up the stack of every copy that libzmq makes,
#  only to suppress it, and so be ten times slower.
add_executable (live live/live.c live/program.c)
target_link_libraries (live PRIVATE tests_case pthread)
set_target_properties (live PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
foreach (case serving-chatglm serving-llama serving-llama-tied training-llama untrained-chatglm nobody-llama)
    string (REPLACE "-" ";" arguments ${case})
    string (REPLACE "llama;tied" "llama-tied" arguments "${arguments}")
    add_test (NAME live_${case} COMMAND live ${arguments} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties (live_${case} PROPERTIES TIMEOUT 120 LABELS "processes"
                          ENVIRONMENT "TRUNKLINE=$<TARGET_FILE:trunkline>;\
TSAN_OPTIONS=ignore_noninstrumented_modules=1:suppressions=${CMAKE_SOURCE_DIR}/tests/tsan.supp")
endforeach ()
set_tests_properties (live_serving-chatglm live_training-llama PROPERTIES LABELS "processes;threads")
