#include "tests/support/fake_frontend.h"
#include "ui/chardev/telnet.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::ui;
using namespace vmm::test;

TEST(Telnet, commands_are_taken_out_also_when_they_come_in_pieces) {
    TelnetFilter filter;
    std::string_view const input("a\xff\xfd\x01"
                                 "b\xff\xfa\x1f\x00\x50\xff\xff\x18\xff\xf0"
                                 "c\xff\xff"
                                 "d\r\0e\r\nf\xff\xf3g",
                                 28);
    std::string data;
    unsigned total = 0;
    for (char c : input) {
        unsigned breaks = 0;
        for (std::uint8_t byte : filter.decode(bytes_of({&c, 1}), breaks)) data += char(byte);
        total += breaks;
    }
    EXPECT_EQ(data, "abc\xff"
                    "d\re\rfg");
    EXPECT_EQ(total, 1u);
}
