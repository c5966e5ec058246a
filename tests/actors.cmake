#  Actors: the schedule as it is, and whole runs of real processes under faults (chaos).
tl_test (test_scheduler SOURCES unit/test_scheduler.c unit/scheduler_rig.c unit/scheduler_rig_actions.c LIBRARIES tl_scheduler)
tl_test (test_scheduler_groups SOURCES unit/test_scheduler_groups.c unit/scheduler_rig.c unit/scheduler_rig_actions.c LIBRARIES tl_scheduler)
tl_test (test_scheduler_chance SOURCES unit/test_scheduler_chance.c unit/scheduler_rig.c unit/scheduler_rig_actions.c LIBRARIES tl_scheduler)
tl_test (test_scheduler_window SOURCES unit/test_scheduler_window.c unit/scheduler_rig.c unit/scheduler_rig_actions.c LIBRARIES tl_scheduler)
tl_test (test_merge_job SOURCES unit/test_merge_job.c LIBRARIES tests_rig tl_actors)

tl_test (test_restarts SOURCES unit/test_restarts.c LIBRARIES tl_actors)
tl_test (test_board SOURCES unit/test_board.c LIBRARIES tl_ui PkgConfig::JANSSON m)

#  chaos_test (program test ...): a program over the stage, each of its tests by name.
function (chaos_test program)
    add_executable (chaos_${program} chaos/${program}.c chaos/stage.c chaos/proxy.c chaos/peer.c chaos/trunk.c)
    target_link_libraries (chaos_${program} PRIVATE tests_case tl_actors)
    set_target_properties (chaos_${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    foreach (name ${ARGN})
        add_test (NAME chaos_${program}-${name} COMMAND chaos_${program} ${name}
                  WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
        set_tests_properties (chaos_${program}-${name} PROPERTIES TIMEOUT 120 LABELS "chaos;processes"
                              ENVIRONMENT "TRUNKLINE=$<TARGET_FILE:trunkline>;TRUNKLINE_FAULTS=$<TARGET_FILE:trunkline_faults>;TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/tsan.supp")
    endforeach ()
endfunction ()

chaos_test (lost client_batch client_serial client_alone worker_before_a_step worker_before_a_save
            worker_after_a_save worker_again worker_scoring served_without_save
            stop_without_worker broker worker_crashes broker_again supervisor)
chaos_test (resume all_batch all_serial all_early broker_batch broker_serial broker_half_a_step broker_slow_up broker_serving
            both_fanout both_average both_avgm both_sync both_auto both_window stopped refused other_text lost_directory unsaved)
chaos_test (stop moments keep served twice alone down client worker all_clients worker_saves)
chaos_test (disk broker run_db client directory directory_worker directory_aggregator worker worker_last
            worker_fanout worker_fanout_last worker_spare worker_leaves worker_resumes aggregator aggregator_fanout)
chaos_test (links cut_client cut_worker cut_short stall_client stall_worker data_client data_worker data_group asleep
            broker_asleep order name_taken)
chaos_test (refused keys other_key no_zap plain disagree other_models other_run port_in_use second_up files part_directory)
chaos_test (merged aggregator_average aggregator_sync aggregator_unsaved narrow client joins joins_average joins_sync
            giver_sync leaves spoiled late late_quorum)
chaos_test (numbers nan exploding exploding_both nan_of_one damaged)
chaos_test (fanout groups worker_early worker_late spare worker_asleep aggregator client_average client_sync
            client_window worker_window)
chaos_test (rounds batch serial fanout early)
chaos_test (hostile all window deaf none)
chaos_test (hostile_trunk untimely untimely_window unwanted groups late state bad_state)
chaos_test (hostile_rows step forwarded reader)
chaos_test (hostile_merge average sum stale pieces trunk)
chaos_test (hostile_order early_commit other_run coming_back restored part)
#  The program with a hook at its sockets that does faults (chaos/fault.c): for stage_faults, and for runs whose faults a seed
#  chooses.
add_executable (trunkline_faults $<TARGET_OBJECTS:trunkline> chaos/fault.c)
get_target_property (libraries trunkline LINK_LIBRARIES)
target_link_libraries (trunkline_faults PRIVATE ${libraries})
target_link_options (trunkline_faults PRIVATE -Wl,--wrap=tl_actor_watch_socket)
add_executable (chaos_seeds chaos/seeds.c chaos/stage.c chaos/replay.c chaos/replay_step.c)
target_link_libraries (chaos_seeds PRIVATE tests_case tl_actors)
set_target_properties (trunkline_faults chaos_seeds PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
#  A smoke of them, which has every mode; scripts/bench chaos runs 200.
set (seeds 1-10)
if (CMAKE_C_FLAGS MATCHES fsanitize)
    set (seeds 2-5)
endif ()
add_test (NAME chaos_seeds COMMAND chaos_seeds ${seeds} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties (chaos_seeds PROPERTIES TIMEOUT 400 LABELS "seeds;processes"
                      ENVIRONMENT "TRUNKLINE=$<TARGET_FILE:trunkline_faults>;TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/tsan.supp")
#  What the broker holds is measured there: memory that AddressSanitizer keeps back is not meant.
set_property (TEST chaos_hostile-deaf APPEND PROPERTY ENVIRONMENT "ASAN_OPTIONS=quarantine_size_mb=1")
tl_test (test_actor SOURCES unit/test_actor.c LIBRARIES tl_actors)
tl_test (test_timed SOURCES unit/test_timed.c slow_link.c LIBRARIES tl_actors pthread)
