// The NBD wire protocol: numbers and structures, named as in the protocol document (NetworkBlockDevice/nbd,
// doc/proto.md).
#pragma once
#include "vmm/base/endian.h"

#include <cstddef>
#include <cstdint>

namespace vmm::block::nbd {

inline constexpr std::uint64_t init_magic = 0x4e42444d41474943;         // "NBDMAGIC"
inline constexpr std::uint64_t option_magic = 0x49484156454f5054;       // "IHAVEOPT"
inline constexpr std::uint64_t old_style_magic = 0x00420281861253;      // what an oldstyle server sends second
inline constexpr std::uint64_t option_reply_magic = 0x0003e889045565a9; // before every reply to an option
inline constexpr std::uint32_t request_magic = 0x25609513;
inline constexpr std::uint32_t simple_reply_magic = 0x67446698;
inline constexpr std::uint32_t structured_reply_magic = 0x668e33ef;

// Handshake flags, both ways.
inline constexpr std::uint16_t flag_fixed_newstyle = 1 << 0, flag_no_zeroes = 1 << 1;

// Transmission flags of an export.
inline constexpr std::uint16_t flag_has_flags = 1 << 0, flag_read_only = 1 << 1, flag_send_flush = 1 << 2,
                               flag_send_fua = 1 << 3, flag_rotational = 1 << 4, flag_send_trim = 1 << 5,
                               flag_send_write_zeroes = 1 << 6, flag_send_df = 1 << 7, flag_can_multi_conn = 1 << 8,
                               flag_send_resize = 1 << 9, flag_send_cache = 1 << 10, flag_send_fast_zero = 1 << 11;

enum class Option : std::uint32_t {
    export_name = 1,
    abort = 2,
    list = 3,
    starttls = 5,
    info = 6,
    go = 7,
    structured_reply = 8,
    list_meta_context = 9,
    set_meta_context = 10,
};

enum class OptionReply : std::uint32_t {
    ack = 1,
    server = 2,
    info = 3,
    meta_context = 4,
    err_unsup = 0x80000001,
    err_policy = 0x80000002,
    err_invalid = 0x80000003,
    err_platform = 0x80000004,
    err_tls_reqd = 0x80000005,
    err_unknown = 0x80000006,
    err_shutdown = 0x80000007,
    err_block_size_reqd = 0x80000008,
    err_too_big = 0x80000009,
};
constexpr bool is_error(OptionReply reply) { return (std::uint32_t(reply) & 0x80000000) != 0; }

enum class Info : std::uint16_t { export_ = 0, name = 1, description = 2, block_size = 3 };

enum class Command : std::uint16_t {
    read = 0,
    write = 1,
    disc = 2,
    flush = 3,
    trim = 4,
    cache = 5,
    write_zeroes = 6,
    block_status = 7,
};
inline constexpr std::uint16_t command_fua = 1 << 0, command_no_hole = 1 << 1, command_df = 1 << 2,
                               command_req_one = 1 << 3, command_fast_zero = 1 << 4;

enum class Chunk : std::uint16_t {
    none = 0,
    offset_data = 1,
    offset_hole = 2,
    block_status = 5,
    error = 0x8001,
    error_offset = 0x8002,
};
constexpr bool is_error(Chunk chunk) { return (std::uint16_t(chunk) & 0x8000) != 0; }
inline constexpr std::uint16_t chunk_done = 1 << 0;

// Bits of an extent, by metadata context.
inline constexpr std::uint32_t state_hole = 1 << 0, state_zero = 1 << 1; // base:allocation
inline constexpr std::uint32_t state_dirty = 1 << 0;                     // qemu:dirty-bitmap:NAME

// What goes over the wire; fields as in the document, in order, packed because the types are unaligned.
struct ServerHello {
    be64 magic, option_magic;
    be16 flags;
};
static_assert(sizeof(ServerHello) == 18);
struct OptionHeader {
    be64 magic;
    be32 option, length;
};
static_assert(sizeof(OptionHeader) == 16);
struct OptionReplyHeader {
    be64 magic;
    be32 option, reply, length;
};
static_assert(sizeof(OptionReplyHeader) == 20);
// The end of NBD_OPT_EXPORT_NAME; 124 zero bytes follow unless both sides said flag_no_zeroes.
struct ExportNameReply {
    be64 size;
    be16 flags;
};
static_assert(sizeof(ExportNameReply) == 10);
inline constexpr std::size_t export_name_zeroes = 124;
struct InfoExport {
    be16 type;
    be64 size;
    be16 flags;
};
static_assert(sizeof(InfoExport) == 12);
struct InfoBlockSize {
    be16 type;
    be32 minimum, preferred, maximum;
};
static_assert(sizeof(InfoBlockSize) == 14);
struct Request {
    be32 magic;
    be16 flags, command;
    be64 cookie, offset;
    be32 length;
};
static_assert(sizeof(Request) == 28);
struct SimpleReply {
    be32 magic, error;
    be64 cookie;
};
static_assert(sizeof(SimpleReply) == 16);
struct StructuredReply {
    be32 magic;
    be16 flags, type;
    be64 cookie;
    be32 length;
};
static_assert(sizeof(StructuredReply) == 20);
struct HolePayload {
    be64 offset;
    be32 length;
};
static_assert(sizeof(HolePayload) == 12);
struct ErrorPayload {
    be32 error;
    be16 message_length;
};
static_assert(sizeof(ErrorPayload) == 6);
struct Extent {
    be32 length, flags;
};
static_assert(sizeof(Extent) == 8);

// "Strings: ... maximum of 4096 bytes".
inline constexpr std::size_t max_string_bytes = 4096;
// Longest read, write or cache request we take and make; also what both sides may assume without a block size.
inline constexpr std::uint32_t max_payload_bytes = 32u << 20;
// Longest option we look at; longer ones, up to max_payload_bytes, are read over and answered with err_too_big.
inline constexpr std::uint32_t max_option_bytes = 64u << 10;
inline constexpr std::uint16_t default_port = 10809;

// The protocol's error numbers (fixed, not the host's) and the host's errno.
std::uint32_t to_wire_error(int errno_value);
int from_wire_error(std::uint32_t wire);

} // namespace vmm::block::nbd
