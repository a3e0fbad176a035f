#include "block/nbd/server_handshake.h"

#include "block/nbd/wire_reader.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::nbd {

namespace {

constexpr unsigned max_options = 4096; // a client that goes on longer is not going to choose an export
constexpr std::size_t max_queries = 256;

ConstBytes bytes_of(std::vector<std::uint8_t> const& data) { return data; }
template <class T> ConstBytes bytes_of_struct(T const& value) {
    return {reinterpret_cast<std::uint8_t const*>(&value), sizeof value};
}
Error protocol_error(std::string text) { return Error(std::move(text), EPROTO); }

// Which contexts a query selects: an exact name; for LIST also "namespace:" and "qemu:dirty-bitmap:".
void select_contexts(Export const& target, std::string const& query, bool listing, std::vector<unsigned>& ids) {
    for (unsigned id = 0; id < target.contexts().size(); ++id) {
        std::string const& name = target.contexts()[id];
        bool matches = name == query || (listing && query.ends_with(':') && name.starts_with(query));
        if (matches && std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
    }
}

} // namespace

Task<Result<void>> ServerHandshake::reply(Option to, OptionReply kind, ConstBytes data) {
    OptionReplyHeader header{.magic = option_reply_magic,
                             .option = std::uint32_t(to),
                             .reply = std::uint32_t(kind),
                             .length = std::uint32_t(data.size())};
    IoVector all(bytes_of_struct(header));
    all.append(data);
    Result<void> sent = co_await connection_.stream->write_all(all.const_spans());
    co_return sent;
}

Task<Result<void>> ServerHandshake::reply_error(Option to, OptionReply kind, std::string_view text) {
    std::string message(text);
    ConstBytes data(reinterpret_cast<std::uint8_t const*>(message.data()), message.size());
    Result<void> sent = co_await reply(to, kind, data);
    co_return sent;
}

Task<Result<std::optional<Negotiated>>> ServerHandshake::run() {
    ServerHello hello{init_magic, option_magic, std::uint16_t(flag_fixed_newstyle | flag_no_zeroes)};
    IoVector greeting(bytes_of_struct(hello));
    CO_TRY(co_await connection_.stream->write_all(greeting.const_spans()));
    be32 client_flags;
    CO_TRY_ASSIGN(bool present, co_await connection_.reader.read_struct(client_flags, true));
    if (!present) co_return std::optional<Negotiated>{};
    if (client_flags & ~std::uint32_t(flag_fixed_newstyle | flag_no_zeroes))
        co_return protocol_error(fmt::format("Unknown client flags {:#x}", client_flags.load()));
    fixed_ = client_flags & flag_fixed_newstyle;
    no_zeroes_ = client_flags & flag_no_zeroes;
    for (unsigned count = 0; count < max_options; ++count) {
        OptionHeader header;
        CO_TRY_ASSIGN(bool more, co_await connection_.reader.read_struct(header, true));
        if (!more) co_return std::optional<Negotiated>{};
        if (header.magic != option_magic) co_return protocol_error("Bad magic received");
        auto which = Option(header.option.load());
        if (header.length > max_payload_bytes)
            co_return protocol_error(fmt::format("Option of {} bytes", header.length.load()));
        if (header.length > max_option_bytes) {
            CO_TRY(co_await connection_.reader.skip(header.length));
            CO_TRY(co_await reply_error(which, OptionReply::err_too_big, "The option is too long"));
            continue;
        }
        std::vector<std::uint8_t> data(header.length);
        if (!data.empty()) CO_TRY(co_await connection_.reader.read_exact(data));
        CO_TRY_ASSIGN(Next next, co_await option(which, data));
        if (next == Next::leave) co_return std::optional<Negotiated>{};
        if (next == Next::transmission) {
            if (contexts_for_ != chosen_.target) chosen_.contexts.clear();
            co_return std::optional<Negotiated>(chosen_);
        }
    }
    co_return protocol_error("Too many options");
}

Task<Result<ServerHandshake::Next>> ServerHandshake::option(Option which, ConstBytes data) {
    if (!fixed_ && which != Option::export_name)
        co_return protocol_error(fmt::format("Unsupported option {:#x}", std::uint32_t(which)));
    if (server_.settings().credentials && !encrypted_ && which != Option::starttls && which != Option::abort) {
        if (which == Option::export_name) co_return protocol_error("Option 0x1 not permitted before TLS");
        CO_TRY(co_await reply_error(
            which, OptionReply::err_tls_reqd,
            fmt::format("Option {:#x} not permitted before TLS\nDid you forget --tls-creds?", std::uint32_t(which))));
        co_return Next::option;
    }
    Result<Next> next = Next::option;
    switch (which) {
    case Option::export_name: next = co_await export_name(data); break;
    case Option::abort: {
        // The client may have gone without waiting for this.
        Result<void> ignored = co_await reply(which, OptionReply::ack);
        (void)ignored;
        next = Next::leave;
        break;
    }
    case Option::list: next = co_await list(data); break;
    case Option::starttls: next = co_await start_tls_now(data); break;
    case Option::info:
    case Option::go: next = co_await info(which, data); break;
    case Option::structured_reply:
        if (!data.empty()) {
            CO_TRY(co_await reply_error(which, OptionReply::err_invalid, "The option has no data"));
        } else {
            chosen_.structured_replies = true;
            CO_TRY(co_await reply(which, OptionReply::ack));
        }
        break;
    case Option::list_meta_context:
    case Option::set_meta_context: next = co_await meta_context(which, data); break;
    default:
        CO_TRY(co_await reply_error(which, OptionReply::err_unsup,
                                    fmt::format("Unsupported option {:#x}", std::uint32_t(which))));
    }
    co_return next;
}

Task<Result<ServerHandshake::Next>> ServerHandshake::export_name(ConstBytes data) {
    WireReader reader(data);
    std::optional<std::string> name = reader.take_text(data.size());
    if (!name) co_return protocol_error("The export name is too long");
    chosen_.target = server_.find(*name);
    if (!chosen_.target) co_return protocol_error(fmt::format("Export '{}' not present", *name));
    std::vector<std::uint8_t> answer;
    append_wire(answer,
                ExportNameReply{chosen_.target->size_bytes(), chosen_.target->flags(chosen_.structured_replies)});
    if (!no_zeroes_) answer.resize(answer.size() + export_name_zeroes);
    IoVector all(bytes_of(answer));
    CO_TRY(co_await connection_.stream->write_all(all.const_spans()));
    co_return Next::transmission;
}

Task<Result<ServerHandshake::Next>> ServerHandshake::list(ConstBytes data) {
    if (!data.empty()) {
        CO_TRY(co_await reply_error(Option::list, OptionReply::err_invalid, "The option has no data"));
        co_return Next::option;
    }
    for (auto const& one : server_.exports()) {
        std::vector<std::uint8_t> entry;
        append_wire(entry, be32(std::uint32_t(one->name().size())));
        append_text(entry, one->name());
        append_text(entry, one->description());
        CO_TRY(co_await reply(Option::list, OptionReply::server, entry));
    }
    CO_TRY(co_await reply(Option::list, OptionReply::ack));
    co_return Next::option;
}

Task<Result<void>> ServerHandshake::send_info(Option which, Info type, Export& target) {
    std::vector<std::uint8_t> data;
    switch (type) {
    case Info::export_:
        append_wire(data,
                    InfoExport{std::uint16_t(type), target.size_bytes(), target.flags(chosen_.structured_replies)});
        break;
    case Info::name:
        append_wire(data, be16(std::uint16_t(type)));
        append_text(data, target.name());
        break;
    case Info::description:
        append_wire(data, be16(std::uint16_t(type)));
        append_text(data, target.description());
        break;
    case Info::block_size:
        append_wire(data, InfoBlockSize{std::uint16_t(type), target.minimum_block(), target.preferred_block(),
                                        max_payload_bytes});
        break;
    }
    Result<void> sent = co_await reply(which, OptionReply::info, data);
    co_return sent;
}

Task<Result<ServerHandshake::Next>> ServerHandshake::info(Option which, ConstBytes data) {
    WireReader reader(data);
    std::optional<std::string> name = reader.take_string();
    std::optional<be16> count = name ? reader.take<be16>() : std::nullopt;
    if (!count || reader.left() != std::size_t(*count) * sizeof(be16)) {
        CO_TRY(co_await reply_error(which, OptionReply::err_invalid, "The option's lengths do not add up"));
        co_return Next::option;
    }
    Export* target = server_.find(*name);
    if (!target) {
        CO_TRY(co_await reply_error(which, OptionReply::err_unknown, fmt::format("export '{}' not present", *name)));
        co_return Next::option;
    }
    bool wants_name = false, wants_description = false;
    while (std::optional<be16> type = reader.take<be16>()) {
        wants_name = wants_name || *type == std::uint16_t(Info::name);
        wants_description = wants_description || *type == std::uint16_t(Info::description);
    }
    if (wants_name) CO_TRY(co_await send_info(which, Info::name, *target));
    if (wants_description && !target->description().empty())
        CO_TRY(co_await send_info(which, Info::description, *target));
    CO_TRY(co_await send_info(which, Info::block_size, *target));
    CO_TRY(co_await send_info(which, Info::export_, *target));
    CO_TRY(co_await reply(which, OptionReply::ack));
    if (which == Option::info) co_return Next::option;
    chosen_.target = target;
    co_return Next::transmission;
}

Task<Result<ServerHandshake::Next>> ServerHandshake::start_tls_now(ConstBytes data) {
    if (!data.empty()) {
        CO_TRY(co_await reply_error(Option::starttls, OptionReply::err_invalid, "The option has no data"));
        co_return Next::option;
    }
    if (!server_.settings().credentials || encrypted_) {
        CO_TRY(co_await reply_error(Option::starttls, encrypted_ ? OptionReply::err_invalid : OptionReply::err_policy,
                                    encrypted_ ? "TLS has already started" : "TLS not configured"));
        co_return Next::option;
    }
    CO_TRY(co_await reply(Option::starttls, OptionReply::ack));
    CO_TRY(co_await connection_.start_tls(server_.settings().credentials, std::string()));
    encrypted_ = true;
    chosen_ = {};
    contexts_for_ = nullptr;
    co_return Next::option;
}

Task<Result<ServerHandshake::Next>> ServerHandshake::meta_context(Option which, ConstBytes data) {
    bool listing = which == Option::list_meta_context;
    if (!listing) {
        chosen_.contexts.clear();
        contexts_for_ = nullptr;
    }
    WireReader reader(data);
    std::optional<std::string> name = reader.take_string();
    std::optional<be32> count = name ? reader.take<be32>() : std::nullopt;
    bool valid = count && *count <= max_queries;
    std::vector<std::string> queries;
    for (std::uint32_t i = 0; valid && i < *count; ++i) {
        std::optional<std::string> query = reader.take_string();
        valid = query.has_value();
        if (valid) queries.push_back(*std::move(query));
    }
    if (!valid || reader.left() != 0 || (!listing && !chosen_.structured_replies)) {
        CO_TRY(co_await reply_error(which, OptionReply::err_invalid,
                                    valid && reader.left() == 0
                                        ? "request option structured replies before metadata contexts"
                                        : "The option's lengths do not add up"));
        co_return Next::option;
    }
    Export* target = server_.find(*name);
    if (!target) {
        CO_TRY(co_await reply_error(which, OptionReply::err_unknown, fmt::format("export '{}' not present", *name)));
        co_return Next::option;
    }
    std::vector<unsigned> ids;
    for (std::string const& query : queries) select_contexts(*target, query, listing, ids);
    if (listing && queries.empty())
        for (unsigned id = 0; id < target->contexts().size(); ++id) ids.push_back(id);
    for (unsigned id : ids) {
        std::vector<std::uint8_t> entry;
        append_wire(entry, be32(id));
        append_text(entry, target->contexts()[id]);
        CO_TRY(co_await reply(which, OptionReply::meta_context, entry));
    }
    CO_TRY(co_await reply(which, OptionReply::ack));
    if (!listing) {
        chosen_.contexts = std::move(ids);
        contexts_for_ = target;
    }
    co_return Next::option;
}

} // namespace vmm::block::nbd
