#  Data: tokenizer, JSONL, examples as ids, micros.
include (fuzz/fuzz.cmake)
add_executable (tokenizer_check unit/tokenizer_check.c)
target_link_libraries (tokenizer_check PRIVATE tl_data PkgConfig::JANSSON PkgConfig::SODIUM)
set_target_properties (tokenizer_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
foreach (name chatglm-6b chatglm3-6b glm-4-9b llama2 gpt2)
    add_test (NAME tokenizer_shared_${name}
              COMMAND tokenizer_check ../shared/golden/tokenizers/${name}.json ../shared/tokenizers/${name}
              WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties (tokenizer_shared_${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 120)
endforeach ()
#  The model file is where TL_SMOLLM2 says.
add_test (NAME tokenizer_shared_smollm2
          COMMAND sh -c "exec $<TARGET_FILE:tokenizer_check> ../shared/golden/tokenizers/smollm2-135m-instruct.json \"\${TL_SMOLLM2:-TL_SMOLLM2, which is not set,}\""
          WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties (tokenizer_shared_smollm2 PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 120)
tl_test (test_split SOURCES unit/test_split.c LIBRARIES tl_data)
tl_test (test_tokenizer SOURCES unit/test_tokenizer.c tiny_tokenizer.c tiny_bpe.c LIBRARIES tl_data PkgConfig::SODIUM)
tl_test (test_chat SOURCES unit/test_chat.c tiny_tokenizer.c tiny_bpe.c LIBRARIES tl_data PkgConfig::SODIUM)
tl_test (test_tokenizer_refused SOURCES unit/test_tokenizer_refused.c tiny_bpe.c LIBRARIES tl_data PkgConfig::SODIUM)
tl_test (test_data SOURCES unit/test_data.c tiny_tokenizer.c LIBRARIES tl_data)
tl_fuzz (fuzz_jsonl CORPUS jsonl SOURCES fuzz/fuzz_jsonl.c LIBRARIES tl_data)
foreach (kind json tiktoken merges spm gguf config text)
    tl_fuzz (fuzz_tokenizer_${kind} CORPUS tokenizer_${kind}
             SOURCES fuzz/fuzz_tokenizer_${kind}.c fuzz/fuzz_tokenizer.c tiny_bpe.c tiny_tokenizer.c
             LIBRARIES tl_data PkgConfig::SODIUM)
endforeach ()
