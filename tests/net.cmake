#  Keys, ZAP, sockets, links. Sockets are real, on ephemeral ports of 127.0.0.1.
foreach (part keys zap outsiders socket socket_strangers link link_breaks)
    tl_test (test_${part} TIMEOUT 180 SOURCES unit/test_${part}.c LIBRARIES tl_net)
    set_property (TEST test_${part} APPEND PROPERTY
                  ENVIRONMENT "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/tsan.supp")
endforeach ()
