#  Model files: safetensors, config.json, directories, adapters.
include (fuzz/fuzz.cmake)
tl_test (test_safetensors SOURCES unit/test_safetensors.c LIBRARIES tl_model)
tl_test (test_model_open SOURCES unit/test_model_open.c LIBRARIES tl_model)
tl_fuzz (fuzz_safetensors CORPUS safetensors SOURCES fuzz/fuzz_safetensors.c LIBRARIES tl_model)
tl_fuzz (fuzz_config CORPUS config SOURCES fuzz/fuzz_config.c LIBRARIES tl_model)
