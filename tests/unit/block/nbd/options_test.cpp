#include "block/nbd/nbd_options.h"

#include <gtest/gtest.h>

using namespace vmm::block;
using namespace vmm::block::nbd;

TEST(NbdNames, uris_give_host_port_export_and_socket) {
    auto tcp = parse_nbd_name("nbd://example.org:1234/my%20disk");
    ASSERT_TRUE(tcp.ok());
    EXPECT_EQ(tcp->address.host, "example.org");
    EXPECT_EQ(tcp->address.port, "1234");
    EXPECT_EQ(tcp->export_name, "my disk");
    auto v6 = parse_nbd_name("nbd://[::1]");
    ASSERT_TRUE(v6.ok());
    EXPECT_EQ(v6->address.host, "::1");
    EXPECT_EQ(v6->address.port, "10809");
    auto local = parse_nbd_name("nbds+unix://me@/x?socket=/run/a&tls-psk-file=/k");
    ASSERT_TRUE(local.ok());
    EXPECT_TRUE(local->tls);
    EXPECT_EQ(local->address.path, "/run/a");
    EXPECT_EQ(local->tls_username, "me");
    EXPECT_EQ(local->tls_psk_file, "/k");
}

TEST(NbdNames, older_names_are_understood) {
    auto tcp = parse_nbd_name("nbd:localhost:10810:exportname=a:b");
    ASSERT_TRUE(tcp.ok());
    EXPECT_EQ(tcp->address.port, "10810");
    EXPECT_EQ(tcp->export_name, "a:b");
    auto local = parse_nbd_name("nbd:unix:/tmp/s:exportname=e");
    ASSERT_TRUE(local.ok());
    EXPECT_EQ(local->address.path, "/tmp/s");
}

TEST(NbdNames, nonsense_is_refused) {
    for (char const* name : {"nbd://", "nbd+unix:///e", "nbd+unix://host/e?socket=/s", "nbd://h/e?socket=/s",
                             "nbd://h/%4", "nbd://h/?colour=red", "nbd:host"})
        EXPECT_FALSE(parse_nbd_name(name).ok()) << name;
}

TEST(NbdNames, option_trees_say_the_same) {
    OpenOptions options;
    options.tree.set("server.type", "unix");
    options.tree.set("server.path", "/s");
    options.tree.set("export", "e");
    options.tree.set("reconnect-delay", "5");
    auto where = nbd_location(options);
    ASSERT_TRUE(where.ok());
    EXPECT_EQ(where->address.path, "/s");
    EXPECT_EQ(where->export_name, "e");
    EXPECT_EQ(where->reconnect_delay_seconds, 5u);
    options.tree.set("server.host", "h");
    EXPECT_FALSE(nbd_location(options).ok());
}
