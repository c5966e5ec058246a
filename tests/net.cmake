#  Keys, ZAP, sockets, links. Sockets are real, on ephemeral ports of 127.0.0.1.
foreach (part keys zap socket socket_strangers link link_breaks)
    tl_test (test_${part} SOURCES unit/test_${part}.c LIBRARIES tl_net)
endforeach ()
