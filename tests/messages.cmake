#  The codec and the tensor chunks. msgpack is linked to write what another program might.
include (fuzz/fuzz.cmake)
tl_test (test_messages TIMEOUT 240 SOURCES unit/test_messages.c LIBRARIES tl_messages)
tl_test (test_messages_foreign SOURCES unit/test_messages_foreign.c
         LIBRARIES tl_messages ${MSGPACK_LIBRARY})
tl_test (test_tensor_wire SOURCES unit/test_tensor_wire.c
         LIBRARIES tl_messages tl_kernels PkgConfig::ZMQ)
tl_fuzz (fuzz_messages CORPUS messages SOURCES fuzz/fuzz_messages.c LIBRARIES tl_messages)
