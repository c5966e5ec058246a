tl_test (test_rundb SOURCES unit/test_rundb.c LIBRARIES tl_stats)
