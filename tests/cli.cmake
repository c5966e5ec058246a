foreach (name usage topologies train bad_input keys)
    tl_script_test (cli_${name} COMMAND sh tests/cli/${name}.sh LABELS cli)
endforeach ()

tl_test (test_split_run TIMEOUT 120 LABELS equivalence
         SOURCES equivalence/test_split_run.c tiny_tokenizer.c LIBRARIES tests_rig tl_fed tl_data)
tl_test (test_sample SOURCES unit/test_sample.c LIBRARIES tl_fed)
