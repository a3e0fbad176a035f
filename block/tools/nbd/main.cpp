// vmm-nbd: serves disk images over NBD, lists what other servers offer, connects images to /dev/nbdN.
#include "block/nbd/nbd_client.h"
#include "block/tools/common/objects.h"
#include "block/tools/nbd/daemon.h"
#include "block/tools/nbd/kernel_device.h"
#include "block/tools/nbd/serve.h"

#include <cstdio>

namespace {

using namespace vmm;
using namespace vmm::block;

std::string flag_names(std::uint16_t flags) {
    struct Name {
        std::uint16_t bit;
        char const* text;
    };
    constexpr Name names[] = {
        {nbd::flag_read_only, "readonly"},
        {nbd::flag_send_flush, "flush"},
        {nbd::flag_send_fua, "fua"},
        {nbd::flag_rotational, "rotational"},
        {nbd::flag_send_trim, "trim"},
        {nbd::flag_send_write_zeroes, "zeroes"},
        {nbd::flag_send_df, "df"},
        {nbd::flag_can_multi_conn, "multi"},
        {nbd::flag_send_resize, "resize"},
        {nbd::flag_send_cache, "cache"},
        {nbd::flag_send_fast_zero, "fast-zero"},
    };
    std::string text;
    for (Name const& one : names)
        if (flags & one.bit) text += std::string(" ") + one.text;
    return text;
}

void print_export(nbd::ExportInfo const& one) {
    fmt::print(" export: '{}'\n", one.name);
    if (!one.description.empty()) fmt::print("  description: {}\n", one.description);
    if (one.flags & nbd::flag_has_flags) {
        fmt::print("  size:  {}\n  flags: {:#x} ({} )\n", one.size_bytes, one.flags, flag_names(one.flags));
    }
    if (one.minimum_block)
        fmt::print("  min block: {}\n  opt block: {}\n  max block: {}\n", one.minimum_block, one.preferred_block,
                   one.maximum_block);
    if (one.contexts.empty()) return;
    fmt::print("  available meta contexts: {}\n", one.contexts.size());
    for (auto const& context : one.contexts) fmt::print("   {}\n", context.name);
}

int list(Tool& tool, nbd::TlsStore const& tls, NbdArguments const& arguments) {
    nbd::ClientSettings settings;
    settings.tls_hostname = arguments.tls_hostname.empty() ? arguments.address.host : arguments.tls_hostname;
    if (!arguments.address.path.empty()) settings.tls_hostname = arguments.tls_hostname;
    if (!arguments.tls_creds.empty()) {
        auto credentials = tls.find(arguments.tls_creds, false);
        if (!credentials.ok()) return tool.fail(credentials.error().with_prefix("Failed to get TLS creds"));
        settings.credentials = credentials.value();
    }
    auto exports = tool.run(nbd::list_exports(tool.loop(), arguments.address, std::move(settings)));
    if (!exports.ok()) return tool.fail(exports.error());
    fmt::print("exports available: {}\n", exports.value().size());
    for (nbd::ExportInfo const& one : exports.value()) print_export(one);
    return 0;
}

int run(std::string const& program, NbdArguments const& arguments, Daemon* daemon) {
    auto tool = Tool::create(program);
    if (!tool.ok()) {
        fmt::print(stderr, "{}: {}\n", program, tool.error().message());
        return 1;
    }
    nbd::TlsStore& tls = tool.value()->tls();
    for (std::string const& definition : arguments.objects)
        if (Result<void> added = add_object(*tool.value(), definition); !added.ok())
            return tool.value()->fail(added.error());
    if (arguments.mode == NbdArguments::Mode::list) return list(*tool.value(), tls, arguments);
    return serve(*tool.value(), tls, arguments, daemon);
}

} // namespace

int main(int argc, char** argv) {
    std::string program(argv[0]);
    program = program.substr(program.rfind('/') + 1);
    bool usage = false;
    Result<NbdArguments> parsed = parse_nbd_arguments(argc, argv, usage);
    if (!parsed.ok()) {
        if (!parsed.error().message().empty()) fmt::print(stderr, "{}: {}\n", program, parsed.error().message());
        if (usage) fmt::print(stderr, "Try `{} --help' for more information.\n", program);
        return 1;
    }
    NbdArguments const& arguments = parsed.value();
    switch (arguments.mode) {
    case NbdArguments::Mode::help: fmt::print("{}", nbd_help(program)); return 0;
    case NbdArguments::Mode::version: fmt::print("{} (vmm) {}\n", program, VMM_VERSION); return 0;
    case NbdArguments::Mode::disconnect:
        if (Result<void> done = disconnect_nbd_device(arguments.device); !done.ok()) {
            fmt::print(stderr, "{}: {}\n", program, done.error().message());
            return 1;
        }
        fmt::print("{} disconnected\n", arguments.device);
        return 0;
    default: break;
    }
    bool serving = arguments.mode == NbdArguments::Mode::serve;
    // A connected device stays until `-d`, so its server goes to the background unless it is to talk.
    if (!serving || !(arguments.fork || (!arguments.device.empty() && !arguments.verbose)))
        return run(program, arguments, nullptr);
    Result<Daemon> daemon = Daemon::fork();
    if (!daemon.ok()) {
        fmt::print(stderr, "{}: {}\n", program, daemon.error().message());
        return 1;
    }
    return run(program, arguments, &daemon.value());
}
