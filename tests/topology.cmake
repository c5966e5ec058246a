tl_test (test_topology SOURCES unit/test_topology.c LIBRARIES tl_topology)
