#  The arithmetic of a step.
tl_test (test_update SOURCES unit/test_update.c LIBRARIES tl_fed)
tl_test (test_metrics SOURCES unit/test_metrics.c LIBRARIES tl_fed PkgConfig::JANSSON)
