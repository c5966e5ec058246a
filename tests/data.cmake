#  Data: tokenizer, JSONL, examples as ids, micros.
include (fuzz/fuzz.cmake)
add_executable (tokenizer_check unit/tokenizer_check.c)
target_link_libraries (tokenizer_check PRIVATE tl_data PkgConfig::JANSSON)
set_target_properties (tokenizer_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
foreach (file chatglm-6b/ice_text.model llama2/tokenizer.model)
    get_filename_component (name ${file} DIRECTORY)
    add_test (NAME tokenizer_${name}
              COMMAND tokenizer_check ../shared/golden/tokenizers/${name}.json ../shared/tokenizers/${file}
              WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties (tokenizer_${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 120)
endforeach ()
tl_test (test_data SOURCES unit/test_data.c tiny_tokenizer.c LIBRARIES tl_data)
tl_fuzz (fuzz_jsonl CORPUS jsonl SOURCES fuzz/fuzz_jsonl.c LIBRARIES tl_data)
