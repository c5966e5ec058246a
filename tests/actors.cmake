#  Actors: the schedule as it is, and whole runs of real processes under faults (chaos).
tl_test (test_schedule SOURCES unit/test_schedule.c LIBRARIES tl_actors)
