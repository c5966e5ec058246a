tl_test (test_base SOURCES unit/test_base.c LIBRARIES tl_base)
tl_test (test_base_file SOURCES unit/test_base_file.c LIBRARIES tl_base)
tl_test (test_base_random SOURCES unit/test_base_random.c LIBRARIES tl_base)
