add_executable (free_ports free_ports.c ports.c)
target_link_libraries (free_ports PRIVATE tl_base)
set_target_properties (free_ports PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
foreach (name usage simulate topologies hosts runs up lock train tasks resume export quantize bad_input keys load window readme)
    tl_script_test (cli_${name} TIMEOUT 400 COMMAND sh tests/cli/${name}.sh LABELS cli)
endforeach ()

#  Figures of a model that learns: nothing for sanitizers, which have the same code in smaller tests.
tl_script_test (cli_federate TIMEOUT 300 COMMAND sh tests/cli/federate.sh LABELS figures)
tl_script_test (cli_memory TIMEOUT 60 COMMAND sh tests/cli/memory.sh LABELS figures)

tl_test (test_split_run TIMEOUT 240 LABELS equivalence
         SOURCES equivalence/test_split_run.c tiny_tokenizer.c LIBRARIES tests_rig tl_fed tl_data)
tl_test (test_sample SOURCES unit/test_sample.c LIBRARIES tl_fed)
