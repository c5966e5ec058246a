#  The choice of arrangement and its cost models, and the simulator that drives the same scheduler.
tl_test (test_choose SOURCES unit/test_choose.c LIBRARIES tl_scheduler)
tl_test (test_window SOURCES unit/test_window.c LIBRARIES tl_scheduler)
