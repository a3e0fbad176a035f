#include "block/formats/qcow/image.h"
#include "block/formats/qcow/qcow.h"
#include "vmm/base/checked.h"

#include <cstring>

namespace vmm::block {

namespace {

using namespace qcow;

constexpr OptionSpec open_options[] = {{"encrypt.", OptionType::string, "format, key-secret"}};

constexpr OptionSpec create_options[] = {
    {"size", OptionType::size, "Virtual disk size"},
    {"backing_file", OptionType::string, "File name of a base image"},
    {"backing_fmt", OptionType::string, "Format of the backing image"},
    {"encrypt.format", OptionType::string, "Encrypt the image, format choices: 'aes'"},
    {"encrypt.key-secret", OptionType::string, "ID of the secret that provides the AES encryption key"},
    {"encryption", OptionType::boolean,
     "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"},
};

int probe(ConstBytes header, std::string_view) {
    Header h;
    if (header.size() < sizeof h) return 0;
    std::memcpy(&h, header.data(), sizeof h);
    return h.magic == magic && h.version == 1 ? 100 : 0;
}

Task<Result<void>> create(BlockContext& context, CreateRequest request) {
    CO_TRY_ASSIGN(bool encrypt, request.options.boolean("encryption", false));
    if (auto format = request.options.text("encrypt.format")) {
        if (*format != "aes")
            co_return error("Invalid parameter '{}': qcow images can only be encrypted with 'aes'", *format);
        encrypt = true;
    }
    if (encrypt) {
        CO_TRY(cipher_from(context, request.options));
    }
    std::string backing = request.options.text_or("backing_file", "");
    if (backing.size() > max_backing_name) co_return error("The backing file name is too long");
    Header header;
    if (request.size_bytes == 0) co_return error("Image size is too small, cannot be zero length");
    header.size = align_up<std::uint64_t>(request.size_bytes, 512);
    // Over a backing file small clusters, so that little is copied from it.
    header.cluster_bits = backing.empty() ? 12 : 9;
    header.l2_bits = backing.empty() ? 9 : 12;
    header.crypt_method = encrypt ? crypt_aes : crypt_none;
    header.backing_offset = backing.empty() ? 0 : sizeof header;
    header.backing_size = std::uint32_t(backing.size());
    header.l1_offset = align_up<std::uint64_t>(sizeof header + backing.size(), 8);
    CO_TRY(validate(header, request.filename));
    std::vector<std::uint8_t> start(header.l1_offset);
    std::memcpy(start.data(), &header, sizeof header);
    std::memcpy(start.data() + sizeof header, backing.data(), backing.size());
    // The table is a hole, or zeroes where something was before.
    std::uint64_t const end = header.l1_offset + header.l1_entries() * 8;
    CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> file,
                  co_await create_file(context, request.filename, end, request.file_options));
    CO_TRY(co_await write_zeroes(*file, 0, end, {.may_unmap = true}));
    CO_TRY(co_await write_bytes(*file, 0, start));
    Result<void> result = co_await file->flush();
    co_return result;
}

} // namespace

Format qcow_format() {
    return {.name = "qcow",
            .probe = probe,
            .open = qcow::open,
            .create = create,
            .create_options = create_options,
            .open_options = open_options,
            .supports_backing = true,
            .supports_compression = true};
}

} // namespace vmm::block
