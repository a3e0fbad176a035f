#include "block/nbd/client_handshake.h"

#include "block/nbd/wire_reader.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::nbd {

namespace {

Error protocol_error(std::string text) { return Error(std::move(text), EPROTO); }

// A server's words, fit for a terminal.
std::string printable(std::string text) {
    std::ranges::replace_if(
        text, [](unsigned char c) { return c < 32 && c != '\n'; }, '?');
    return text;
}

Error refused(OptionReply kind, std::string const& text) {
    std::string reason;
    int code = EINVAL;
    switch (kind) {
    case OptionReply::err_unsup: reason = "Server does not support a needed option"; break;
    case OptionReply::err_policy:
        reason = "Denied by server";
        code = EACCES;
        break;
    case OptionReply::err_invalid: reason = "Server lacks support for an option or its parameters"; break;
    case OptionReply::err_platform: reason = "Server lacks support for an option"; break;
    case OptionReply::err_tls_reqd:
        reason = "Server requires TLS; use tls-creds or nbds://";
        code = EACCES;
        break;
    case OptionReply::err_unknown:
        reason = "Requested export not available";
        code = ENOENT;
        break;
    case OptionReply::err_shutdown:
        reason = "Server shutting down";
        code = ESHUTDOWN;
        break;
    case OptionReply::err_block_size_reqd: reason = "Server requires its block size to be used"; break;
    default: reason = fmt::format("Unknown error code {:#x} from the server", std::uint32_t(kind)); break;
    }
    if (!text.empty()) reason += "\nserver reported: " + printable(text);
    return Error(reason, code);
}

} // namespace

Task<Result<void>> ClientHandshake::send(Option which, ConstBytes data) {
    std::vector<std::uint8_t> message;
    append_wire(
        message,
        OptionHeader{.magic = option_magic, .option = std::uint32_t(which), .length = std::uint32_t(data.size())});
    message.insert(message.end(), data.begin(), data.end());
    IoVector all{ConstBytes(message)};
    Result<void> sent = co_await connection_.stream->write_all(all.const_spans());
    co_return sent;
}

Task<Result<ClientHandshake::Reply>> ClientHandshake::receive(Option which) {
    OptionReplyHeader header;
    CO_TRY(co_await connection_.reader.read_struct(header));
    if (header.magic != option_reply_magic) co_return protocol_error("Unexpected option reply magic");
    if (header.option != std::uint32_t(which))
        co_return protocol_error(
            fmt::format("Unexpected option type {}, expected {}", header.option.load(), std::uint32_t(which)));
    if (header.length > max_option_bytes)
        co_return protocol_error(fmt::format("option reply of {} bytes is too long", header.length.load()));
    Reply reply;
    reply.kind = OptionReply(header.reply.load());
    reply.data.resize(header.length);
    if (!reply.data.empty()) CO_TRY(co_await connection_.reader.read_exact(reply.data));
    co_return std::move(reply);
}

Task<Result<bool>> ClientHandshake::agree(Option which) {
    CO_TRY(co_await send(which, ConstBytes()));
    CO_TRY_ASSIGN(Reply reply, co_await receive(which));
    if (reply.kind == OptionReply::ack) co_return true;
    if (!is_error(reply.kind)) co_return protocol_error("Unexpected reply to an option");
    if (reply.kind == OptionReply::err_unsup) co_return false;
    co_return refused(reply.kind, reply.text());
}

Task<Result<void>> ClientHandshake::begin() {
    be64 first, second;
    CO_TRY(co_await connection_.reader.read_struct(first));
    if (first != init_magic) co_return protocol_error("Bad initial magic received: this is no NBD server");
    CO_TRY(co_await connection_.reader.read_struct(second));
    if (second == old_style_magic)
        co_return protocol_error("Server does not support fixed newstyle negotiation (it speaks oldstyle)");
    if (second != option_magic) co_return protocol_error("Bad server magic received");
    be16 flags;
    CO_TRY(co_await connection_.reader.read_struct(flags));
    if (!(flags & flag_fixed_newstyle)) co_return protocol_error("Server does not support fixed newstyle negotiation");
    no_zeroes_ = flags & flag_no_zeroes;
    be32 answer(flag_fixed_newstyle | (no_zeroes_ ? flag_no_zeroes : 0u));
    IoVector all(ConstBytes(reinterpret_cast<std::uint8_t const*>(&answer), sizeof answer));
    CO_TRY(co_await connection_.stream->write_all(all.const_spans()));
    if (settings_.credentials) {
        CO_TRY_ASSIGN(bool agreed, co_await agree(Option::starttls));
        if (!agreed) co_return Error("Server does not support TLS", EACCES);
        CO_TRY(co_await connection_.start_tls(settings_.credentials, settings_.tls_hostname));
    }
    co_return Result<void>{};
}

Task<Result<std::vector<ExportInfo::Context>>> ClientHandshake::contexts(Option which, std::string name,
                                                                         std::string query) {
    std::vector<std::uint8_t> data;
    append_wire(data, be32(std::uint32_t(name.size())));
    append_text(data, name);
    append_wire(data, be32(query.empty() ? 0u : 1u));
    if (!query.empty()) {
        append_wire(data, be32(std::uint32_t(query.size())));
        append_text(data, query);
    }
    CO_TRY(co_await send(which, data));
    std::vector<ExportInfo::Context> found;
    for (;;) {
        CO_TRY_ASSIGN(Reply reply, co_await receive(which));
        if (reply.kind == OptionReply::ack || is_error(reply.kind)) co_return std::move(found); // an extra: go without
        WireReader reader(reply.data);
        std::optional<be32> id = reader.take<be32>();
        std::optional<std::string> text = id ? reader.take_text(reader.left()) : std::nullopt;
        if (reply.kind != OptionReply::meta_context || !text || found.size() >= max_contexts)
            co_return protocol_error("Unexpected reply to a metadata context query");
        found.push_back({*id, *std::move(text)});
    }
}

Result<void> ClientHandshake::take_info(Reply const& reply, ExportInfo& info) const {
    WireReader reader(reply.data);
    std::optional<be16> type = WireReader(reply.data).take<be16>();
    if (!type) return protocol_error("broken information reply");
    switch (Info(type->load())) {
    case Info::export_: {
        auto data = reader.take<InfoExport>();
        if (!data || reader.left() != 0) return protocol_error("broken NBD_INFO_EXPORT");
        info.size_bytes = data->size;
        info.flags = data->flags;
        break;
    }
    case Info::block_size: {
        auto data = reader.take<InfoBlockSize>();
        if (!data || reader.left() != 0) return protocol_error("broken NBD_INFO_BLOCK_SIZE");
        std::uint32_t minimum = data->minimum, preferred = data->preferred, maximum = data->maximum;
        bool power = minimum && !(minimum & (minimum - 1)) && preferred && !(preferred & (preferred - 1));
        if (!power || minimum > 65536 || preferred < minimum || maximum < minimum || maximum % minimum)
            return protocol_error(
                fmt::format("server sent impossible block sizes {}/{}/{}", minimum, preferred, maximum));
        info.minimum_block = minimum;
        info.preferred_block = preferred;
        info.maximum_block = maximum;
        break;
    }
    case Info::description: info.description = printable(reply.text().substr(2)); break;
    case Info::name: break;
    }
    return {};
}

Task<Result<bool>> ClientHandshake::query_info(Option which, ExportInfo& info) {
    std::vector<std::uint8_t> data;
    append_wire(data, be32(std::uint32_t(info.name.size())));
    append_text(data, info.name);
    append_wire(data, be16(2));
    append_wire(data, be16(std::uint16_t(Info::block_size)));
    append_wire(data, be16(std::uint16_t(Info::description)));
    CO_TRY(co_await send(which, data));
    bool told_size = false;
    for (unsigned count = 0; count < 1000; ++count) {
        CO_TRY_ASSIGN(Reply reply, co_await receive(which));
        if (reply.kind == OptionReply::ack) {
            if (!told_size) co_return protocol_error("The server did not tell the size of the export");
            co_return true;
        }
        if (reply.kind == OptionReply::err_unsup) co_return false;
        if (is_error(reply.kind)) co_return refused(reply.kind, reply.text());
        if (reply.kind != OptionReply::info) co_return protocol_error("Unexpected reply to an information query");
        CO_TRY(take_info(reply, info));
        told_size = told_size || (reply.data[0] == 0 && reply.data[1] == 0);
    }
    co_return protocol_error("The server does not stop telling about the export");
}

// For servers that do not know NBD_OPT_GO.
Task<Result<void>> ClientHandshake::choose_by_name(ExportInfo& info) {
    std::vector<std::uint8_t> name(info.name.begin(), info.name.end());
    CO_TRY(co_await send(Option::export_name, name));
    ExportNameReply reply;
    CO_TRY(co_await connection_.reader.read_struct(reply));
    info.size_bytes = reply.size;
    info.flags = reply.flags;
    if (!no_zeroes_) CO_TRY(co_await connection_.reader.skip(export_name_zeroes));
    co_return Result<void>{};
}

Task<Result<ExportInfo>> ClientHandshake::choose() {
    if (settings_.export_name.size() > max_string_bytes)
        co_return error("export name '{}' too long", settings_.export_name);
    CO_TRY(co_await begin());
    ExportInfo info;
    info.name = settings_.export_name;
    if (settings_.structured) {
        CO_TRY_ASSIGN(info.structured_replies, co_await agree(Option::structured_reply));
    }
    if (info.structured_replies && !settings_.context.empty()) {
        CO_TRY_ASSIGN(info.contexts, co_await contexts(Option::set_meta_context, info.name, settings_.context));
    }
    CO_TRY_ASSIGN(bool chosen, co_await query_info(Option::go, info));
    if (!chosen) CO_TRY(co_await choose_by_name(info));
    if (info.size_bytes > INT64_MAX) co_return protocol_error("The export is too big");
    co_return std::move(info);
}

Task<Result<std::vector<ExportInfo>>> ClientHandshake::list() {
    CO_TRY(co_await begin());
    CO_TRY_ASSIGN(bool structured, co_await agree(Option::structured_reply));
    CO_TRY(co_await send(Option::list, ConstBytes()));
    std::vector<ExportInfo> exports;
    for (;;) {
        CO_TRY_ASSIGN(Reply reply, co_await receive(Option::list));
        if (reply.kind == OptionReply::ack) break;
        if (is_error(reply.kind)) co_return refused(reply.kind, reply.text());
        WireReader reader(reply.data);
        std::optional<std::string> name = reader.take_string();
        if (reply.kind != OptionReply::server || !name || exports.size() >= max_exports)
            co_return protocol_error("Unexpected reply to an export list query");
        ExportInfo one;
        one.name = *std::move(name);
        one.structured_replies = structured;
        one.description = printable(std::string(reader.rest().begin(), reader.rest().end()));
        exports.push_back(std::move(one));
    }
    for (ExportInfo& one : exports) {
        CO_TRY_ASSIGN(bool told, co_await query_info(Option::info, one));
        if (!told) break;
        if (structured) {
            CO_TRY_ASSIGN(one.contexts, co_await contexts(Option::list_meta_context, one.name, std::string()));
        }
    }
    CO_TRY(co_await send(Option::abort, ConstBytes()));
    co_return std::move(exports);
}

} // namespace vmm::block::nbd
