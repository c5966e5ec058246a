#  The program split over processes and sockets against the program in one place.
add_library (tests_case STATIC equivalence/case.c ports.c tiny_tokenizer.c)
target_include_directories (tests_case PUBLIC ${CMAKE_SOURCE_DIR}/tests)
target_link_libraries (tests_case PUBLIC tests_rig tl_fed tl_topology PkgConfig::JANSSON)

foreach (program one sites sync average wire bytes)
    add_executable (split_${program} equivalence/split_${program}.c)
    target_link_libraries (split_${program} PRIVATE tests_case)
    set_target_properties (split_${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endforeach ()

#  split_test (name program arguments...)
function (split_test name program)
    add_test (NAME ${name} COMMAND ${program} ${ARGN} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties (${name} PROPERTIES TIMEOUT 240 LABELS "equivalence;processes")
    set_property (TEST ${name} PROPERTY ENVIRONMENT "TRUNKLINE=$<TARGET_FILE:trunkline>"
                  "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/tsan.supp")
endfunction ()

#  Every family, split and method; clip, micros and mode so that nearly every three values of anything
#  meet in some case (336 of the 362 there are). The same without processes: test_split_run, all of
#  them. glm, qwen2 and prefixes have fewer here.
foreach (case
         "chatglm 11 lora 0 3 batch"     "chatglm 11 full 100 3 serial"
         "chatglm 12 lora 0 1 serial"    "chatglm 12 full 0 3 batch"
         "chatglm 21 lora 100 1 batch"   "chatglm 21 full 0.1 3 serial"
         "chatglm 22 lora 0.1 3 serial"  "chatglm 22 full 0.1 1 batch"
         "llama-tied 11 lora 100 1 batch"   "llama-tied 11 full 0 1 serial"
         "llama-tied 12 lora 0.1 1 batch"   "llama-tied 12 full 0.1 3 serial"
         "llama-tied 21 lora 0.1 1 serial"  "llama-tied 21 full 100 3 batch"
         "llama-tied 22 lora 0 1 batch"     "llama-tied 22 full 0 3 serial"
         "llama 11 lora 0.1 1 serial"    "llama 11 full 0.1 3 batch"
         "llama 12 lora 100 3 serial"    "llama 12 full 100 1 batch"
         "llama 21 lora 0 3 batch"       "llama 21 full 0 1 serial"
         "llama 22 lora 100 1 serial"    "llama 22 full 100 3 batch"
         "glm 12 lora 0.1 3 batch"       "glm 21 ptuning 0 1 serial"
         "glm-hf 22 full 0 1 batch"      "qwen2 21 full 0.1 3 batch"
         "chatglm 12 ptuning 100 3 batch")
    string (REPLACE " " "-" name ${case})
    string (REPLACE " " ";" arguments ${case})
    split_test (split_one-${name} split_one ${arguments} front,trunk,tail)
endforeach ()
#  Parts that stay frozen.
foreach (parts trunk front,tail)
    split_test (split_one-${parts} split_one chatglm 12 lora 0.1 3 batch ${parts})
endforeach ()
split_test (split_one-full-trunk split_one llama-tied 11 full 0.1 1 batch trunk)
split_test (split_one-full-front,tail split_one llama-tied 11 full 0.1 1 batch front,tail)
#  Other scalings and rates, and tensors that stay frozen: a front without an adapter, some of everything.
split_test (split_one-rslora split_one llama 12 rslora 0.1 3 serial front,trunk,tail)
split_test (split_one-partial split_one chatglm 11 partial 0.1 1 batch front,trunk,tail)
foreach (family chatglm llama)
    foreach (micros 1 3)
        split_test (split_sites-${family}-${micros} split_sites ${family} ${micros})
    endforeach ()
endforeach ()
foreach (method lora full)
    split_test (split_sync-chatglm-${method} split_sync chatglm ${method})
endforeach ()
split_test (split_sync-llama-lora split_sync llama lora)
#  Averages of the clients' adapters, with each server optimizer, FedProx, FedAvg and FedBERT.
foreach (case "11 none 0" "11 avgm 0" "11 adam 0.1" "none none 0" "none adam 0.1" "00 none 0")
    string (REPLACE " " "-" name ${case})
    string (REPLACE " " ";" arguments ${case})
    split_test (split_average-${name} split_average ${arguments})
endforeach ()
split_test (split_wire split_wire)
split_test (split_bytes-4 split_bytes 4 1 1)
split_test (split_bytes-20 split_bytes 20 2 2)
#  These also show ThreadSanitizer what happens between loop, compute thread and sockets.
set_tests_properties (split_one-chatglm-22-lora-0.1-3-serial split_one-llama-21-lora-0-3-batch split_sites-llama-3
                      PROPERTIES LABELS "equivalence;processes;threads")
