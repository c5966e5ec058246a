#  Benchmarks of whole runs; scripts/bench starts them.
add_executable (bench_split bench/bench_split.c bench/bench_material.c bench/bench_run.c)
target_link_libraries (bench_split PRIVATE tl_base PkgConfig::JANSSON)
target_include_directories (bench_split PRIVATE ${CMAKE_SOURCE_DIR}/tests)
set_target_properties (bench_split PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

add_executable (bench_engine_run bench/bench_engine_run.c bench/bench_engine_products.c bench/bench_run.c)
target_link_libraries (bench_engine_run PRIVATE tests_rig PkgConfig::JANSSON)
#  Calls of kernels are timed where a step makes them.
target_link_options (bench_engine_run PRIVATE -Wl,--wrap=tl_kernels)
target_include_directories (bench_engine_run PRIVATE ${CMAKE_SOURCE_DIR}/tests)
set_target_properties (bench_engine_run PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

add_executable (bench_engine bench/bench_engine.c bench/bench_run.c)
target_link_libraries (bench_engine PRIVATE tl_base PkgConfig::JANSSON)
target_include_directories (bench_engine PRIVATE ${CMAKE_SOURCE_DIR}/tests)
set_target_properties (bench_engine PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

add_executable (bench_schedule bench/bench_schedule.c bench/bench_schedule_auto.c bench/bench_schedule_modes.c bench/bench_schedule_load.c
                bench/bench_schedule_links.c bench/bench_schedule_engine.c bench/bench_schedule_simulate.c bench/bench_material.c bench/bench_play.c bench/bench_crew.c bench/bench_run.c slow_link.c)
target_link_libraries (bench_schedule PRIVATE tl_base PkgConfig::JANSSON pthread m)
add_executable (bench_ping bench/bench_ping.c bench/bench_run.c)
target_link_libraries (bench_ping PRIVATE tl_actors)
add_executable (bench_stages bench/bench_stages.c bench/bench_run.c)
target_link_libraries (bench_stages PRIVATE tests_rig)
foreach (program bench_schedule bench_ping bench_stages)
    target_include_directories (${program} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    set_target_properties (${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endforeach ()
