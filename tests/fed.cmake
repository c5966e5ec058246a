#  The arithmetic of a step.
tl_test (test_update SOURCES unit/test_update.c LIBRARIES tl_fed)
tl_test (test_metrics SOURCES unit/test_metrics.c LIBRARIES tl_fed PkgConfig::JANSSON)
tl_test (test_writing SOURCES unit/test_writing.c tiny_tokenizer.c LIBRARIES tests_rig tl_data)
tl_test (test_choice SOURCES unit/test_choice.c tiny_tokenizer.c LIBRARIES tests_rig tl_data)
