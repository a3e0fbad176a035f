// An open qcow image.
#pragma once
#include "block/formats/mapped/mapped_image.h"
#include "block/formats/qcow/sector_cipher.h"
#include "block/formats/qcow/tables.h"

namespace vmm::block::qcow {

class QcowImage final : public MappedImage, public CompressedWrites, public Emptyable {
public:
    QcowImage(FormatOpenArgs args, Header header, std::string backing, std::unique_ptr<SectorCipher> cipher);
    Task<Result<void>> load_tables();
    BackingReference backing_reference() const override { return {backing_, ""}; }
    Capabilities capabilities() override;
    std::uint32_t cluster_size_bytes() const override { return std::uint32_t(unit_); }
    Task<Result<void>> write_compressed(std::uint64_t offset, ConstIoSpans from) override;
    Task<Result<void>> finish_compressed() override { return flush(); }
    Task<Result<void>> make_empty() override { return tables_.clear(); }

protected:
    Result<std::optional<Mapping>> find(std::uint64_t offset) override;
    Task<Result<void>> load(std::uint64_t offset) override { return tables_.load(offset); }
    Task<Result<NewPlace>> allocate(Mapping was) override;
    void publish(Mapping const& was, NewPlace place) override { tables_.set(was.start, place.host_offset); }
    Task<Result<void>> read_compressed(Mapping was, Bytes unit) override;
    Task<Result<void>> write_back() override { return tables_.write_back(); }
    bool clean() const override { return tables_.clean(); }
    bool encrypted() const override { return header_.crypt_method != crypt_none; }
    void decrypt(std::uint64_t offset, Bytes bytes) override { cipher_->decrypt(offset, bytes); }
    void encrypt(std::uint64_t offset, Bytes bytes) override { cipher_->encrypt(offset, bytes); }

private:
    Header header_;
    std::string backing_;
    std::unique_ptr<SectorCipher> cipher_; // null: not encrypted, or opened for its metadata only
    Tables tables_;
};

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args);
// The cipher for `options` ("encrypt.key-secret"): "Parameter 'encrypt.key-secret' is required for cipher".
Result<std::unique_ptr<SectorCipher>> cipher_from(BlockContext& context, OptionValues const& options);

} // namespace vmm::block::qcow
