#  The running side of src/model: golden vectors, segments, generation.
add_executable (golden_check golden/golden_check.c golden/golden_case.c golden/golden_run.c golden/golden_train.c golden/golden_gguf.c)
target_link_libraries (golden_check PRIVATE tl_model tl_fed PkgConfig::JANSSON)
set_target_properties (golden_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

foreach (case chatglm glm glm-hf llama mistral qwen2 gguf-k)
    add_test (NAME golden_${case} COMMAND golden_check tests/golden/data/${case}
              WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    add_test (NAME golden_tampered_${case}
              COMMAND tests/golden/tamper.sh $<TARGET_FILE:golden_check> tests/golden/data/${case}
              WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties (golden_${case} golden_tampered_${case} PROPERTIES TIMEOUT 60 LABELS golden)
endforeach ()
foreach (case chatglm-v1 chatglm-v1-depth chatglm2 glm4 llama-untied llama-tied qwen2 gguf)
    add_test (NAME golden_shared_${case} COMMAND golden_check ../shared/golden/${case}
              WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties (golden_shared_${case} PROPERTIES TIMEOUT 120 SKIP_RETURN_CODE 77 LABELS golden)
endforeach ()

#  A real model out of a GGUF file; skipped without TL_SMOLLM2.
add_executable (smollm2_check golden/smollm2_check.c)
target_link_libraries (smollm2_check PRIVATE tl_model tl_fed PkgConfig::JANSSON)
set_target_properties (smollm2_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
add_test (NAME golden_smollm2 COMMAND smollm2_check ../shared/golden/smollm2-135m
          WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties (golden_smollm2 PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77 LABELS golden)

#  Tiny random models and the same step by plain calls; other areas' tests link it too.
add_library (tests_rig STATIC tiny_model.c rig.c)
target_include_directories (tests_rig PUBLIC ${CMAKE_SOURCE_DIR}/tests)
target_link_libraries (tests_rig PUBLIC tl_model tl_fed)

tl_test (test_segment_split TIMEOUT 240 SOURCES unit/test_segment_split.c LIBRARIES tests_rig)

add_executable (bench_segment bench/bench_segment.c)
target_link_libraries (bench_segment PRIVATE tests_rig)
set_target_properties (bench_segment PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
tl_test (test_contents SOURCES unit/test_contents.c LIBRARIES tests_rig PkgConfig::JANSSON)
tl_test (test_segment SOURCES unit/test_segment.c LIBRARIES tests_rig)
tl_test (test_model_bf16 SOURCES unit/test_model_bf16.c LIBRARIES tests_rig)
tl_test (test_segment_plan SOURCES unit/test_segment_plan.c LIBRARIES tests_rig)
tl_test (test_segment_cache SOURCES unit/test_segment_cache.c LIBRARIES tests_rig)
tl_test (test_published SOURCES unit/test_published.c LIBRARIES tests_rig PkgConfig::JANSSON)
set_tests_properties (test_published PROPERTIES SKIP_RETURN_CODE 77)
