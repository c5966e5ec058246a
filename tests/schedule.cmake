#  The choice of arrangement and its cost models, and the simulator that drives the same scheduler.
tl_test (test_choose SOURCES unit/test_choose.c LIBRARIES tl_scheduler)
tl_test (test_window SOURCES unit/test_window.c LIBRARIES tl_scheduler)
tl_test (test_simulate SOURCES unit/test_simulate.c LIBRARIES tl_simulate)
tl_test (test_simulate_federate SOURCES unit/test_simulate_federate.c LIBRARIES tl_simulate)
tl_test (test_simulate_auto TIMEOUT 120 SOURCES unit/test_simulate_auto.c LIBRARIES tl_simulate)
tl_test (test_simulate_worlds TIMEOUT 240 SOURCES unit/test_simulate_worlds.c LIBRARIES tl_simulate)
