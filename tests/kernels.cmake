foreach (part convert exp gradients isa linear attention small golden)
    tl_test (test_kernels_${part} SOURCES unit/test_kernels_${part}.c LIBRARIES tl_kernels)
endforeach ()
#  Timings of one block, run by hand: build/release/tests/bench_kernels
add_executable (bench_kernels bench/bench_kernels.c)
target_link_libraries (bench_kernels PRIVATE tl_kernels)
set_target_properties (bench_kernels PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
