#include "block/formats/qcow/header.h"

namespace vmm::block::qcow {

Result<void> validate(Header const& h, std::string const& filename) {
    auto bad = [&](std::string_view field, std::uint64_t value, std::string_view why) {
        return error("Could not open '{}': qcow header field {} is {}: {}", filename, field, value, why);
    };
    if (h.magic != magic) return error("Could not open '{}': Image not in qcow format", filename);
    if (h.version != 1) return bad("version", h.version, "only version 1 is qcow; use the qcow2 driver for later ones");
    if (h.size <= 1 || h.size > INT64_MAX) return bad("size", h.size, "too small or too large");
    if (h.cluster_bits < 9 || h.cluster_bits > 16) return bad("cluster_bits", h.cluster_bits, "must be 9 to 16");
    if (h.l2_bits < 6 || h.l2_bits > 13) return bad("l2_bits", h.l2_bits, "must be 6 to 13");
    if (h.crypt_method > crypt_aes) return bad("crypt_method", h.crypt_method, "only AES (1) is known");
    if (h.l1_entries() > max_l1_entries) return bad("size", h.size, "needs too large a table");
    if (h.l1_offset > INT64_MAX || h.l1_offset < sizeof h) return bad("l1_table_offset", h.l1_offset, "out of range");
    if (h.backing_offset != 0 && h.backing_size > max_backing_name)
        return bad("backing_file_size", h.backing_size, "backing file name too long");
    if (h.backing_offset > INT64_MAX) return bad("backing_file_offset", h.backing_offset, "out of range");
    return {};
}

} // namespace vmm::block::qcow
