#  The arithmetic of a step.
tl_test (test_update SOURCES unit/test_update.c LIBRARIES tl_fed)
tl_test (test_aggregate SOURCES unit/test_aggregate.c LIBRARIES tests_rig tl_fed)
tl_test (test_metrics SOURCES unit/test_metrics.c LIBRARIES tl_fed PkgConfig::JANSSON)
tl_test (test_writing SOURCES unit/test_writing.c tiny_tokenizer.c LIBRARIES tests_rig tl_data)
tl_test (test_choice SOURCES unit/test_choice.c tiny_tokenizer.c LIBRARIES tests_rig tl_data)

include (fuzz/fuzz.cmake)
tl_fuzz (fuzz_aggregate CORPUS aggregate SOURCES fuzz/fuzz_aggregate.c LIBRARIES tl_fed)

#  SuperGLUE without training; `zeroshot_check GOLDEN DATA all` for every example.
add_executable (zeroshot_check golden/zeroshot_check.c)
target_link_libraries (zeroshot_check PRIVATE tl_model tl_fed tl_data PkgConfig::JANSSON)
set_target_properties (zeroshot_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
add_test (NAME golden_zeroshot COMMAND zeroshot_check ../shared/golden/smollm2-135m ../shared/data/superglue
          WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties (golden_zeroshot PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77 LABELS golden)
