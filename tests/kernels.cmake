foreach (part convert exp gradients isa linear attention small golden)
    tl_test (test_kernels_${part} SOURCES unit/test_kernels_${part}.c LIBRARIES tl_kernels)
endforeach ()
target_compile_options (test_kernels_exp PRIVATE -fopenmp-simd)   #  it includes the loops' header
tl_test (test_pool LABELS threads SOURCES unit/test_pool.c LIBRARIES tl_kernels)
tl_test (test_kernels_bf16 SOURCES unit/test_kernels_bf16.c LIBRARIES tl_kernels)
add_test (NAME test_kernels_bf16_avx512 COMMAND test_kernels_bf16)
set_tests_properties (test_kernels_bf16_avx512 PROPERTIES ENVIRONMENT TL_BF16=avx512 SKIP_RETURN_CODE 77 TIMEOUT 60)
#  Linears as they are computed where there is no AMX.
add_test (NAME test_kernels_linear_no_amx COMMAND test_kernels_linear)
set_tests_properties (test_kernels_linear_no_amx PROPERTIES ENVIRONMENT TL_BF16=none TIMEOUT 60)
#  The same with the choice of a table pinned (to less where the CPU hasn't that much).
foreach (isa base v3 v4)
    add_test (NAME test_kernels_small_${isa} COMMAND test_kernels_small)
    set_tests_properties (test_kernels_small_${isa} PROPERTIES ENVIRONMENT TL_ISA=${isa})
endforeach ()
#  Timings of one block, run by hand: build/release/tests/bench_kernels
add_executable (bench_kernels bench/bench_kernels.c)
target_link_libraries (bench_kernels PRIVATE tl_kernels)
set_target_properties (bench_kernels PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
