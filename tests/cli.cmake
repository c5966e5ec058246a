foreach (name usage topologies train bad_input keys)
    tl_script_test (cli_${name} COMMAND sh tests/cli/${name}.sh LABELS cli)
endforeach ()
